"""Who may connect and who is dialed follow the validator sets, old and new, and the operator's file."""

from __future__ import annotations

from dataclasses import replace

from p2p.hello import PermittedPeer
from p2p.identity import NodeKey, node_id
from p2p.limits import PERMITTED_MAX
from p2p.network import Target
from qenex_node.config import Config
from qenex_node.permitted import FORMER_MAX, permitted_peers, targets
from state.hashing import sha256
from state.types import Validator, ValidatorSet


def node_key(name: str) -> bytes:
    return NodeKey(sha256(f"node {name}".encode())).public


def validator(name: str, key: str = "", node: str = "") -> Validator:
    return Validator(name, NodeKey(sha256(f"key {key or name}".encode())).public, node_key(node or name))


A, B, C, D, E = (validator(name) for name in "abcde")
NOW = ValidatorSet((A, B, C, D))


def config(**p2p: tuple[str, ...]) -> Config:
    plain = Config()
    return replace(plain, p2p=replace(plain.p2p, **p2p))


def named(peers: list[PermittedPeer]) -> dict[str, tuple[bytes, bytes | None]]:
    return {peer.name: (peer.node_key, peer.validator_key) for peer in peers}


def test_validators_in_force_are_permitted_as_such_whatever_else_the_file_says_of_their_keys() -> None:
    stated = config(permitted_full_nodes=(f"bank-a=0x{A.node_key.hex()}",), denied_nodes=(f"0x{B.node_key.hex()}",))
    peers = permitted_peers(NOW, (), (), stated)
    assert named(peers) == {v.name: (v.node_key, v.key) for v in NOW.validators}


def test_a_removed_validator_stays_as_a_full_node_unless_the_operator_denies_it() -> None:
    before = ValidatorSet((A, B, C, D, E))
    assert named(permitted_peers(NOW, (), (before,), Config()))["e"] == (E.node_key, None)
    denied = config(denied_nodes=(f"0x{E.node_key.hex()}",))
    assert "e" not in named(permitted_peers(NOW, (), (before,), denied))
    both = config(denied_nodes=(f"0x{E.node_key.hex()}",), permitted_full_nodes=(f"e=0x{E.node_key.hex()}",))
    assert "e" in named(permitted_peers(NOW, (), (before,), both))


def test_a_validator_whose_change_is_accepted_may_connect_as_a_full_node_before_it_is_in_force() -> None:
    coming = (("e", E.node_key), ("a", A.node_key))
    peers = named(permitted_peers(NOW, coming, (), Config()))
    assert peers["e"] == (E.node_key, None)
    assert peers["a"] == (A.node_key, A.key)


def test_a_replaced_node_key_may_not_connect_any_more() -> None:
    before = ValidatorSet((validator("a", node="old"), B, C, D))
    assert node_key("old") not in {peer.node_key for peer in permitted_peers(NOW, (), (before,), Config())}
    # Nor the older of two keys of one that is removed altogether: the newest set that has it tells.
    older, newer = (ValidatorSet((A, B, C, D, validator("e", node=key))) for key in ("old", "new"))
    keys = {peer.node_key for peer in permitted_peers(NOW, (), (newer, older), Config())}
    assert node_key("new") in keys
    assert node_key("old") not in keys


def test_former_validators_are_bounded_and_leave_room_for_those_in_force() -> None:
    former = [ValidatorSet((A, B, C, validator(f"x{number}"))) for number in range(FORMER_MAX + 10)]
    peers = permitted_peers(NOW, (), former, Config())
    assert len(peers) == NOW.n + FORMER_MAX
    listed = tuple(f"full-{number}=0x{sha256(b'%d' % number).hex()}" for number in range(PERMITTED_MAX - NOW.n - 1))
    assert len(permitted_peers(NOW, (), former, config(permitted_full_nodes=listed))) == PERMITTED_MAX


def test_names_in_the_file_are_found_among_validators_first_and_unknown_ones_are_told() -> None:
    stated = config(
        peers=("a@10.0.0.1:1", f"0x{B.node_key.hex()}@10.0.0.2:2", "d@10.0.0.4:4", "gone@10.0.0.9:9"),
        permitted_full_nodes=(f"a=0x{node_key('other').hex()}",),
    )
    dialed, unknown = targets(permitted_peers(NOW, (), (), stated), {}, stated, D.node_key)
    assert dialed == [Target(node_id(A.node_key), "10.0.0.1:1"), Target(node_id(B.node_key), "10.0.0.2:2")]
    assert unknown == ["gone"]


def test_a_validator_is_dialed_where_it_said_that_it_listens_unless_the_file_knows_better() -> None:
    stated = config(peers=("a@10.0.0.1:1",), permitted_full_nodes=(f"e=0x{E.node_key.hex()}",))
    learned = {node_id(v.node_key): f"10.1.0.{place}:5" for place, v in enumerate((A, B, D, E), 1)}
    dialed, _ = targets(permitted_peers(NOW, (), (), stated), learned, stated, D.node_key)
    assert dialed == [Target(node_id(A.node_key), "10.0.0.1:1"), Target(node_id(B.node_key), "10.1.0.2:5")]
