"""The clients of a run: they submit transfers, ask what became of them, and say when everything is final.

A client submits to anyone, asks anyone correct later on, and submits again while its transaction is not final there.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from devnet.simulation.chain import Chain
from devnet.simulation.pool import Lane
from devnet.simulation.world import START_MS
from state.transaction import Transaction

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster
    from devnet.simulation.machine import Machine


class Clients:
    """Everybody who submits, and what they wait for."""

    def __init__(self, cluster: Cluster, rng: random.Random, judged: list[Machine]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._judged = judged
        self._unsent = [list(transfers) for transfers in cluster.world.transfers]
        self._submitted: list[Transaction] = []

    def begin(self) -> None:
        """Plans what is submitted when."""
        settings = self._cluster.settings
        for _ in range(settings.transactions):
            self.submit(self._next(), self._rng.randrange(settings.submit_until_us))
        hasty = list(self._cluster.world.hasty)
        for tx in self._rng.sample(hasty, min(settings.hasty, len(hasty))):
            # Submitted so late that it may or may not come in time.
            self._attend(tx, max(0, tx.not_after_ms - START_MS - self._rng.randrange(1_000)) * 1_000)

    def submit(self, tx: Transaction, time_us: int) -> None:
        """Submits a transaction that must become final, from a time on."""
        self._submitted.append(tx)
        self._attend(tx, time_us)

    def _next(self) -> Transaction:
        return self._rng.choice([transfers for transfers in self._unsent if transfers]).pop(0)

    def _attend(self, tx: Transaction, time_us: int) -> None:
        cluster, rng = self._cluster, self._rng

        def submit() -> None:
            chain = rng.choice(self._judged).disk.chain
            if tx.wire_hash in chain.transactions or tx.not_after_ms < chain.head.time_ms:
                return
            rng.choice(cluster.machines).submitted(tx)
            cluster.schedule.after(cluster.settings.resubmit_us, submit)

        cluster.schedule.at(time_us, submit)

    def all_final(self) -> bool:
        """Whether all is final everywhere and the chain long enough; submits more if only that lacks.

        All correct machines have the same head then: a transaction that may expire is final at all of them or at none.
        """
        heads = {judged.disk.chain.head.height for judged in self._judged}
        if len(heads) != 1 or any(self.missing(judged.disk.chain) for judged in self._judged):
            return False
        if heads.pop() >= self._cluster.settings.heights_min:
            return True
        self.submit(self._next(), self._cluster.schedule.now_us)
        return False

    def missing(self, chain: Chain) -> int:
        """Returns how many transactions that must become final are not so in a chain."""
        return sum(tx.wire_hash not in chain.transactions for tx in self._submitted)

    def sequences(self, chain: Chain) -> dict[Lane, int]:
        """Returns the next sequence number of each lane of each account, as a chain has it."""
        world, settings = self._cluster.world, self._cluster.settings
        addresses = (*world.accounts, *(world.operators if settings.reforms else ()))
        accounts = ((address, world.ledger.read_account(chain, address)) for address in addresses)
        return {
            (address, lane): sequence
            for address, account in accounts
            if account is not None
            for lane, sequence in enumerate(account.lanes)
        }
