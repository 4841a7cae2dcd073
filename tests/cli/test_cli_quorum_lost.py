"""`qenex recover --quorum-lost` on the homes of four validators: what each step binds, and each mistake by its name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from consensus.records import Memory, SigningState, decode_records
from qenex_node.config import Config
from qenex_node.exitcodes import ExitCode
from qenex_node.homes import Home, install_chain, open_home
from qenex_node.options import store_options
from qenex_node.testnet import Plan, create_testnet, ports_from
from state.ledger import Ledger
from state.store import Store
from tests.cli.cli_support import Ended, Qenex

NAMES = [f"validator-0{number}" for number in range(1, 5)]


class Homes:
    """Four homes at genesis, of which two lost their databases."""

    def __init__(self, qenex: Qenex, path: Path) -> None:
        self.qenex = qenex
        self.path = path

    def wipe(self, name: str) -> None:
        shutil.rmtree(self.path / name / "data")
        made = self.qenex("init", "--home", self.path / name, "--genesis", self.path / name / "genesis.json", "--json")
        assert made.code == 0, made

    def recover(self, name: str, *arguments: object) -> Ended:
        return self.qenex("recover", "--quorum-lost", "--home", self.path / name, "--yes", "--json", *arguments)

    def report(self, name: str, file: str = "") -> Any:
        ended = self.recover(name, "--report", self.file(file or name))
        assert ended.code == 0, ended
        return ended.json

    def file(self, name: str) -> Path:
        return self.path / f"{name}.report.json"

    def apply(self, name: str, *reports: str) -> Ended:
        return self.recover(name, *map(self.file, reports or NAMES))

    def memory(self, name: str) -> Memory | None:
        home = open_home(self.path / name)
        store = Store.open(home.home.data, home.genesis, Ledger(), options=store_options(home.config))
        try:
            return decode_records(store.votes()) if store.votes_exist else None
        finally:
            store.close()


def refused(ended: Ended) -> str:
    assert ended.code != 0, ended
    return str(ended.json["error"]["code"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lost") / "net"
    plan = Plan(validators=4, full_nodes=1, seed="s", config=Config())
    create_testnet(path, plan, ports_from(1, 5))
    for name in NAMES[:2]:
        shutil.rmtree(path / name / "data")
        install_chain(Home(path / name), path / name / "genesis.json")
    return path


@pytest.fixture
def homes(qenex: Qenex, made: Path, tmp_path: Path) -> Homes:
    shutil.copytree(made, tmp_path / "net")
    return Homes(qenex, tmp_path / "net")


def test_all_report_all_apply_and_all_are_bound_by_the_same_terms(homes: Homes) -> None:
    lost = [homes.report(name)["records_lost"] for name in NAMES]
    assert lost == [True, True, False, False]
    for name in NAMES:
        memory = homes.memory(name)
        assert memory is not None
        assert memory.report is not None
    stated = [homes.apply(name).json for name in NAMES]
    assert len({entry["statement"] for entry in stated}) == 1
    assert stated[0] | {"home": ""} == {
        "home": "",
        "statement": stated[0]["statement"],
        "head": 0,
        "head_hash": stated[0]["head_hash"],
        "view": 1,
        "kept": NAMES[2:],
        "wiped": NAMES[:2],
        "applied_now": True,
    }
    for name, was_lost in zip(NAMES, lost, strict=True):
        memory = homes.memory(name)
        assert memory is not None
        assert memory.terms is not None
        assert memory.terms.kept == (2, 3)
        assert memory.report is None
        assert memory.signing.state is (SigningState.RECOVERING if was_lost else SigningState.OPEN)
    assert homes.apply(NAMES[0]).json["applied_now"] is False


def test_a_home_that_lost_its_records_stays_lost_however_often_it_reports_or_takes_it_back(homes: Homes) -> None:
    assert homes.report(NAMES[0])["records_lost"] is True
    assert homes.report(NAMES[0], "again")["records_lost"] is True
    assert homes.recover(NAMES[0], "--withdraw").code == 0
    memory = homes.memory(NAMES[0])
    assert memory is not None
    assert memory.signing.state is SigningState.BARRED
    assert homes.report(NAMES[0], "once more")["records_lost"] is True


def test_each_mistake_has_its_name_and_changes_nothing(homes: Homes, tmp_path: Path) -> None:
    for name in NAMES:
        homes.report(name)
    before = {name: homes.memory(name) for name in NAMES}
    missing = homes.apply(NAMES[0], *NAMES[:3])
    assert refused(missing) == "statement_reports"
    assert missing.json["error"]["data"]["missing"] == [NAMES[3]]
    assert refused(homes.apply(NAMES[0], *NAMES[1:])) == "statement_reports"
    assert refused(homes.apply(NAMES[0], *NAMES, NAMES[3])) == "report_twice"
    homes.file("junk").write_text("{}")
    assert refused(homes.apply(NAMES[0], *NAMES[:3], "junk")) == "report_unreadable"
    document = json.loads(homes.file(NAMES[3]).read_text())
    homes.file("other chain").write_text(json.dumps(document | {"chain_id": "other-1"}))
    assert refused(homes.apply(NAMES[0], *NAMES[:3], "other chain")) == "wrong_chain"
    forged = document["report"][:-2] + ("00" if document["report"][-2:] != "00" else "01")
    homes.file("forged").write_text(json.dumps(document | {"report": forged}))
    assert refused(homes.apply(NAMES[0], *NAMES[:3], "forged")) == "report_invalid"
    homes.file("cut").write_text(json.dumps(document | {"report": document["report"][:-2]}))
    assert refused(homes.apply(NAMES[0], *NAMES[:3], "cut")) == "report_unreadable"
    differs = homes.recover(NAMES[0], "--statement", "0x" + "00" * 32, *map(homes.file, NAMES))
    assert refused(differs) == "statement_differs"
    assert homes.recover(NAMES[0], "--report", homes.file(NAMES[0])).json["error"]["code"] == "file_exists"
    assert {name: homes.memory(name) for name in NAMES} == before
    homes.recover(NAMES[3], "--withdraw")
    assert refused(homes.apply(NAMES[3])) == "statement_not_ours"
    assert refused(homes.recover(NAMES[3], "--withdraw")) == "report_missing"


def test_another_chain_is_refused_though_it_has_the_same_name(homes: Homes, qenex: Qenex, tmp_path: Path) -> None:
    for name in NAMES:
        homes.report(name)
    assert qenex("testnet", "--output", tmp_path / "other", "--validators", 4, "--seed", "t", "--json").code == 0
    other = Homes(qenex, tmp_path / "other")
    other.report(NAMES[0])
    shutil.copy(other.file(NAMES[0]), homes.file("other"))
    assert refused(homes.apply(NAMES[1], *NAMES[1:], "other")) == "report_invalid"


def test_with_a_quorum_wiped_nobody_is_left_who_knows_what_was_final(homes: Homes) -> None:
    homes.wipe(NAMES[2])
    for name in NAMES:
        homes.report(name)
    assert refused(homes.apply(NAMES[3])) == "statement_too_few_kept"


def test_how_it_is_asked_must_be_one_thing(homes: Homes, qenex: Qenex) -> None:
    assert refused(homes.recover(NAMES[0])) == "quorum_lost_how"
    assert refused(homes.recover(NAMES[0], "--report", homes.file("a"), "--withdraw")) == "quorum_lost_how"
    assert refused(homes.recover(NAMES[0], "--chain-intact", "--withdraw")) == "quorum_lost_how"
    home = homes.path / NAMES[0]
    assert refused(qenex("recover", "--home", home, "--report", homes.file("a"), "--json")) == "quorum_not_lost"
    asked = qenex("recover", "--quorum-lost", "--home", home, "--report", homes.file("a"), "--json")
    assert refused(asked) == "confirmation_needed"
    assert homes.memory(NAMES[0]) is None
    assert refused(homes.recover("full-01", "--report", homes.file("a"))) == "not_a_validator"


def test_a_running_node_is_refused(homes: Homes) -> None:
    for name in NAMES:
        homes.report(name)
    home = open_home(homes.path / NAMES[3])
    store = Store.open(home.home.data, home.genesis, Ledger(), options=store_options(home.config))
    try:
        for ended in (homes.apply(NAMES[3]), homes.recover(NAMES[3], "--report", homes.file("late"))):
            assert ended.code == ExitCode.STORE_LOCKED
            assert refused(ended) == "store_locked"
        assert not homes.file("late").exists()
    finally:
        store.close()
