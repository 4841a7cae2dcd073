"""Is the history one that a ledger may have: nothing lost, nothing doubled, nothing stale, one chain?

It believes no balance and no order that it can work out: the chain's transactions are carried out again by the one rule
of a bank (an account pays what it has, or nothing happens), and all that a client was ever told is held against that.
Each problem is one line that names what it was found in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from devnet.workload.history import Chain, History, Outcome, Read, Seen, Transfer

PROBLEMS_MAX: Final = 20
OVERDRAWN: Final = "balance_insufficient"

T = TypeVar("T", Read, Seen)


@dataclass(slots=True)
class Verdict:
    """What was found, and how much there was to look at."""

    problems: list[str] = field(default_factory=list)
    committed: int = 0
    acknowledged: int = 0
    expired: int = 0
    resolved: int = 0
    reads: int = 0
    heads: int = 0
    blocks: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was found that must not be."""
        return not self.problems

    def __str__(self) -> str:
        counts = (
            f"{self.committed} transfers committed in {self.blocks} blocks, {self.acknowledged} acknowledged, "
            f"{self.resolved} resolved by the chain, {self.expired} expired, {self.reads} reads, {self.heads} heads"
        )
        shown = self.problems[:PROBLEMS_MAX]
        more = len(self.problems) - len(shown)
        return "\n".join([counts, *shown, *([f"and {more} more"] if more else [])])


@dataclass(frozen=True, slots=True)
class _Place:
    height: int
    index: int


class _Replay:
    """The bank as the chain's transactions leave it, at each height."""

    def __init__(self, history: History, chain: Chain) -> None:
        self.places: dict[str, list[_Place]] = {}
        self.codes: dict[str, str] = {}
        self._heights: list[list[int]] = [[chain.base] for _ in chain.before]
        self._balances: list[list[int]] = [[balance] for balance in chain.before]
        known = {transfer.id: transfer for transfer in history.transfers}
        for block in chain.blocks:
            for index, tx_id in enumerate(block.ids):
                self.places.setdefault(tx_id, []).append(_Place(block.height, index))
                transfer = known.get(tx_id)
                if transfer is not None:
                    self.codes[tx_id] = self._carry_out(transfer, block.height)

    def _carry_out(self, transfer: Transfer, height: int) -> str:
        if self.balance(transfer.payer) < transfer.amount:
            return OVERDRAWN
        self._add(transfer.payer, -transfer.amount, height)
        self._add(transfer.payee, transfer.amount, height)
        return "ok"

    def _add(self, account: int, amount: int, height: int) -> None:
        balance = self._balances[account][-1] + amount
        if self._heights[account][-1] == height:
            self._balances[account][-1] = balance
        else:
            self._heights[account].append(height)
            self._balances[account].append(balance)

    def balance(self, account: int, height: int | None = None) -> int:
        """Returns what an account has after a height, or after all."""
        if height is None:
            return self._balances[account][-1]
        place = bisect_right(self._heights[account], height) - 1
        return self._balances[account][max(place, 0)]


def check(history: History, chain: Chain) -> Verdict:
    """Returns what is wrong with a history, given the chain that came of it."""
    replay = _Replay(history, chain)
    verdict = Verdict(reads=len(history.reads), heads=len(history.heads), blocks=len(chain.blocks))
    problems = verdict.problems
    problems += [f"{lie.node} told what its proof does not bear out: {lie.what}" for lie in history.lies]
    problems += _one_chain(chain)
    problems += _heads(history, chain)
    problems += _transfers(history, replay, verdict)
    problems += _real_time_order(history)
    problems += _money(chain, replay)
    problems += _reads(history, chain, replay)
    problems += _registers(history, chain)
    return verdict


