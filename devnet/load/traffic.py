"""Offers the load: at a given rate whatever the network does, or as fast as it takes it.

Theory of operation. The accounts are divided into as many groups as there are nodes, and each group has its node, so
that a lane's transactions arrive in order. While that node does not answer, its group goes to the next one.

At a rate (open loop) every transaction has a time at which it is due, and its latency counts from there: a network that
stalls cannot make its latency look better by slowing its clients. Without a rate (closed loop) each group keeps a
bounded number in flight. What nobody answered is sent again, the same bytes, to whoever answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from devnet.load.book import Book, Entry
from devnet.load.signing import Place, Signed, Signer
from devnet.load.target import BODY_BYTES_MAX, Target

TICK_SECONDS: Final = 0.01
BATCH_MAX: Final = 100
IN_FLIGHT_DEFAULT: Final = 4_000
AGAIN_SECONDS: Final = 0.25
PATIENCE_SECONDS: Final = 5.0
ACCEPT_TIMEOUT_SECONDS: Final = 5.0
COMMIT_TIMEOUT_SECONDS: Final = 20.0
COMMITTED_RATE_MAX: Final = 300


@dataclass(slots=True)
class Group:
    """Accounts that share a node: what is signed for them, and the next sequence of each."""

    number: int
    accounts: list[int]
    ready: deque[Signed]
    sequences: dict[int, int]
    turn: int = 0

    def next(self, signer: Signer, broken: set[int]) -> Signed | None:
        """Returns the next transaction, signed now if nothing is left; None if no account can go on."""
        while self.ready:
            signed = self.ready.popleft()
            if signed.account not in broken:
                return signed
        for _ in self.accounts:
            account = self.accounts[self.turn % len(self.accounts)]
            self.turn += 1
            if account not in broken:
                sequence = self.sequences[account]
                self.sequences[account] = sequence + 1
                return signer.sign(account, 0, sequence)
        return None


def places(accounts: Sequence[int], sequences: dict[int, int], count: int) -> list[Place]:
    """Returns the next `count` places of these accounts, each in its turn, and moves their sequences past them."""
    taken: list[Place] = []
    while len(taken) < count:
        for account in accounts[: count - len(taken)]:
            taken.append((account, sequences[account]))
            sequences[account] += 1
    return taken


class Traffic:
    """Sends a load's transactions to the nodes."""

    def __init__(self, targets: Sequence[Target], groups: Sequence[Group], book: Book, signer: Signer) -> None:
        """Takes one group for each node."""
        self._targets = targets
        self._groups = groups
        self._book = book
        self._signer = signer

        self.wait = "accepted"
        self.timeout_s = ACCEPT_TIMEOUT_SECONDS
        self.sends_again = True

    def await_commits(self) -> None:
        """Has every request wait until its transactions are final: exact and cheap while they are few."""
        self.wait, self.timeout_s = "committed", COMMIT_TIMEOUT_SECONDS

    async def at_rate(self, rate: float, seconds: float, nursery: trio.Nursery) -> None:
        """Offers `rate` transactions a second, each due at its own time, however long answers take."""
        begin = trio.current_time()
        total = round(rate * seconds)
        offered = tick = 0
        while offered < total:
            wake_at = begin + (offered + 1) / rate
            if rate * TICK_SECONDS > 1:
                wake_at = max(wake_at, begin + (tick + 1) * TICK_SECONDS)
            await trio.sleep_until(wake_at)
            due = min(total, int((trio.current_time() - begin) * rate + 1e-6))
            group = self._groups[tick % len(self._groups)]
            entries = [self._new(group, begin + (number + 1) / rate) for number in range(offered, due)]
            self._start(group, [entry for entry in entries if entry is not None], nursery)
            offered = max(due, offered)
            tick += 1

    async def as_taken(self, seconds: float, in_flight: int, nursery: trio.Nursery) -> None:
        """Keeps `in_flight` transactions on their way, in all groups together, for so long."""
        window = max(1, in_flight // len(self._groups))
        batch = max(1, min(BATCH_MAX, window // 4))
        with trio.move_on_after(seconds):
            while True:
                for group in self._groups:
                    room = window - self._book.in_flight(group.number)
                    while room >= batch and any(target.up for target in self._targets):
                        now = trio.current_time()
                        entries = [self._new(group, now) for _ in range(batch)]
                        new = [entry for entry in entries if entry is not None]
                        if not new:
                            break
                        self._start(group, new, nursery)
                        room -= len(new)
                await trio.sleep(TICK_SECONDS)

    async def send_open_again(self, nursery: trio.Nursery) -> None:
        """Sends again what nobody answered, and what was accepted and seems forgotten, until cancelled."""
        while True:
            await trio.sleep(AGAIN_SECONDS)
            now = trio.current_time()
            for group in self._groups:
                if not self.sends_again or not self._target(group).up:
                    continue
                again = self._book.to_send_again(group.number, now, PATIENCE_SECONDS, BATCH_MAX * 5)
                self._start(group, again, nursery)

    async def send_one(self, signed: Signed) -> None:
        """Sends one transaction beside the load and waits for its answer."""
        group = self._groups[0]
        await self._send(group, [self._book.sent(signed, group.number, trio.current_time())])

    def _new(self, group: Group, due: float) -> Entry | None:
        signed = group.next(self._signer, self._book.broken)
        return None if signed is None else self._book.sent(signed, group.number, due)

    def _target(self, group: Group) -> Target:
        """Returns the group's node or, while that is down, the next one that is not."""
        count = len(self._targets)
        turns = (self._targets[(group.number + step) % count] for step in range(count))
        return next((target for target in turns if target.up), self._targets[group.number])

    def _start(self, group: Group, entries: list[Entry], nursery: trio.Nursery) -> None:
        """Sends entries in batches that a request may hold."""
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            bytes_more = 2 * len(entry.signed.wire) + 128
            if batch and (len(batch) >= BATCH_MAX or size + bytes_more > BODY_BYTES_MAX):
                nursery.start_soon(self._send, group, batch)
                batch, size = [], 0
            batch.append(entry)
            size += bytes_more
        if batch:
            nursery.start_soon(self._send, group, batch)

    async def _send(self, group: Group, batch: list[Entry]) -> None:
        self._book.totals.sends += len(batch)
        await self._target(group).send(batch, self._book, self.wait, self.timeout_s)
