"""What must hold at every moment of a run, each as a small object that watches the cluster and raises Violation.

A check knows only what correct validators say and commit, as anyone outside could see it; nothing of a core's inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from consensus.evidence import EVIDENCE_KEPT_MAX, EVIDENCE_PER_VALIDATOR_MAX
from consensus.interface import Report, ReportKind
from consensus.messages import Decided, Kind, Message, NewView, PrePrepare, ViewChange, Vote
from consensus.tally import VIEWS_KEPT_MAX
from devnet.simulation.trace import describe_message
from devnet.simulation.world import ACCOUNTS, ASSET, BALANCE
from state.block import vote_preimage
from state.errors import InvariantError
from state.execution import ExecutedBlock
from state.hashing import Hash, sha256
from state.tree.hashes import leaf_hash, subtree_root
from state.types import VOTE_COMMIT, Certificate, TxId

if TYPE_CHECKING:
    from devnet.simulation.cluster import Cluster
    from devnet.simulation.machine import Machine


VIEWS_SPARE: Final = 2


@dataclass(slots=True)
class Violation(Exception):
    """Something happened that must never happen. `check` names the law, `what` tells how it was broken."""

    check: str
    what: str

    def __str__(self) -> str:
        return f"{self.check}: {self.what}"


class Check:
    """A law of the network. Each method is told of one kind of event at a correct validator's machine."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def left(self, machine: Machine, message: Message) -> None:
        """A message leaves the machine."""

    def proved(self, message: Message) -> None:
        """A message is heard for the first time by anyone, and all its signatures are true."""

    def heard(self, machine: Machine, message: Message) -> None:
        """The machine's core has taken in a message, and done what follows."""

    def reported(self, machine: Machine, report: Report) -> None:
        """The machine's core reports."""

    def refused(self, message: Message, error: Exception) -> None:
        """A message of a correct validator is refused by whoever hears it."""

    def halted(self, machine: Machine, error: InvariantError) -> None:
        """The machine stopped for good because an invariant is broken there."""

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """A block became the machine's durable head."""

    def started(self, machine: Machine) -> None:
        """The machine's process begins, from what its disk holds."""

    def forgets(self, machine: Machine) -> None:
        """The machine's disk was lost or set back: what it held before counts no more."""


class Agreement(Check):
    """At each height there is one final block: all correct validators commit it, and no certificate names another."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._blocks: dict[int, tuple[Hash, str]] = {}

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Compares with whoever committed this height first."""
        header = executed.block.header
        self._hold(header.height, header.hash, f"machine {machine.number} committed")

    def proved(self, message: Message) -> None:
        """Compares the commit certificates that a message carries."""
        for certificate in commit_certificates(message):
            self._hold(certificate.height, certificate.block_hash, "a certificate names")

    def _hold(self, height: int, block_hash: Hash, who: str) -> None:
        first, by = self._blocks.setdefault(height, (block_hash, who))
        if first != block_hash:
            raise Violation("agreement", f"at height {height} {by} {first.hex()[:8]}, and {who} {block_hash.hex()[:8]}")


def commit_certificates(message: Message) -> Iterator[Certificate]:
    """Yields the commit certificates inside a message."""
    if isinstance(message, Decided):
        yield message.certificate
    changes = message.view_changes if isinstance(message, NewView) else (message,)
    for change in changes:
        if isinstance(change, ViewChange) and change.committed is not None:
            yield change.committed


class Sanity(Check):
    """A correct validator never halts, never misses its own records, and what it says is never refused."""

    def halted(self, machine: Machine, error: InvariantError) -> None:
        """Raises."""
        raise Violation("halt", f"machine {machine.number} halts: {error}") from error

    def refused(self, message: Message, error: Exception) -> None:
        """Raises."""
        raise Violation("messages", f"{describe_message(message)} is refused: {error}") from error

    def reported(self, machine: Machine, report: Report) -> None:
        """Raises if a validator finds itself without records that it never lost."""
        barred = report.kind is ReportKind.SIGNING and report.code == "records_lost"
        if barred and self.cluster.kept_records(machine):
            raise Violation("signing", f"machine {machine.number} kept its records and is barred from signing")