def _one_chain(chain: Chain) -> Iterator[str]:
    """All nodes have the same block at each height."""
    ours = tuple(block.hash for block in chain.blocks)
    for node, hashes in chain.hashes.items():
        if len(hashes) != len(ours):
            yield f"{node} has {len(hashes)} of {len(ours)} blocks"
        for block, other in zip(chain.blocks, hashes, strict=False):
            if block.hash != other:
                yield f"{node} has another block at height {block.height}: {other}, not {block.hash}"
                break


def _heads(history: History, chain: Chain) -> Iterator[str]:
    """No node's head goes back, and each was that of the one chain."""
    by_height = {block.height: block.hash for block in chain.blocks}
    for seen in history.heads:
        known = by_height.get(seen.height)
        if seen.height > chain.base and known != seen.block_hash:
            yield f"{seen.node} told of a block {seen.block_hash} at height {seen.height}, in the chain is {known}"
    yield from _going_back(history.heads, "head")
    yield from _going_back(history.reads, "read")


def _going_back(told: Iterable[T], what: str) -> Iterator[str]:
    """Of two answers of one node, the later is not of a lower height, unless the questions overlap."""
    by_node: dict[str, list[T]] = {}
    for one in told:
        by_node.setdefault(one.node, []).append(one)
    for node, ones in by_node.items():
        floor = _Floor((one.answered, one.height) for one in ones)
        for one in ones:
            least = floor.before(one.invoked)
            if one.height < least:
                yield f"{node}: a {what} of height {one.height} was told after one of height {least}"


class _Floor:
    """The greatest value that was told before a time."""

    def __init__(self, told: Iterable[tuple[float, int]]) -> None:
        self._times: list[float] = []
        self._greatest: list[int] = []
        for at, value in sorted(told):
            self._times.append(at)
            self._greatest.append(max(value, self._greatest[-1] if self._greatest else value))

    def before(self, at: float) -> int:
        """Returns it, -1 if nothing was told before."""
        place = bisect_right(self._times, at) - 1
        # What was told at this very time may have been told after.
        while place >= 0 and self._times[place] >= at:
            place -= 1
        return self._greatest[place] if place >= 0 else -1


def _transfers(history: History, replay: _Replay, verdict: Verdict) -> Iterator[str]:
    """What was acknowledged is there, once, in its place; the rest is resolved; and nothing else is there."""
    for transfer in history.transfers:
        places = replay.places.get(transfer.id, [])
        verdict.committed += bool(places)
        if len(places) > 1:
            yield f"{transfer.id} is doubled: it stands at {places}"
        if transfer.outcome is Outcome.COMMITTED:
            verdict.acknowledged += 1
            told = _Place(transfer.height, transfer.index)
            if not places:
                yield f"{transfer.id} is lost: {transfer.node} acknowledged it at {told}"
            elif told not in places:
                yield f"{transfer.id} was acknowledged by {transfer.node} at {told} and stands at {places}"
            elif transfer.code != replay.codes[transfer.id]:
                yield f"{transfer.id} ended as {transfer.code!r}, by the balances as {replay.codes[transfer.id]!r}"
        elif transfer.outcome is Outcome.EXPIRED:
            verdict.expired += 1
            if places:
                yield f"{transfer.id} was said to be expired and stands at {places}"
        elif places:
            verdict.resolved += 1
        else:
            yield f"{transfer.id} is neither committed nor expired; the last answer was: {transfer.refusal or 'none'}"
    known = {transfer.id for transfer in history.transfers}
    strangers = [tx_id for tx_id in replay.places if tx_id not in known]
    if strangers:
        yield f"{len(strangers)} transactions are in the chain that nobody sent, the first is {strangers[0]}"


def _real_time_order(history: History) -> Iterator[str]:
    """A transfer that was asked for after another was acknowledged stands behind it in the chain."""
    done = [one for one in history.transfers if one.outcome is Outcome.COMMITTED]
    floor = _Floor((one.answered, _order(one)) for one in done)
    for transfer in done:
        if _order(transfer) <= floor.before(transfer.invoked):
            place = _Place(transfer.height, transfer.index)
            yield f"{transfer.id} at {place} stands before one that was final when it was sent"


