"""`qenex status`, `peers` and `validators`: what a node says reaches people and programs, whichever node is meant."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qenex_node.exitcodes import ExitCode
from tests.cli.cli_support import Qenex

HASH = "0x" + "ab" * 32
ANSWERS: dict[str, Any] = {
    "qenex_status": {
        "chain_id": "pay-1",
        "genesis_hash": HASH,
        "head": {"height": 7, "hash": HASH, "time_ms": 1, "state_root": HASH},
        "view": 2,
        "primary": "bank-c",
        "sync": {"syncing": False, "target_height": 7},
        "version": "0.1.0",
        "node_id": HASH,
        "role": "validator",
    },
    "consensus_state": {"height": 8, "view": 2, "phase": "idle"},
    "mempool_status": {"count": 5, "ready": 4},
    "net_peers": {
        "peers": [
            {
                "id": HASH,
                "name": "[bold]bank-b[/bold]",
                "address": "10.0.0.2:27100",
                "direction": "inbound",
                "role": "validator",
                "height": 7,
                "latency_ms": None,
                "received_bytes": 1000,
                "sent_bytes": 2000,
                "score": 0,
                "connected_since_ms": 1,
            }
        ]
    },
    "qenex_getValidators": {
        "height": 3,
        "hash": HASH,
        "quorum": 3,
        "f": 1,
        "validators": [{"name": "bank-a", "key": HASH, "node_key": HASH}],
    },
}


class FakeNode(BaseHTTPRequestHandler):
    """Answers JSON-RPC from the table above and keeps what it was asked."""

    asked: list[Any] = []
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(request)
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": ANSWERS[request["method"]]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def node() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeNode)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    FakeNode.asked.clear()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_status_tells_people_and_programs(qenex: Qenex, node: str) -> None:
    shown = qenex("status", "--rpc", node)
    assert shown.code == 0, shown.err
    assert "primary bank-c" in shown.out
    assert "5 transactions, 4 of them ready" in shown.out
    document = qenex("status", "--rpc", node, "--json").json
    assert document["head"] == ANSWERS["qenex_status"]["head"]
    assert (document["consensus"]["phase"], document["mempool"]["count"], document["peers"]) == ("idle", 5, 1)


def test_what_a_peer_calls_itself_is_shown_as_it_is(qenex: Qenex, node: str) -> None:
    assert "[bold]bank-b[/bold]" in qenex("peers", "--rpc", node).out
    assert qenex("peers", "--rpc", node, "--json").json == ANSWERS["net_peers"]


def test_validators_are_asked_for_at_a_height(qenex: Qenex, node: str) -> None:
    assert "3 of 1 make a quorum" in qenex("validators", "--height", 3, "--rpc", node).out
    assert FakeNode.asked[-1]["params"] == {"height": 3}
    assert qenex("validators", "--rpc", node, "--json").json == ANSWERS["qenex_getValidators"]


def test_the_node_is_taken_from_the_home(qenex: Qenex, node: str, tmp_path: Path) -> None:
    port = node.rpartition(":")[2]
    qenex("init", "--home", tmp_path / "a", "--name", "a", "--plain", "--rpc-port", port)
    assert qenex("status", "--home", tmp_path / "a").code == 0
    network = tmp_path / "network"
    network.mkdir()
    (network / "devnet.json").write_text(json.dumps({"nodes": [{"rpc": node}]}))
    assert qenex("peers", "--home", network).code == 0


@pytest.mark.parametrize("command", ["status", "peers", "validators"])
def test_without_a_home_the_running_nodes_of_the_network_here_are_asked(
    qenex: Qenex, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert qenex(command).code == ExitCode.UNREACHABLE
    network = tmp_path / ".devnet"
    network.mkdir()
    nodes = [{"pid": None, "rpc": "http://127.0.0.1:1"}, {"pid": 7, "rpc": node}]
    (network / "devnet.json").write_text(json.dumps({"nodes": nodes}))
    assert qenex(command).code == 0
    assert qenex(command, "--home", tmp_path / "other").code == ExitCode.UNREACHABLE


@pytest.mark.parametrize("damaged", ["[]", "{}", '{"nodes": []}', '{"nodes": [1]}', '{"nodes": [{}]}', "{"])
def test_a_damaged_network_file_is_named(qenex: Qenex, tmp_path: Path, damaged: str) -> None:
    (tmp_path / "devnet.json").write_text(damaged)
    ended = qenex("status", "--home", tmp_path)
    assert ended.code not in (0, ExitCode.UNEXPECTED)
    assert str(tmp_path / "devnet.json") in ended.err


def test_a_node_that_is_not_there_has_its_exit_code_and_a_way_out(qenex: Qenex) -> None:
    ended = qenex("status", "--rpc", "http://127.0.0.1:1", "--json")
    assert (ended.code, ended.json["error"]["code"]) == (ExitCode.UNREACHABLE, "node_unreachable")
    for way in ("qenex start", "devnet/up", "--rpc"):
        assert way in ended.json["error"]["message"]
