"""The greeting: what two nodes tell each other before anything else, and the checks by which they accept each other.

A machine without I/O for one connection whose TLS handshake is done, so that the other's node key is known:

1. Both send HELLO at once: [protocol version, chain id, genesis hash, node id, role, listen address, head height,
   validator key or nil, nonce], the nonce being 32 random bytes for this connection.
2. Whoever finds the other's HELLO acceptable sends HELLO_ACK: [proof or nil, latest vote seen or nil]. The proof is the
   validator key's signature over
   TAG_HELLO | encode([genesis hash, own node id, other's node id, own nonce, other's nonce]).
   The other's nonce makes it worthless in any later connection, and the two node ids, which TLS has proved, make it
   worthless between any other two nodes, though relayed live. The latest vote seen is the bytes of the latest
   consensus message of the other's that we hold, by which a node that lost its records learns that it did.
3. Each accepts the other once it holds its HELLO_ACK and the proof is right. Anything else is answered by
   REJECT [code, message] and the end of the connection.

A proved validator key says who is there, not what it may do: whether it counts as a validator is for the set in force
to say, which may change while the connection stands, and which the two ends may know to different heights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from p2p.identity import NodeId
from p2p.limits import ADDRESS_LENGTH_MAX, PROOF_BYTES_MAX, REASON_LENGTH_MAX, VOTE_SEEN_BYTES_MAX
from state.codec import encode, expect_blob, expect_bytes, expect_int, expect_str, expect_tuple
from state.errors import DecodeError, InvariantError, Rejected
from state.hashing import TAG_HELLO
from state.limits import CHAIN_ID_LENGTH_MAX
from state.types import ChainContext

PROTOCOL_VERSION: Final = 1
NONCE_BYTES: Final = 32
_VALIDATOR_KEY_BYTES: Final = 32
_CODE_LENGTH_MAX: Final = 64


class Role(StrEnum):
    """What a node is: validators (and those that were or will be) have a key to vote with, full nodes follow."""

    VALIDATOR = "validator"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class PermittedPeer:
    """A node that may connect: its name for people, its node key, and its consensus key if it is a validator."""

    name: str
    node_key: bytes
    validator_key: bytes | None


@dataclass(frozen=True, slots=True)
class LocalNode:
    """What the node tells of itself in a greeting, and the questions that p2p asks it; all callbacks must be quick.

    `validator_key` is None for a full node. `head_height()` is the height of the last committed block; `sign(message)`
    signs with the validator key; `verify(key, message, signature)` checks a validator's signature;
    `latest_vote_seen(validator key)` returns the bytes of the latest vote of that validator that is known, or None; one
    longer than VOTE_SEEN_BYTES_MAX is not told.
    """

    chain: ChainContext
    role: Role
    listen_address: str
    validator_key: bytes | None
    head_height: Callable[[], int]
    sign: Callable[[bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]
    latest_vote_seen: Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself."""

    chain_id: str
    genesis_hash: bytes
    node_id: NodeId
    role: Role
    listen_address: str
    head_height: int
    validator_key: bytes | None
    nonce: bytes

    def to_value(self) -> tuple[Any, ...]:
        """Returns the HELLO frame's body."""
        return (
            PROTOCOL_VERSION,
            self.chain_id,
            self.genesis_hash,
            bytes.fromhex(self.node_id),
            self.role.value,
            self.listen_address,
            self.head_height,
            self.validator_key,
            self.nonce,
        )

    @classmethod
    def from_value(cls, value: Any) -> Hello:
        """Reads a HELLO body; raises DecodeError, or Rejected("wrong_version") whatever else the body holds."""
        if type(value) is not tuple or not value:
            raise DecodeError("HELLO must be an array")
        version = expect_int(value[0], "protocol version")
        if version != PROTOCOL_VERSION:
            raise Rejected("wrong_version", f"protocol version {version} is unknown; this is {PROTOCOL_VERSION}")
        _, chain_id, genesis_hash, node, role, address, height, key, nonce = expect_tuple(value, 9, "HELLO")
        if role not in (Role.VALIDATOR.value, Role.FULL.value):
            raise DecodeError("role must be validator or full")
        return cls(
            expect_str(chain_id, CHAIN_ID_LENGTH_MAX, "chain id"),
            expect_bytes(genesis_hash, 32, "genesis hash"),
            NodeId(expect_bytes(node, 32, "node id").hex()),
            Role(role),
            _printable(expect_str(address, ADDRESS_LENGTH_MAX, "listen address")),
            expect_int(height, "head height"),
            None if key is None else expect_bytes(key, _VALIDATOR_KEY_BYTES, "validator key"),
            expect_bytes(nonce, NONCE_BYTES, "nonce"),
        )