def _order(transfer: Transfer) -> int:
    return (transfer.height << 32) + transfer.index


def _money(chain: Chain, replay: _Replay) -> Iterator[str]:
    """Balances are what the transfers leave, on all nodes, and no money came or went."""
    expected = tuple(replay.balance(account) for account in range(len(chain.before)))
    for node, balances in chain.after.items():
        wrong = [number for number, pair in enumerate(zip(balances, expected, strict=True)) if pair[0] != pair[1]]
        if wrong:
            first = wrong[0]
            yield (
                f"{node}: {len(wrong)} accounts are not as the transfers leave them; account {first} has "
                f"{balances[first]}, not {expected[first]}"
            )
        if sum(balances) != sum(chain.before):
            yield f"{node}: the accounts have {sum(balances)} together, before they had {sum(chain.before)}"
    for node, supply in chain.supply_after.items():
        if supply != chain.supply_before:
            yield f"{node}: the supply is {supply}, before it was {chain.supply_before}"


def _reads(history: History, chain: Chain, replay: _Replay) -> Iterator[str]:
    """A read shows the state of its height, of the one chain, and all that its node had acknowledged before."""
    by_height = {block.height: block.hash for block in chain.blocks}
    floors = _heights_acknowledged(history)
    for read in history.reads:
        if read.height >= chain.base and read.balance != (is_ := replay.balance(read.account, read.height)):
            yield (
                f"{read.node} told that account {read.account} has {read.balance} at height {read.height}, it has {is_}"
            )
        known = by_height.get(read.height)
        if read.block_hash is not None and read.height > chain.base and read.block_hash != known:
            yield f"{read.node} proved a read by block {read.block_hash} at height {read.height}, the chain has {known}"
        floor = floors.get(read.node)
        if floor is not None and read.height < (least := floor.before(read.invoked)):
            yield f"{read.node}: a stale read of height {read.height}, it had acknowledged height {least} before"


def _registers(history: History, chain: Chain) -> Iterator[str]:
    """A register never shows fewer writes than its node acknowledged before, nor more than were ever asked for."""
    accounts = range(history.banks, len(chain.before))
    by_register = {account: [one for one in history.transfers if one.payee == account] for account in accounts}
    acknowledged = {account: _writes_acknowledged(writes) for account, writes in by_register.items()}
    invoked = {account: sorted(one.invoked for one in writes) for account, writes in by_register.items()}
    for read in history.reads:
        if read.account not in by_register or read.height < chain.base:
            # A node that is behind where the workload began shows writes of before it.
            continue
        count = read.balance - chain.before[read.account]
        floor = acknowledged[read.account].get(read.node)
        least = 0 if floor is None else max(0, floor.before(read.invoked))
        most = bisect_right(invoked[read.account], read.answered)
        if not least <= count <= most:
            yield (
                f"{read.node}: register {read.account} shows {count} writes; {least} were acknowledged there before, "
                f"{most} were asked for by then"
            )


def _writes_acknowledged(writes: Iterable[Transfer]) -> dict[str, _Floor]:
    """Returns for each node how many writes it had acknowledged by when, counting those that these came after."""
    told: dict[str, list[tuple[float, int]]] = {}
    in_order = sorted((one for one in writes if one.outcome is Outcome.COMMITTED and one.code == "ok"), key=_order)
    for count, one in enumerate(in_order, start=1):
        told.setdefault(one.node, []).append((one.answered, count))
    return {node: _Floor(ones) for node, ones in told.items()}


def _heights_acknowledged(history: History) -> dict[str, _Floor]:
    """Returns for each node of which height it had acknowledged transfers by when."""
    told: dict[str, list[tuple[float, int]]] = {}
    for one in history.transfers:
        if one.outcome is Outcome.COMMITTED:
            told.setdefault(one.node, []).append((one.answered, one.height))
    return {node: _Floor(ones) for node, ones in told.items()}
