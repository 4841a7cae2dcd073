"""A deterministic cluster of replicas in memory: scripted delivery, virtual time, disks that keep what was persisted.

Signatures are stand-ins (a hash of key and preimage) or real Ed25519; with real ones every message is verified before
the core sees it. A Byzantine validator has no replica: the test speaks for it with `Forger`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from consensus import interface as io
from consensus.messages import (
    Decided,
    Kind,
    Message,
    NewView,
    PrePrepare,
    Suspect,
    ViewChange,
    Vote,
    certificate_of,
    decode_message,
    encode_message,
    signing_preimage,
)
from consensus.replica import Replica
from consensus.rules import Rules
from consensus.verify import verify_message
from state.block import evidence_hash, tx_root
from state.errors import InvariantError, Rejected
from state.hashing import ZERO_HASH, Hash, sha256
from state.keys import ED25519, SigningKey, verify_ed25519
from state.types import Certificate, Header, Height, TimeMs, Validator, ValidatorSet, View, WireHash

CHAIN = "test-chain"
GENESIS = sha256(b"genesis")
NAMES = "abcdefghijklmnopqrstuvwxyz"
BASE_MS = 1000


class Violated(AssertionError):
    """The protocol's claim does not hold."""


def must(holds: bool, claim: str) -> None:
    if not holds:
        raise Violated(claim)


def needs(scenario: Callable[..., None], *variants: Rules, **also: object) -> None:
    """The claim holds for the rules as they are, and fails with each variant: or the test could not see it fail."""
    scenario(Rules(), **also)
    for variant in variants:
        try:
            scenario(variant, **also)
        except (Violated, InvariantError):
            continue
        raise AssertionError(f"{scenario.__name__} does not notice {type(variant).__name__}")


@dataclass(frozen=True)
class Identity:
    """A validator's name and key."""

    name: str
    key: bytes
    sign: Callable[[bytes], bytes]


def identity(name: str, *, real: bool = False) -> Identity:
    if real:
        signing = SigningKey(ED25519, sha256(name.encode()))
        return Identity(name, signing.public.data, signing.sign)
    key = sha256(b"key " + name.encode())
    return Identity(name, key, lambda preimage: sha256(key + preimage) * 2)


def set_of(identities: Iterable[Identity]) -> ValidatorSet:
    return ValidatorSet.of(Validator(who.name, who.key, sha256(b"node" + who.key)) for who in identities)


def genesis_header(validators: ValidatorSet) -> Header:
    return Header(
        1, CHAIN, Height(0), TimeMs(0), GENESIS, tx_root(()), ZERO_HASH, ZERO_HASH, validators.hash, validators.hash,
        bytes(32), evidence_hash(()), 0,
    )  # fmt: skip


def block_on(
    parent: Header, validators: ValidatorSet, proposer: bytes, *wires: bytes, time_ms: int = 0
) -> io.KnownBlock:
    """A block above `parent`; its 'transactions' are what the wires hash to."""
    hashes = tuple(WireHash(sha256(wire)) for wire in wires)
    header = Header(
        1, CHAIN, Height(parent.height + 1), TimeMs(max(parent.time_ms + 1, time_ms)), parent.hash, tx_root(hashes),
        ZERO_HASH, sha256(parent.state_root + b"".join(hashes)), validators.hash, validators.hash, proposer,
        evidence_hash(()), 0,
    )  # fmt: skip
    return io.KnownBlock(header, hashes)


class Forger:
    """Speaks for one validator whatever it likes, with its own signature."""

    def __init__(self, who: Identity, validators: ValidatorSet) -> None:
        self.who, self.validators = who, validators
        index = validators.index_of(who.key)
        assert index is not None
        self.index = index

    def signed(self, message):
        return replace(message, signature=self.who.sign(signing_preimage(message, GENESIS, self.validators.hash)))

    def vote(self, kind: Kind, height: int, view: int, block_hash: Hash) -> Vote:
        return self.signed(Vote(kind, Height(height), View(view), block_hash, self.index))

    def votes(self, height: int, view: int, block_hash: Hash) -> tuple[Vote, Vote]:
        return tuple(self.vote(kind, height, view, block_hash) for kind in (Kind.PREPARE, Kind.COMMIT))

    def propose(self, view: int, block: io.KnownBlock, certificate: Certificate | None = None) -> PrePrepare:
        header = block.header
        return self.signed(PrePrepare(header.height, View(view), header, block.wire_hashes, certificate, self.index))

    def suspect(self, height: int, view: int) -> Suspect:
        return self.signed(Suspect(Height(height), View(view), self.index))

    def view_change(
        self, height: int, view: int, committed: Certificate | None = None, prepared: Certificate | None = None
    ) -> ViewChange:
        return self.signed(ViewChange(Height(height), View(view), committed, prepared, self.index))

    def new_view(self, view: int, *changes: ViewChange) -> NewView:
        ordered = tuple(sorted(changes, key=lambda change: change.sender))
        return self.signed(NewView(max(change.height for change in ordered), View(view), ordered, self.index))