def proof_preimage(genesis_hash: bytes, signer: NodeId, verifier: NodeId, nonces: tuple[bytes, bytes]) -> bytes:
    """Returns what a validator's greeting proof signs; `nonces` are the signer's and the verifier's."""
    return TAG_HELLO + encode((genesis_hash, bytes.fromhex(signer), bytes.fromhex(verifier), *nonces))


def encode_reject(code: str, message: str) -> tuple[str, str]:
    """Returns a REJECT body, cut to its bounds."""
    return (code[:_CODE_LENGTH_MAX], message[:REASON_LENGTH_MAX])


def decode_reject(value: Any) -> tuple[str, str]:
    """Reads a REJECT body: code and message; raises DecodeError. Both are the peer's words, made safe to log."""
    code, message = expect_tuple(value, 2, "REJECT")
    text = expect_str(code, _CODE_LENGTH_MAX, "code"), expect_str(message, REASON_LENGTH_MAX, "message")
    return _printable(text[0]), _printable(text[1])


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Greeting:
    """One side of one greeting."""

    def __init__(self, local: LocalNode, own_id: NodeId, peer_id: NodeId, nonce: bytes) -> None:
        """Takes who we are, the other's id as TLS proved it, and our nonce."""
        self._local = local
        self._peer_id = peer_id
        self._own = Hello(
            local.chain.chain_id,
            local.chain.genesis_hash,
            own_id,
            local.role,
            local.listen_address,
            local.head_height(),
            local.validator_key,
            nonce,
        )
        self._remote: Hello | None = None
        self.vote_seen: bytes | None = None
        self.accepted = False

    @property
    def remote(self) -> Hello:
        """The other's HELLO; only once it came."""
        if self._remote is None:
            raise InvariantError("the other's HELLO was used before it came")
        return self._remote

    def hello(self) -> tuple[Any, ...]:
        """Returns the body of our HELLO."""
        return self._own.to_value()

    def receive_hello(self, body: Any) -> tuple[Any, ...]:
        """Checks the other's HELLO and returns the body of our HELLO_ACK.

        Raises Rejected: `wrong_version`, `wrong_chain`, `wrong_genesis`, `wrong_node_id`, `not_a_validator`,
        `unexpected_frame`, or DecodeError.
        """
        if self._remote is not None:
            raise Rejected("unexpected_frame", "HELLO came twice")
        remote = Hello.from_value(body)
        self._check(remote)
        self._remote = remote
        proof = None
        if self._own.validator_key is not None:
            nonces = (self._own.nonce, remote.nonce)
            proof = self._local.sign(proof_preimage(self._own.genesis_hash, self._own.node_id, self._peer_id, nonces))
        vote = None if remote.validator_key is None else self._local.latest_vote_seen(remote.validator_key)
        return (proof, None if vote is None or len(vote) > VOTE_SEEN_BYTES_MAX else vote)

    def _check(self, remote: Hello) -> None:
        own = self._own
        if remote.chain_id != own.chain_id:
            raise Rejected("wrong_chain", f"this is chain {own.chain_id}, not {_printable(remote.chain_id)}")
        if remote.genesis_hash != own.genesis_hash:
            raise Rejected("wrong_genesis", f"our genesis is {own.genesis_hash.hex()}, not {remote.genesis_hash.hex()}")
        if remote.node_id != self._peer_id:
            raise Rejected("wrong_node_id", f"the TLS key belongs to {self._peer_id}, not {remote.node_id}")
        if (remote.role is Role.VALIDATOR) != (remote.validator_key is not None):
            raise Rejected("not_a_validator", "a validator states its key, and only a validator does")

    def receive_ack(self, body: Any) -> None:
        """Checks the other's HELLO_ACK; raises Rejected: `proof_invalid`, `unexpected_frame`, or DecodeError."""
        if self._remote is None or self.accepted:
            raise Rejected("unexpected_frame", "HELLO_ACK comes once, after HELLO")
        proof, vote = expect_tuple(body, 2, "HELLO_ACK")
        key = self._remote.validator_key
        if key is None:
            if proof is not None:
                raise Rejected("proof_invalid", "a full node has nothing to prove")
        else:
            signature = expect_blob(proof, PROOF_BYTES_MAX, "proof")
            nonces = (self._remote.nonce, self._own.nonce)
            message = proof_preimage(self._own.genesis_hash, self._peer_id, self._own.node_id, nonces)
            if not self._local.verify(key, message, signature):
                raise Rejected("proof_invalid", "the validator key did not sign this greeting")
        self.vote_seen = None if vote is None else expect_blob(vote, VOTE_SEEN_BYTES_MAX, "latest vote seen")
        self.accepted = True
