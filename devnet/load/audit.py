"""After a load: is every transaction accounted for, on every node, exactly once?

It believes nothing that was noted while the load ran. It reads the chain from where the load began to one height that
all nodes have, and compares: heads, the ids in the blocks, each account's sequence and balance, and the sums.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from devnet.load.book import Book, Entry, Fate
from devnet.load.signing import AMOUNT, Terms, recipients
from devnet.load.target import Target
from qenex_node.client.errors import TransportError
from qenex_node.testnet import NATIVE

HEIGHT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
HEIGHTS_PER_READ: Final = 100
SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Holding:
    """An account at a height: the next sequence of each lane, and the balance, in base units."""

    lanes: tuple[int, ...]
    balance: int


@dataclass(slots=True)
class Findings:
    """What the audit found. `problems` says, for people, everything that must not be; `head` is what all agree on."""

    height: int = 0
    head: str = ""
    state_root: str = ""
    blocks: int = 0
    committed: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    failed: int = 0
    problems: list[str] = field(default_factory=list)


async def read_holdings(target: Target, addresses: Sequence[str], height: int | None) -> list[Holding]:
    """Returns what accounts have at a height (None: now), as a node tells it; raises TransportError."""
    told = await target.read([("qenex_getAccount", [address, height]) for address in addresses])
    return [_holding(account, target) for account in told]


def _holding(account: Any, target: Target) -> Holding:
    if account is None:
        raise TransportError(f"{target.name} refuses to tell an account", sent=True)
    balance = account["balances"].get(NATIVE, {"available": "0", "held": "0"})
    return Holding(tuple(account["lanes"]), int(balance["available"]) + int(balance["held"]))


def expected_holdings(
    before: Sequence[Holding], committed: Sequence[Entry], terms: Terms, failed: Collection[str] = ()
) -> list[Holding]:
    """Returns what the accounts must have after these transactions; the failed ones used their sequence, no more."""
    lanes = [list(holding.lanes) for holding in before]
    balances = [holding.balance for holding in before]
    for entry in committed:
        account = entry.signed.account
        lanes[account][entry.signed.lane] += 1
        if entry.signed.id in failed:
            continue
        balances[account] -= terms.transfers * AMOUNT
        for other in recipients(terms, account):
            balances[other] += AMOUNT
    return [Holding(tuple(own), balance) for own, balance in zip(lanes, balances, strict=True)]


class Audit:
    """One audit; `run` returns its findings."""

    def __init__(
        self,
        targets: Sequence[Target],
        book: Book,
        terms: Terms,
        addresses: Sequence[str],
        before: Sequence[Holding],
        begin_height: int,
        supply: str,
    ) -> None:
        """Takes the nodes that run, what was sent, and what the accounts had at `begin_height`."""
        self._targets = targets
        self._reader = targets[0]
        self._book = book
        self._terms = terms
        self._addresses = addresses
        self._before = before
        self._begin_height = begin_height
        self._supply = supply
        self.findings = Findings()

    async def run(self) -> Findings:
        """Reads and compares everything; raises TransportError if a node stops answering."""
        await self._agree_on_head()
        await self._choose_reader()
        seen = await self._read_ids()
        committed = self._account_for(seen)
        await self._compare_holdings(committed)
        return self.findings

    async def _agree_on_head(self) -> None:
        """Finds a height that all nodes have, and checks that they have the same block and state there."""
        findings = self.findings
        heights: dict[str, int] = {}
        with trio.move_on_after(HEIGHT_SECONDS):
            while True:
                heights = {target.name: await _height(target) for target in self._targets}
                findings.height = max(findings.height, *heights.values())
                if min(heights.values()) >= findings.height:
                    break
                await trio.sleep(POLL_SECONDS)
        silent = [name for name, height in heights.items() if height < 0]
        if silent:
            raise TransportError(f"{', '.join(silent)} did not answer for {HEIGHT_SECONDS:g} s", sent=True)
        if min(heights.values()) < findings.height:
            findings.problems.append(
                f"after {HEIGHT_SECONDS:g} s not all nodes have height {findings.height}: {heights}"
            )
            findings.height = min(heights.values())
        headers: dict[str, tuple[str, str]] = {}
        for target in self._targets:
            (block,) = await target.read([("qenex_getBlock", [findings.height, "header"])])
            headers[target.name] = (block["header"]["hash"], block["header"]["state_root"])
        findings.head, findings.state_root = headers[self._targets[0].name]
        if len(set(headers.values())) > 1:
            findings.problems.append(f"the nodes do not have the same block at height {findings.height}: {headers}")

    async def _choose_reader(self) -> None:
        """Takes a node that has all blocks since the load began: one that was restored from a snapshot has not."""
        if self.findings.height == self._begin_height:
            return
        for target in self._targets:
            (block,) = await target.read([("qenex_getBlock", [self._begin_height + 1, "header"])])
            if block is not None:
                self._reader = target
                return
        self.findings.problems.append("no node has all blocks since the load began")

    async def _read_ids(self) -> dict[str, int]:
        """Returns how often each of our ids stands in the chain since the load began."""
        entries, seen = self._book.entries, dict[str, int]()
        findings = self.findings
        async for block in _blocks(self._reader, self._begin_height + 1, findings.height):
            findings.blocks += 1
            for tx_id in block:
                if tx_id in entries:
                    seen[tx_id] = seen.get(tx_id, 0) + 1
        return seen

    def _account_for(self, seen: Mapping[str, int]) -> list[Entry]:
        """Returns what was committed; finds what was lost, doubled, or told as final without being so."""
        findings = self.findings
        committed: list[Entry] = []
        for tx_id, entry in self._book.entries.items():
            count = seen.get(tx_id, 0)
            if count:
                committed.append(entry)
            if count > 1:
                findings.doubled.append(tx_id)
            if count and entry.fate in (Fate.EXPIRED, Fate.REJECTED):
                findings.problems.append(
                    f"{tx_id} is committed, but the client was told it is {entry.fate.name.lower()}"
                )
            if not count and (entry.fate is Fate.COMMITTED or (entry.accepted and entry.fate is not Fate.EXPIRED)):
                findings.lost.append(tx_id)
        findings.committed = len(committed)
        for name, ids in (("lost", findings.lost), ("doubled", findings.doubled)):
            if ids:
                findings.problems.append(f"{len(ids)} transactions are {name}: {', '.join(ids[:SHOWN_MAX])}")
        return committed

    async def _compare_holdings(self, committed: Sequence[Entry]) -> None:
        findings = self.findings
        expected = expected_holdings(self._before, committed, self._terms)
        if await read_holdings(self._targets[0], self._addresses, findings.height) != expected:
            # Failed transactions move nothing; which they are is asked only now, because it costs an answer for each.
            failed = await self._failed(committed)
            findings.failed = len(failed)
            expected = expected_holdings(self._before, committed, self._terms, failed)
        for target in self._targets:
            held = await read_holdings(target, self._addresses, findings.height)
            self._compare(target, held, expected)
            (asset,) = await target.read([("qenex_getAsset", [NATIVE, findings.height])])
            if asset is None or asset["supply"] != self._supply:
                findings.problems.append(f"{target.name}: the supply is {asset}, it was {self._supply}")

    def _compare(self, target: Target, held: Sequence[Holding], expected: Sequence[Holding]) -> None:
        findings = self.findings
        wrong = [place for place, (is_, must) in enumerate(zip(held, expected, strict=True)) if is_ != must]
        if wrong:
            place = wrong[0]
            findings.problems.append(
                f"{target.name}: {len(wrong)} accounts are not as the committed transactions leave them, "
                f"the first is account {place}: {held[place]}, expected {expected[place]}"
            )
        total, before = sum(one.balance for one in held), sum(one.balance for one in self._before)
        if total != before:
            findings.problems.append(f"{target.name}: the accounts hold {total} together, before they held {before}")

    async def _failed(self, committed: Sequence[Entry]) -> set[str]:
        calls = [("qenex_getReceipt", [entry.signed.id]) for entry in committed]
        receipts = await self._reader.read(calls)
        return {entry.signed.id for entry, told in zip(committed, receipts, strict=True) if told["code"] != "ok"}


async def _height(target: Target) -> int:
    """Returns a node's height; -1 while it does not answer, as when it begins anew with a snapshot."""
    try:
        (status,) = await target.read([("qenex_status", [])])
    except TransportError:
        return -1
    return int(status["head"]["height"])


async def _blocks(target: Target, first: int, last: int) -> AsyncIterator[list[str]]:
    """Yields the ids of each block from `first` to `last`."""
    for start in range(first, last + 1, HEIGHTS_PER_READ):
        heights = list(range(start, min(last + 1, start + HEIGHTS_PER_READ)))
        told = await target.read([("qenex_getBlock", [height, "ids"]) for height in heights])
        for height, block in zip(heights, told, strict=True):
            ids = list(block["transactions"])
            while block["next_offset"] is not None:
                (block,) = await target.read([("qenex_getBlock", [height, "ids", block["next_offset"]])])
                ids += block["transactions"]
            yield ids
