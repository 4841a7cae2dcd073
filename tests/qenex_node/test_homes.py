"""What a home promises: made once, never overwritten, and vote records only for a key that never signed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from qenex_node.cards import Card, make_card
from qenex_node.config import Config
from qenex_node.founding import Founding
from qenex_node.homes import Home, create_home, install_chain, open_home, read_card, read_keys
from qenex_node.jsonfiles import write_json
from qenex_node.options import store_options
from state.errors import Rejected
from state.genesis import ChainParameters, Genesis, GenesisAccount, GenesisAsset
from state.keys import ED25519, SigningKey
from state.ledger import Ledger
from state.store import Store
from state.types import Amount, AssetCode, TimeMs, Validator, ValidatorSet

QNX = AssetCode("QNX")


def config(name: str = "bank-a", role: str = "validator") -> Config:
    base = Config()
    return dataclasses.replace(
        base,
        node=dataclasses.replace(base.node, name=name, role=role),
        p2p=dataclasses.replace(base.p2p, advertise="127.0.0.1:27100"),
    )


def make_home(path: Path, name: str = "bank-a", role: str = "validator") -> Home:
    return create_home(path, config(name, role), passphrase=None)


def found(*cards: Card) -> Founding:
    owner = SigningKey(ED25519, bytes(32)).address
    genesis = Genesis(
        chain_id="homes",
        time_ms=TimeMs(1),
        validators=ValidatorSet.of(card.validator for card in cards),
        parameters=ChainParameters(),
        assets=(GenesisAsset(QNX, 2, owner),),
        accounts=(GenesisAccount(owner, ((QNX, Amount(100)),)),),
    )
    return Founding.of(genesis, cards)


def with_genesis(tmp_path: Path, home: Home) -> Path:
    path = tmp_path / "agreed.json"
    found(read_card(home.card_file)).write(path)
    return path


def refused(code: str) -> pytest.RaisesExc[Rejected]:
    return pytest.raises(Rejected, match=code)


def votes_exist(home: Home) -> bool:
    node_home = open_home(home.path)
    store = Store.open(home.data, node_home.genesis, Ledger(), options=store_options(node_home.config))
    try:
        return store.votes_exist
    finally:
        store.close()


def test_a_new_home_has_keys_configuration_and_a_proved_card(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a")
    card = read_card(home.card_file)
    assert (card.validator.name, card.p2p) == ("bank-a", "127.0.0.1:27100")
    assert home.unused_marker.exists()
    install_chain(home, with_genesis(tmp_path, home))
    node_home = open_home(home.path)
    keys = read_keys(node_home, None)
    assert keys.validator is not None
    assert (keys.validator.public.data, keys.node.public) == (card.validator.key, card.validator.node_key)
    assert node_home.config == config()


def test_a_full_node_has_neither_validator_key_nor_card_nor_votes(tmp_path: Path) -> None:
    validator = make_home(tmp_path / "a")
    home = make_home(tmp_path / "full", "archive", "full")
    assert not home.card_file.exists()
    assert not home.validator_key_file.exists()
    assert install_chain(home, with_genesis(tmp_path, validator)) is False
    assert read_keys(open_home(home.path), None).validator is None
    assert not votes_exist(home)


def test_a_home_is_never_overwritten(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a")
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    with refused("home_exists"):
        make_home(tmp_path / "a")
    assert before == {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


def test_vote_records_are_made_once_with_the_keys_first_chain(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a")
    genesis = with_genesis(tmp_path, home)
    assert install_chain(home, genesis) is True
    assert votes_exist(home)
    assert not home.unused_marker.exists()
    with refused("chain_exists"):
        install_chain(home, genesis)


def test_a_lost_database_comes_back_without_vote_records(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a")
    genesis = with_genesis(tmp_path, home)
    install_chain(home, genesis)
    shutil.rmtree(home.data)
    assert install_chain(home, genesis) is False
    assert not votes_exist(home)


def test_a_home_without_chain_or_configuration_cannot_be_opened(tmp_path: Path) -> None:
    with refused("home_missing"):
        open_home(tmp_path / "nowhere")
    home = make_home(tmp_path / "a")
    with refused("chain_missing"):
        open_home(home.path)


def test_another_genesis_document_is_refused(tmp_path: Path) -> None:
    home, other = make_home(tmp_path / "a"), make_home(tmp_path / "b", "bank-b")
    install_chain(home, with_genesis(tmp_path, home))
    shutil.rmtree(home.data)
    with refused("chain_exists"):
        install_chain(home, with_genesis(tmp_path, other))
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace('genesis_hash = ""', f'genesis_hash = "0x{"ab" * 32}"'))
    with refused("genesis_wrong"):
        install_chain(home, home.path / "genesis.json")


def test_a_failed_installation_leaves_no_database(tmp_path: Path) -> None:
    home = make_home(tmp_path / "a")
    path = with_genesis(tmp_path, home)
    document = json.loads(path.read_text())
    document["assets"][0]["flags"] = 1 << 15
    write_json(path, document)
    with refused("genesis_invalid"):
        install_chain(home, path)
    assert not home.data.exists()
    assert home.unused_marker.exists()


def card_of(name: str = "bank-a") -> Card:
    return make_card(name, SigningKey.generate(), SigningKey.generate(), "h:1")


@pytest.mark.parametrize("field", ["name", "key", "node_key", "p2p", "proof", "node_proof"])
def test_a_card_with_any_field_changed_is_refused(field: str) -> None:
    document = card_of().to_json()
    other = card_of("bank-b").to_json()
    assert Card.from_json(dict(document)).to_json() == document
    with refused("card_invalid"):
        Card.from_json(document | {field: other[field] if field != "p2p" else "elsewhere:1"})


@pytest.mark.parametrize("document", [None, [], {}, {"format": "qenex-validator-card", "version": 2}])
def test_what_is_no_card_is_refused(document: object) -> None:
    with pytest.raises(Rejected):
        Card.from_json(document)


def test_a_founding_document_needs_a_proved_card_for_each_validator() -> None:
    a, b = card_of("bank-a"), card_of("bank-b")
    founding = found(a, b)
    with refused("card_invalid"):
        Founding.of(founding.genesis, [a])
    with refused("card_invalid"):
        Founding.of(founding.genesis, [a, b, card_of("bank-c")])
    stolen = dataclasses.replace(b, validator=Validator("bank-b", a.validator.key, b.validator.node_key))
    with refused("card_invalid"):
        Founding.of(founding.genesis, [a, stolen])


def test_adding_a_card_changes_the_hash_and_keeps_the_rest(tmp_path: Path) -> None:
    founding = found(card_of("bank-b"))
    grown = founding.with_card(card_of("bank-a"))
    assert [card.validator.name for card in grown.cards] == ["bank-a", "bank-b"]
    assert grown.genesis.hash != founding.genesis.hash
    assert grown.genesis.accounts == founding.genesis.accounts
    grown.write(tmp_path / "genesis.json")
    assert Founding.read(tmp_path / "genesis.json") == grown
    with refused("genesis_invalid"):
        grown.with_card(card_of("bank-a"))