class Node:
    """One replica with its disk, mempool and stand-in for execution."""

    def __init__(self, cluster: Cluster, who: Identity, rules: Rules, observer: bool = False) -> None:
        self.cluster, self.who, self.rules, self.observer = cluster, who, rules, observer
        self.records: dict[bytes, bytes] | None = {}
        self.stored: dict[Hash, io.KnownBlock] = {}
        self.bodies: dict[Hash, io.KnownBlock] = {}
        self.chain: list[tuple[io.KnownBlock, Certificate]] = []
        self.mempool: dict[bytes, None] = {}
        self.reports: list[io.Report] = []
        self.sent: list[Message] = []
        self.asked: dict[Hash, io.AskValidation] = {}
        self.wanted: set[Hash] = set()
        self.up = True
        self.writes = 0
        self.validate: Callable[[io.AskValidation], tuple[io.Outcome, str]] = lambda ask: (io.Outcome.VALID, "")
        self.replica = self._made()

    # ---- life ----

    def config(self) -> io.Config:
        key = None if self.observer else self.who.key
        return io.Config(CHAIN, GENESIS, key, self.cluster.leader_term, **self.cluster.config)

    def restored(self) -> io.Restored:
        """What the disk holds."""
        height = Height(len(self.chain) + 1)
        return io.Restored(
            self.head, self.chain[-1][1] if self.chain else None, self.cluster.set_at(height),
            self.cluster.since(height), self.records, self.stored.get,
        )  # fmt: skip

    def _made(self) -> Replica:
        self.timer = 0
        return Replica(self.config(), self.restored(), None if self.observer else self.who.sign, self.rules)

    @property
    def head(self) -> Header:
        return self.chain[-1][0].header if self.chain else self.cluster.genesis

    @property
    def state(self) -> io.Snapshot:
        return self.replica.snapshot()

    def bodies_hash(self) -> Hash:
        """The block that it took or built last."""
        return next(reversed(self.bodies))

    def crash(self) -> None:
        """Loses what was not persisted: memory, mempool, bodies."""
        self.up = False
        self.cluster.later = [item for item in self.cluster.later if item[0] is not self]

    def restart(self) -> None:
        self.bodies, self.mempool = dict(self.stored), {}
        self.asked, self.wanted = {}, set()
        self.up = True
        self.replica = self._made()
        self.do(io.Tick(self.cluster.now))

    def do(self, event: io.Input) -> None:
        """One step, and everything its effects ask of this node alone."""
        if self.up:
            if not isinstance(event, io.Tick):
                self.handle(self.replica.step(io.Tick(self.cluster.now)))
            self.handle(self.replica.step(event))

    def handle(self, effects: tuple[io.Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case io.Persist():
                    self._write(effect)
                case io.Send(to, message):
                    names = [v.name for v in self.cluster.set_at(self.state.height).validators]
                    self.cluster.post(self.who.name, names[to], message)
                case io.Broadcast(message):
                    self.sent.append(message)
                    for name in self.cluster.everybody:
                        self.cluster.post(self.who.name, name, message)
                case io.SetTimer(at_ms):
                    self.timer = at_ms
                case io.Report():
                    self.reports.append(effect)
                case io.PushTransactions():
                    for node in self.cluster.reachable(self) if self.cluster.pushes else ():
                        if not set(self.mempool) <= set(node.mempool):
                            node.learn(*self.mempool)
                case _:
                    self.cluster.later.append((self, effect))

    def _write(self, effect: io.Persist) -> None:
        assert self.records is not None
        self.writes += 1
        for key, value in effect.puts:
            self.records[key] = value
        for key in effect.deletes:
            self.records.pop(key, None)
        for block_hash in effect.bodies:
            self.stored[block_hash] = self.bodies[block_hash]
        for block_hash in effect.bodies_dropped:
            self.stored.pop(block_hash, None)

    # ---- the rest of the node ----

    def learn(self, *transactions: bytes) -> None:
        known = [wire for block, _ in self.chain for wire in block.wire_hashes]
        for wire in transactions:
            if sha256(wire) not in known:
                self.mempool[wire] = None
        self.do(io.WorkChanged(bool(self.mempool)))

    def answer(self, effect: io.Effect) -> None:
        """What a driver does about the effects that ask for something."""
        match effect:
            case io.AskProposal(height, view):
                self._propose(height, view)
            case io.AskValidation():
                self.asked[effect.block_hash] = effect
                self.retry()
            case io.RequestBody(block_hash):
                self.wanted.add(block_hash)
                self.retry()
            case io.Commit(header, wire_hashes, certificate):
                self.committed(io.KnownBlock(header, wire_hashes), certificate)
            case io.RequestSync(height, sender, _):
                self._sync(height, sender)

    def _propose(self, height: Height, view: View) -> None:
        if not self.mempool or height != self.state.height:
            self.do(io.NothingToPropose(height, view))
            return
        block = block_on(self.head, self.cluster.set_at(height), self.who.key, *self.mempool, time_ms=self.cluster.now)
        self.bodies[block.header.hash] = block
        self.do(io.Proposed(height, view, block.header, block.wire_hashes))

    def retry(self) -> None:
        """Gathers bodies from whoever is reachable and has them."""
        for block_hash, ask in list(self.asked.items()):
            if self._fetch(block_hash):
                del self.asked[block_hash]
                outcome, reason = self.validate(ask)
                self.do(io.Validated(block_hash, ask.first, outcome, reason))
        for block_hash in sorted(self.wanted):
            if self._fetch(block_hash):
                self.wanted.remove(block_hash)
                self.do(io.BodyAvailable(block_hash, self.bodies[block_hash]))

    def _fetch(self, block_hash: Hash) -> bool:
        for node in (self, *self.cluster.reachable(self)):
            if block_hash in node.bodies and (node is self or block_hash not in self.cluster.withheld):
                self.bodies[block_hash] = node.bodies[block_hash]
                return True
        return False

    def committed(self, block: io.KnownBlock, certificate: Certificate) -> None:
        if block.header.height != len(self.chain) + 1:
            return
        self.chain.append((block, certificate))
        self.bodies[block.header.hash] = block
        self.mempool = {wire: None for wire in self.mempool if sha256(wire) not in block.wire_hashes}
        self.do(io.Committed(block.header, certificate, self.cluster.set_at(Height(block.header.height + 1))))
        self.do(io.WorkChanged(bool(self.mempool)))

    def _sync(self, height: Height, sender: int | None) -> None:
        for node in self.cluster.reachable(self):
            while len(node.chain) > len(self.chain) < height:
                self.committed(*node.chain[len(self.chain)])


class Cluster:
    """Nodes, a network of named links, and a clock."""

    def __init__(
        self,
        n: int = 4,
        *,
        byzantine: str = "",
        observers: str = "",
        rules: Rules | None = None,
        real: bool = False,
        leader_term: int = 0,
        sets: dict[int, str] | None = None,
        pushes: bool = True,
        **config: int,
    ) -> None:
        self.leader_term, self.real, self.pushes, self.config = leader_term, real, pushes, config
        self.sets = sets or {1: NAMES[:n]}
        names = sorted({name for members in self.sets.values() for name in members})
        self.identities = {name: identity(name, real=real) for name in [*names, *observers]}
        self.genesis = genesis_header(self.set_at(Height(1)))
        self.now = BASE_MS
        self.queue: list[tuple[str, str, Message]] = []
        self.later: list[tuple[Node, io.Effect]] = []
        self.heard: list[tuple[str, Message]] = []
        self.withheld: set[Hash] = set()
        self.hears_heights = True
        self.passes: Callable[[str, str, Message], bool] = lambda source, to, message: True
        self.nodes: dict[str, Node] = {}
        for name, who in self.identities.items():
            if name not in byzantine:
                self.nodes[name] = Node(self, who, rules or Rules(), name in observers)
        self.byzantine = byzantine
        for node in self.nodes.values():
            node.do(io.Tick(self.now))

    # ---- who is who ----

    def verify(self, key: bytes, preimage: bytes, signature: bytes) -> bool:
        return verify_ed25519(key, preimage, signature) if self.real else sha256(key + preimage) * 2 == signature

    def set_at(self, height: Height) -> ValidatorSet:
        return set_of(self.identities[name] for name in self.sets[self.since(height)])

    def since(self, height: Height) -> Height:
        return Height(max(first for first in self.sets if first <= height))

    @property
    def everybody(self) -> list[str]:
        return list(self.identities)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def forger(self, name: str, height: int = 1) -> Forger:
        return Forger(self.identities[name], self.set_at(Height(height)))

    def reachable(self, node: Node) -> list[Node]:
        probe = Suspect(Height(1), View(0), 0)
        return [
            other
            for other in self
            if other is not node and other.up and self.passes(other.who.name, node.who.name, probe)
        ]

    # ---- the network ----

    def post(self, source: str, to: str, message: Message) -> None:
        if source != to:
            self.queue.append((source, to, message))

    def say(self, source: str, message: Message, to: str | None = None) -> None:
        """A Byzantine validator's message to some (all by default), delivered at once."""
        for name in self.nodes if to is None else to:
            self._hand_over(name, message)

    def _hand_over(self, to: str, message: Message) -> None:
        if to not in self.nodes:
            return
        node = self.nodes[to]
        again = decode_message(encode_message(message))
        assert again == message
        if self.real or len(self.sets) > 1:
            current = node.state.height
            try:
                verify_message(again, GENESIS, lambda height: self.set_at(min(height, current)), self.verify)
            except Rejected:
                # As a node does: what does not verify may be of a set that is not known here yet. Nodes tell each other
                # their heights beside consensus, and fetch blocks from whoever is ahead.
                height = again.certificate.height if isinstance(again, Decided) else again.height
                if height <= current:
                    raise
                if self.hears_heights:
                    self.later.append((node, io.RequestSync(Height(height), None, False)))
                return
        node.do(io.Received(again))

    def deliver(self) -> None:
        """Delivers until nothing is left to deliver or to answer."""
        while self.queue or self.later:
            while self.later:
                node, effect = self.later.pop(0)
                if node.up:
                    node.answer(effect)
            if self.queue:
                source, to, message = self.queue.pop(0)
                if self.passes(source, to, message):
                    if to in self.byzantine:
                        self.heard.append((source, message))
                    else:
                        self._hand_over(to, message)

    def run(self, ms: int) -> None:
        """Lets time pass, timers fire and messages arrive."""
        end = self.now + ms
        self.deliver()
        while True:
            due = min((max(node.timer, self.now) for node in self if node.up), default=end)
            if due > end:
                break
            self.now = due
            for node in self:
                if node.up and node.timer <= due:
                    node.do(io.Tick(due))
                    node.retry()
            self.deliver()
            if not any(node.up for node in self):
                break
        self.now = end
        for node in self:
            node.do(io.Tick(end))
        self.deliver()

    def submit(self, wire: bytes, to: str | None = None) -> None:
        for name in self.nodes if to is None else to:
            if name in self.nodes and self.nodes[name].up:
                self.nodes[name].learn(wire)
        self.deliver()

    # ---- what must hold ----

    def heights(self) -> list[int]:
        return [len(node.chain) for node in self]

    def check_agreement(self) -> None:
        """No two nodes ever committed different blocks at one height."""
        for one in self:
            for other in self:
                for (mine, _), (theirs, _) in zip(one.chain, other.chain, strict=False):
                    must(mine.header.hash == theirs.header.hash, f"one block at height {mine.header.height}")

    def certificate(self, kind: Kind, height: int, view: int, block_hash: Hash, names: str) -> Certificate:
        return certificate_of([self.forger(name, height).vote(kind, height, view, block_hash) for name in names])

    def committed_hashes(self, height: int) -> set[Hash]:
        return {node.chain[height - 1][0].header.hash for node in self if len(node.chain) >= height}
