"""What reading a configuration promises: every key declared, every fault named, the written file read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qenex_node import config as cfg
from qenex_node.config import Config, FullNodeEntry, PeerEntry, load, parse, reloaded
from qenex_node.configfile import render, table
from qenex_node.options import mempool_limits, rpc_limits
from state.errors import Rejected

KEY = "0x" + "ab" * 32


def refused(text: str) -> str:
    with pytest.raises(Rejected) as caught:
        parse(text, "config.toml")
    assert caught.value.code == "config_invalid"
    assert caught.value.message.startswith("config.toml: ")
    return caught.value.message


def test_an_empty_file_is_the_defaults() -> None:
    assert parse("") == Config()


def test_every_default_passes_its_own_rules() -> None:
    assert parse(render(Config())) == Config()


def test_a_written_file_reads_back_with_all_values() -> None:
    changed = Config(
        node=dataclasses.replace(Config().node, name="bank-a", role="full"),
        p2p=dataclasses.replace(
            Config().p2p, peers=("bank-b@h:1", f"{KEY}@[::1]:2"), permitted_full_nodes=(f"archive={KEY}",)
        ),
        rpc=dataclasses.replace(Config().rpc, allowed_origins=('https://"quoted"\\',), port=0),
        metrics=dataclasses.replace(Config().metrics, enabled=False),
    )
    assert parse(render(changed)) == changed


def test_every_key_says_what_it_means() -> None:
    for section in cfg.SECTIONS.values():
        for item in dataclasses.fields(section):
            assert item.metadata["key"].doc.endswith((".", ")"))


def test_the_written_file_and_the_table_hold_every_key() -> None:
    text, markdown = render(Config()), table()
    for name, section in cfg.SECTIONS.items():
        for item in dataclasses.fields(section):
            assert f"\n{item.name} = " in text
            assert f"`{name}.{item.name}`" in markdown


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[rpc]\nprot = 1", "'rpc.port'"),
        ("[mempol]\n", "'mempool'"),
        ("[consensus]\nmin_free_bytes = 1", "'storage.min_free_bytes'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(text: str, nearest: str) -> None:
    assert f"did you mean {nearest}?" in refused(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[rpc]\nport = 65536", "rpc.port: 65536 is not from 0 to 65535"),
        ("[rpc]\nport = -1", "rpc.port: -1 is not from"),
        ('[rpc]\nport = "1"', "rpc.port: a whole number is wanted"),
        ("[rpc]\nport = 1.5", "rpc.port: a whole number is wanted"),
        ("[rpc]\nport = true", "rpc.port: a whole number is wanted"),
        ("[metrics]\nenabled = 1", "metrics.enabled: true or false is wanted"),
        ('[node]\nrole = "boss"', "node.role: 'boss' is not one of validator, full"),
        ('[node]\nname = "Bank A"', "node.name: 'Bank A': use a-z"),
        ('[p2p]\npeers = "a@b:1"', "p2p.peers: a list of texts is wanted"),
        ('[p2p]\npeers = ["a:1"]', "p2p.peers: 'a:1' is not name@host:port"),
        ('[p2p]\npeers = ["a@b:0"]', "is not host:port"),
        ('[p2p]\npeers = ["a@b:1", "a@b:1"]', "an item stands twice"),
        ('[p2p]\npermitted_full_nodes = ["a=0x12"]', "is not name=0x<64 hex digits>"),
        ('[chain]\ngenesis_hash = "12"', "is not 0x and 64 hex digits"),
        ("rpc = 1", "'rpc' is a section"),
        ("[rpc", "it is not TOML"),
        ("[consensus]\nprogress_timeout_max_ms = 500", "must not be below"),
        ("[consensus]\nprogress_timeout_ms = 150", "at most half"),
        ("[mempool]\ncount_max = 10", "must not exceed mempool.count_max"),
        (f'[p2p]\npermitted_full_nodes = ["a={KEY}", "b={KEY}"]', "has one key twice"),
    ],
)
def test_a_bad_value_is_refused_by_key_and_says_what_is_allowed(text: str, why: str) -> None:
    assert why in refused(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"nowhere\.toml: it cannot be read"):
        load(tmp_path / "nowhere.toml")


def test_peers_and_full_nodes_are_read() -> None:
    config = parse(f'[p2p]\npeers = ["bank-b@10.0.0.2:27100"]\npermitted_full_nodes = ["archive={KEY}"]')
    assert config.peers == (PeerEntry("bank-b", "10.0.0.2", 27100),)
    assert config.full_nodes == (FullNodeEntry("archive", b"\xab" * 32),)


def test_reloading_takes_what_may_change_and_names_what_may_not() -> None:
    running = Config()
    read = parse(f'[logging]\nlevel = "debug"\n[rpc]\nport = 1\n[p2p]\npermitted_full_nodes = ["a={KEY}"]')
    result = reloaded(running, read)
    assert result.changed == ("p2p.permitted_full_nodes", "logging.level")
    assert result.ignored == ("rpc.port",)
    assert result.config.logging.level == "debug"
    assert result.config.rpc == running.rpc
    assert len(result.config.full_nodes) == 1


def test_the_defaults_and_the_extremes_make_options_that_the_parts_accept() -> None:
    for bound in ("default", "low", "high"):
        sections = {}
        for name, section in cfg.SECTIONS.items():
            keys = {item.name: item for item in dataclasses.fields(section)}
            sections[name] = section(
                **{
                    key: getattr(item.metadata["key"], bound)
                    for key, item in keys.items()
                    if bound != "default" and type(item.default) is int
                }
            )
        config = Config(**sections)
        assert rpc_limits(config).batch_max == config.rpc.batch_max
        assert mempool_limits(config).count_max == config.mempool.count_max
