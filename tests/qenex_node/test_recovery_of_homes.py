"""`recover`: whatever was there before, afterwards the records say that the past is unknown, durably."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from consensus.records import Round, Signing, SigningState, TakenProposal, decode_records, round_record
from qenex_node.config import Config
from qenex_node.homes import NodeHome, install_chain, open_home
from qenex_node.options import store_options
from qenex_node.recovery import begin_recovery
from qenex_node.testnet import Plan, create_testnet, ports_from
from state.codec import encode
from state.errors import Rejected
from state.hashing import Hash
from state.ledger import Ledger
from state.store import Store, VoteBatch
from state.types import Height, View


@pytest.fixture
def homes(tmp_path: Path) -> list[NodeHome]:
    plan = Plan(validators=1, full_nodes=1, seed="s", config=Config())
    network = create_testnet(tmp_path / "net", plan, ports_from(1, 2))
    return [open_home(node.home) for node in network.nodes]


def opened(node_home: NodeHome) -> Store:
    return Store.open(node_home.home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))


def signing(node_home: NodeHome) -> Signing:
    store = opened(node_home)
    try:
        return decode_records(store.votes()).signing
    finally:
        store.close()


def test_after_a_loss_nothing_is_assumed_about_the_past(homes: list[NodeHome]) -> None:
    validator = homes[0]
    shutil.rmtree(validator.home.data)
    install_chain(validator.home, validator.home.path / "genesis.json")
    begun = begin_recovery(validator, chain_intact=False, now_ms=5_000)
    assert (begun.votes_created, begun.signed_at_most, begun.head_height) == (True, None, 0)
    assert signing(validator) == Signing(SigningState.RECOVERING, signed_at_most=None, started_ms=5_000)


def test_an_intact_chain_bounds_what_can_have_been_signed(homes: list[NodeHome]) -> None:
    begun = begin_recovery(homes[0], chain_intact=True, now_ms=5_000)
    assert (begun.votes_created, begun.signed_at_most) == (False, 1)
    assert signing(homes[0]).signed_at_most == 1


def test_begun_again_it_starts_anew_and_never_opens_a_record(homes: list[NodeHome]) -> None:
    begin_recovery(homes[0], chain_intact=True, now_ms=5_000)
    begin_recovery(homes[0], chain_intact=False, now_ms=9_000)
    assert signing(homes[0]) == Signing(SigningState.RECOVERING, signed_at_most=None, started_ms=9_000)


def test_records_that_cannot_be_read_are_dropped_and_the_others_kept(homes: list[NodeHome]) -> None:
    taken = TakenProposal(Hash(bytes(32)), None, 0, bytes(64))
    readable = round_record(Round(Height(1), View(0), taken))
    store = opened(homes[0])
    store.write_votes(VoteBatch(puts=(readable, (encode(("what",)), b""), (b"\xff", b"x"))))
    store.close()
    assert begin_recovery(homes[0], chain_intact=False, now_ms=5_000).records_dropped == 2
    store = opened(homes[0])
    memory = decode_records(store.votes())
    store.close()
    assert list(memory.rounds) == [(1, 0)]
    assert memory.signing.state is SigningState.RECOVERING


def test_records_of_another_key_are_replaced(homes: list[NodeHome]) -> None:
    store = opened(homes[0])
    ours = store.votes_owner
    store.create_votes(b"of a validator whose data directory this was")
    store.write_votes(VoteBatch(puts=((b"\xff", b"x"),)))
    store.close()
    begun = begin_recovery(homes[0], chain_intact=False, now_ms=5_000)
    assert (begun.votes_created, begun.records_dropped) == (True, 0)
    store = opened(homes[0])
    assert (store.votes_owner, len(store.votes())) == (ours, 1)
    store.close()


def test_a_marker_that_came_from_a_backup_goes_away(homes: list[NodeHome]) -> None:
    marker = homes[0].home.unused_marker
    marker.write_text("restored\n")
    begin_recovery(homes[0], chain_intact=False, now_ms=5_000)
    assert not marker.exists()


def test_a_full_node_has_nothing_to_recover(homes: list[NodeHome]) -> None:
    with pytest.raises(Rejected, match="not_a_validator"):
        begin_recovery(homes[1], chain_intact=False, now_ms=5_000)