class Certificates(Check):
    """A block is committed on a quorum of COMMITs alone: counted here again, from the signatures up."""

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Counts and proves the signatures."""
        header, world = executed.block.header, self.cluster.world
        validators = self.cluster.set_at(header.height)
        n = validators.n
        quorum = (n + (n - 1) // 3) // 2 + 1
        preimage = vote_preimage(
            world.genesis.hash, validators.hash, VOTE_COMMIT, header.height, certificate.view, header.hash
        )
        proved = {
            index
            for index, signature in certificate.signatures
            if index < n and self.cluster.scheme.verify(validators.validators[index].key, preimage, signature)
        }
        about = (certificate.kind, certificate.height, certificate.block_hash)
        if len(proved) < quorum or about != (VOTE_COMMIT, header.height, header.hash):
            raise Violation(
                "certificate", f"machine {machine.number} committed height {header.height} on {len(proved)} COMMITs"
            )


class Votes(Check):
    """A correct validator says one thing for each height and view, whatever it forgot."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._said: dict[tuple[int, int, int, int], Hash] = {}

    def left(self, machine: Machine, message: Message) -> None:
        """Holds a vote against all that the validator said before; what it hands on of others is theirs."""
        if not machine.own(message):
            return
        if not isinstance(message, Vote | PrePrepare | NewView):
            return
        key = (machine.who, int(message.kind), message.height, message.view)
        if self._said.setdefault(key, message.digest) != message.digest:
            what = f"{Kind(message.kind).name} of height {message.height}, view {message.view}"
            raise Violation("votes", f"validator {machine.who} contradicts its own {what}")


class Money(Check):
    """Nothing is made or lost: balances add up, and the header's state root is that of the state, by definition."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._checked_to = 0
        self._changes: dict[int, Mapping[bytes, bytes | None]] = {}
        self._leaves: dict[bytes, tuple[bytes, tuple[bytes, Hash]]] = {}

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Adds up, once a height; that the other machines write the very same changes says the rest."""
        header, world = executed.block.header, self.cluster.world
        first = self._changes.setdefault(header.height, executed.changes)
        if first is not executed.changes and first != executed.changes:
            raise Violation("state root", f"machine {machine.number} writes another state at height {header.height}")
        if header.height <= self._checked_to:
            return
        self._checked_to = header.height
        chain = machine.disk.chain
        total = sum(sum(world.ledger.read_balance(chain, address, ASSET)) for address in world.accounts)
        if total != ACCOUNTS * BALANCE:
            raise Violation("money", f"after height {header.height} the accounts hold {total}")
        if subtree_root([self._leaf(key, value) for key, value in chain.pairs.items()]) != header.state_root:
            raise Violation("state root", f"the state after height {header.height} has another root than its header")

    def _leaf(self, key: bytes, value: bytes) -> tuple[bytes, Hash]:
        """Returns the leaf of a pair, as `root_of` has it: most pairs stay the same from height to height."""
        known = self._leaves.get(key)
        if known is None or known[0] != value:
            key_hash = sha256(key)
            known = self._leaves[key] = (value, (key_hash, leaf_hash(key_hash, sha256(value))))
        return known[1]


class Transactions(Check):
    """No transaction takes effect twice, and one that is final anywhere is final everywhere, in the same block."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._place: dict[TxId, int] = {}
        self._final: dict[int, frozenset[TxId]] = {}

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Holds the block's transactions against those that any machine has had at this height, and at others."""
        height = executed.block.header.height
        ids = frozenset([tx.id for tx in executed.transactions])
        lost = self._final.setdefault(height, ids) - ids
        if lost:
            raise Violation("transactions", f"machine {machine.number} has {len(lost)} final ones not at {height}")
        for tx_id in ids:
            earlier = self._place.setdefault(tx_id, height)
            if earlier != height:
                raise Violation("transactions", f"one transaction stands in blocks {earlier} and {height}")


class Sets(Check):
    """For each height there is one validator set: execution names the next one, and the header commits to it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._next: dict[int, Hash] = {}

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Holds the set of the next height against the header's, and this height's against what was said before."""
        header = executed.block.header
        following = executed.validators_next.hash
        known = self._next.setdefault(header.height, following)
        expected = self._next.get(header.height - 1, header.validators_hash)
        if (header.next_validators_hash, header.validators_hash) != (following, expected) or known != following:
            raise Violation("sets", f"machine {machine.number} has another validator set after height {header.height}")


class Equivocation(Check):
    """Whoever hears two different votes or proposals of one validator for one place keeps the evidence.

    Only where the core must see it: both heard in one life, at the height that it decides, and within its bounds.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._heard: dict[int, tuple[int, int, dict[tuple[int, int], dict[int, Hash]]]] = {}

    def heard(self, machine: Machine, message: Message) -> None:
        """Looks for evidence as soon as a message contradicts another."""
        chain = machine.disk.chain
        height = chain.head.height + 1
        if not isinstance(message, Vote | PrePrepare) or message.height != height:
            return
        life, at, heard = self._heard.get(machine.number, (0, 0, {}))
        if (life, at) != (machine.life, height):
            heard = {}
            self._heard[machine.number] = (machine.life, height, heard)
        views = heard.setdefault((int(message.kind), message.sender), {})
        if isinstance(message, PrePrepare):
            # Of proposals the newest of each primary is kept.
            term = self.cluster.settings.leader_term
            if message.sender != chain.validators.primary(height, message.view, term) or message.view < max(
                views, default=0
            ):
                return
        first = views.setdefault(message.view, message.block_hash)
        if first != message.block_hash and len(views) <= VIEWS_KEPT_MAX:
            self._look(machine, message)

    def _look(self, machine: Machine, message: Vote | PrePrepare) -> None:
        evidence = machine.core.evidence
        kept = [found for found in evidence if found.offender == message.sender]
        place = (int(message.kind), message.height, message.view)
        if any((int(found.offence), found.height, found.view) == place for found in kept):
            return
        if len(kept) < EVIDENCE_PER_VALIDATOR_MAX and len(evidence) < EVIDENCE_KEPT_MAX:
            what = f"{Kind(message.kind).name}s of validator {message.sender}"
            where = f"height {message.height}, view {message.view}"
            raise Violation("evidence", f"machine {machine.number} heard two {what} at {where}, and keeps no evidence")


class Views(Check):
    """Once the network has healed, a height is decided by the time that everybody has led once, or soon after.

    Counted from the first view that is entered there, as clocks and claims count for nothing.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._first: dict[int, int] = {}
        self._bound = cluster.settings.n + cluster.settings.spares + VIEWS_SPARE

    def reported(self, machine: Machine, report: Report) -> None:
        """Counts the views that a height has taken since the network healed."""
        if report.kind is not ReportKind.VIEW_ENTERED or self.cluster.schedule.now_us < self.cluster.settings.heal_us:
            return
        height, view = int(str(report.data["height"])), int(str(report.data["view"]))
        passed = view - self._first.setdefault(height, view)
        if passed > self._bound:
            raise Violation("views", f"height {height} is not decided {passed} views after the network healed")


class Durability(Check):
    """What a machine called final is on its disk after any loss of power."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._final: dict[int, tuple[int, Hash]] = {}

    def committed(self, machine: Machine, executed: ExecutedBlock, certificate: Certificate) -> None:
        """Notes what is final."""
        header = executed.block.header
        self._final[machine.number] = (header.height, header.hash)

    def forgets(self, machine: Machine) -> None:
        """Expects nothing of what is gone."""
        self._final.pop(machine.number, None)

    def started(self, machine: Machine) -> None:
        """Looks for it."""
        height, block_hash = self._final.get(machine.number, (0, b""))
        if height and machine.disk.chain.heights.get(Hash(block_hash)) != height:
            raise Violation("durability", f"machine {machine.number} lost height {height}, which was final")


CheckType: TypeAlias = type[Check]

ALL_CHECKS: Final[tuple[CheckType, ...]] = (
    Agreement,
    Sanity,
    Certificates,
    Votes,
    Money,
    Transactions,
    Sets,
    Equivocation,
    Views,
    Durability,
)
