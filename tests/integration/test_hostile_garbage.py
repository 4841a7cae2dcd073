"""Garbage on every port of a running network: it is dropped or answered, blocks go on, memory stays bounded."""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hostile_support import MIB, Hostile, KeepAlive, connect_tcp, exchange, log_errors, metric, post, undisturbed

from devnet.network import Devnet
from devnet.prepare import Wish
from p2p.identity import NodeKey, tls_contexts
from p2p.session import ConnectionFailed, secure
from p2p.transport import TcpTransport
from p2p.wire import KINDS, Kind, encode_frame
from qenex_node.testnet import derived_key
from state.types import ChainContext

NAMES = ["validator-01", "validator-02", "validator-03", "validator-04"]
TARGET = "validator-01"
GOOD = b'{"jsonrpc":"2.0","id":7,"method":"qenex_status","params":[]}'


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    home: Path = tmp_path_factory.mktemp("garbage") / "net"
    with Devnet(home, wish=Wish(validators=4, full_nodes=1, accounts=50)) as devnet:
        devnet.stop("full-01")
        yield devnet
        faults = log_errors(devnet, NAMES)
        assert not faults, faults
        assert devnet.running == NAMES


def ports(net: Devnet) -> tuple[int, int, int]:
    place = net.node(TARGET).ports
    return place.rpc, place.metrics, place.p2p


def answers(net: Devnet) -> bool:
    status = net.status(TARGET)
    return status is not None and "head" in status and status["head"]["height"] > 0


def test_random_bytes_on_every_port_are_refused_and_blocks_go_on(net: Devnet) -> None:
    rng = random.Random(1)
    with undisturbed(net, NAMES):
        for _ in range(60):
            for port in ports(net):
                exchange(port, rng.randbytes(rng.choice((1, 5, 300, 20_000))), 2)
        # Beginnings that a parser takes for the real thing.
        for port in ports(net):
            for start in (
                b"\x16\x03\x01\xff\xff",
                b"GET " + b"/" * 100_000,
                b"POST / HTTP/1.1\r\n",
                b"PRI * HTTP/2.0\r\n\r\n",
            ):
                exchange(port, start + rng.randbytes(64), 1)
    assert answers(net)


def test_http_that_is_not_quite_http_gets_a_clear_error(net: Devnet) -> None:
    rpc, metrics, _ = ports(net)
    length = b"Content-Length: %d\r\n" % len(GOOD)
    cases: list[tuple[bytes, tuple[int, ...]]] = [
        (b"POST / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n", (431, 403)),
        (
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(5_000)) + b"\r\n",
            (431,),
        ),
        (b"POST / HTTP/1.1\r\nHost: evil.example\r\n" + length + b"\r\n" + GOOD, (403,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n" + length + b"\r\n" + GOOD, (400,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + GOOD, (400,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n" + GOOD, (400,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999\r\n\r\n", (413,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400,)),
        (b"POST / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n", (400,)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n" + length + b"\r\n" + GOOD, (403,)),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (405,)),
        (b"GET /../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", (404,)),
        (b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", (400, 426)),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000\r\n\r\n" + b"[" * 2_000_000, (413,)),
    ]
    for data, wanted in cases:
        answer = exchange(rpc, data, 3)
        assert answer.startswith(b"HTTP/1.1 "), (data[:80], answer[:80])
        assert int(answer[9:12]) in wanted, (data[:80], answer[:300])
        body = answer.partition(b"\r\n\r\n")[2]
        assert json.loads(body)["error"]["message"], answer[:300]
    assert exchange(metrics, b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 404")
    # Two requests where a lax reader sees one (both framings at once): never two answers of which one is smuggled.
    smuggled = b"0\r\n\r\n" + post(GOOD)
    both = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(
        smuggled
    )
    assert exchange(rpc, both + smuggled, 2).count(b'"head"') <= 1
    assert answers(net)


BODIES = (
    b"",
    b"{",
    b"nonsense",
    b"\xff\xfe\x00",
    b"[]",
    b"[1,2,{}]",
    b"{}",
    b'{"jsonrpc":"1.0","id":1,"method":"qenex_status"}',
    b'{"jsonrpc":"2.0","id":{"a":[1]},"method":"qenex_status"}',
    b'{"jsonrpc":"2.0","id":1,"method":"no_such_method"}',
    b'{"jsonrpc":"2.0","id":1,"method":["qenex_status"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_getBlock","params":{"height":-1}}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_getBlock","params":[1e400]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_getBlock","params":[99999999999999999999999999999999999999]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_getAccount","params":["qx1zzzz"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_sendTransaction","params":["0xzz"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_sendTransaction","params":["0x' + b"91" * 300 + b'"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_simulate","params":["0x' + b"dc" * 30 + b'"]}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_subscribe","params":["blocks"]}',
    b'{"jsonrpc":"2.0","id":NaN,"method":"qenex_status"}',
    b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"qenex_status"}',
    b'{"jsonrpc":"2.0","id":"\\ud800","method":"qenex_status"}',
    b'{"jsonrpc":"2.0","id":1,"method":"qenex_getProof","params":{"\\u0000":"x","key":[[[]]]}}',
    b"[" * 500 + b"]" * 500,
    b'{"a":' * 300 + b"1" + b"}" * 300,
)


def test_100_000_malformed_bodies_are_each_answered_and_blocks_go_on(net: Devnet) -> None:
    rpc = ports(net)[0]
    rounds, at_once = 100_000 // len(BODIES), 4
    began = time.monotonic()
    count = errors = 0
    with undisturbed(net, NAMES):
        connection = KeepAlive(rpc)
        batch = list(BODIES) * at_once
        for _ in range(rounds // at_once):
            for status, body in connection.pipeline(batch):
                assert status == 200, (status, body[:200])
                told = json.loads(body)
                told = told[0] if type(told) is list else told
                assert "result" in told or told["error"]["message"], body[:300]
                errors += "error" in told
                count += 1
        connection.close()
    seconds = time.monotonic() - began
    assert count >= 99_000
    assert errors > count * 0.9
    assert seconds < 60, f"{count} bodies took {seconds:.0f} s"


def test_a_batch_answers_what_is_good_beside_garbage(net: Devnet) -> None:
    rpc = ports(net)[0]
    items = []
    for place in range(1_000):
        items.append(
            json.loads(GOOD) | {"id": place}
            if place % 10 == 0
            else random.Random(place).choice(
                [1, None, [], {}, "x", {"jsonrpc": "2.0", "method": "qenex_status"}, {"id": [], "jsonrpc": "2.0"}]
            )
        )
    with undisturbed(net, NAMES):
        connection = KeepAlive(rpc)
        for _ in range(5):
            ((status, body),) = connection.pipeline([json.dumps(items).encode()])
            told = json.loads(body)
            assert status == 200
            assert [entry["id"] for entry in told if "result" in entry] == list(range(0, 1_000, 10))
        connection.close()


def test_tiny_chunks_do_not_hold_the_node_up(net: Devnet) -> None:
    """A body in chunks of one byte costs a parser 10,000 times its size; many at once must not stall consensus."""
    rpc = ports(net)[0]
    body = b"1\r\n[\r\n" * 170_000
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with undisturbed(net, NAMES, pause_max_s=3.0):
        socks = [connect_tcp(rpc, 10) for _ in range(20)]
        for sock in socks:
            sock.setblocking(False)
            try:
                sock.send(head + body)
            except OSError:
                pass
        end = time.monotonic() + 3
        while time.monotonic() < end:
            for sock in socks:
                try:
                    sock.send(body)
                except OSError:
                    pass
            time.sleep(0.02)
        for sock in socks:
            sock.close()


def test_2_000_idle_and_slow_connections_keep_nobody_out(net: Devnet) -> None:
    rpc, metrics, p2p = ports(net)
    socks: list[socket.socket] = []
    try:
        with undisturbed(net, NAMES, growth_max=60 * MIB):
            for number in range(2_000):
                port = (rpc, p2p, rpc, metrics)[number % 4]
                try:
                    sock = connect_tcp(port, 2)
                except OSError:
                    continue
                socks.append(sock)
                # Half of them trickle: a request, a TLS record, a scrape that never ends.
                if number % 8 < 4:
                    try:
                        sock.sendall({rpc: b"POST / HT", p2p: b"\x16\x03\x01\x02", metrics: b"GET /m"}[port])
                    except OSError:
                        pass
            assert len(socks) > 1_900
            for _ in range(10):
                assert answers(net)
                time.sleep(0.1)
            # The other validators find it again although strangers hold its door.
            assert metric(net, TARGET, "qenex_p2p_peers{") == 3
            net.wait_for(lambda: scrape(metrics), "metrics can be read within their time limit", 10)
    finally:
        for sock in socks:
            sock.close()


def scrape(port: int) -> bool:
    return b"qenex_" in exchange(port, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 2)


def test_slow_senders_are_cut_off_by_the_time_limit_of_the_phase(net: Devnet) -> None:
    rpc, metrics, p2p = ports(net)
    with undisturbed(net, NAMES):
        slow = {port: connect_tcp(port, 1) for port in (rpc, metrics, p2p)}
        began = time.monotonic()
        open_ = dict(slow)
        text = {
            rpc: b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
            metrics: b"GET /metrics HTTP/1.1\r\nX: ",
            p2p: b"\x16\x03\x01\x40\x00",
        }
        ended: dict[int, float] = {}
        while open_ and time.monotonic() - began < 14:
            for port, sock in list(open_.items()):
                at = int((time.monotonic() - began) * 4)
                try:
                    sock.sendall((text[port] + b"a" * 1_000)[at : at + 1])
                    sock.settimeout(0.01)
                    if sock.recv(1000) == b"":
                        raise ConnectionError
                except TimeoutError:
                    continue
                except OSError:
                    ended[port] = time.monotonic() - began
                    del open_[port]
            time.sleep(0.25)
        assert not open_, f"these ports wait for ever: {list(open_)} of {(rpc, metrics, p2p)}"
        assert max(ended.values()) < 13


def ws_open(port: int) -> socket.socket:
    sock = connect_tcp(port, 5)
    sock.sendall(
        b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert b" 101 " in head, head
    return sock


def frame(payload: bytes, opcode: int = 1, fin: bool = True, size: int | None = None, masked: bool = True) -> bytes:
    size = len(payload) if size is None else size
    first = (0x80 if fin else 0) | opcode
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes([first, mask | size])
    elif size < 65536:
        head = bytes([first, mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, mask | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


def dropped(sock: socket.socket, seconds: float = 8) -> bool:
    """Reads on until the node hangs up."""
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_websocket_abuse_ends_that_connection_alone(net: Devnet) -> None:
    rpc = ports(net)[0]
    with undisturbed(net, NAMES, growth_max=60 * MIB):
        abuses = [
            frame(b"x" * 10, size=1 << 40) + b"x" * 1_500_000,
            frame(b"a" * 600_000, fin=False) + frame(b"b" * 600_000, opcode=0, fin=False),
            frame(b"", fin=False) + frame(b"x", opcode=1) * 3,
            frame(b"x", masked=False),
            frame(b"x" * 200, opcode=9),
            frame(b"x", opcode=3),
            frame(b"\xff\xff", opcode=1),
            os.urandom(5_000),
        ]
        for abuse in abuses:
            sock = ws_open(rpc)
            try:
                sock.sendall(abuse)
            except OSError:
                pass
            assert dropped(sock), abuse[:30]
            sock.close()
        # Floods of legal things: pings, empty fragments, one-byte fragments.
        for flood in (
            frame(b"p" * 100, opcode=9) * 20_000,
            frame(b"{", fin=False) + frame(b"", opcode=0, fin=False) * 60_000,
        ):
            sock = ws_open(rpc)
            sock.settimeout(3)
            try:
                sock.sendall(flood)
            except OSError:
                pass
            sock.close()
    assert answers(net)


def test_a_reader_too_slow_for_its_subscriptions_is_dropped(net: Devnet) -> None:
    """240 batches are asked for at once and never read, whose answers would take more than a gigabyte."""
    rpc = ports(net)[0]
    with undisturbed(net, NAMES, growth_max=150 * MIB):
        socks = []
        for _ in range(4):
            sock = connect_tcp(rpc, 5)
            sock.close()
            sock = ws_open(rpc)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for number in range(40):
                request = {
                    "jsonrpc": "2.0",
                    "id": number,
                    "method": "qenex_subscribe",
                    "params": ["blocks", {"from_height": 1}],
                }
                sock.sendall(frame(json.dumps(request).encode()))
            # Asks for much and never reads.
            ask = json.dumps([{"jsonrpc": "2.0", "id": n, "method": "rpc.discover"} for n in range(50)]).encode()
            sock.settimeout(2)
            try:
                for _ in range(60):
                    sock.sendall(frame(ask))
            except OSError:
                pass
            socks.append(sock)
        time.sleep(2)
        for sock in socks:
            sock.close()
    assert answers(net)


def stranger(net: Devnet, name: str = "stranger") -> NodeKey:
    return NodeKey(derived_key(net.network.seed, "node", name).seed)


def test_a_certificate_that_is_not_permitted_gets_no_greeting(net: Devnet) -> None:
    key = stranger(net)
    server = derived_key(net.network.seed, "node", TARGET).public.data
    p2p = ports(net)[2]

    async def attempt() -> str:
        raw = await TcpTransport().dial(f"127.0.0.1:{p2p}")
        try:
            tls = await secure(raw, tls_contexts(key, [server]), server_side=False)
            # TLS 1.3: the client believes in success until it reads.
            with trio.fail_after(5):
                got = await tls.receive_some(1000)
            return "closed" if not got else f"greeted with {got!r}"
        except (ConnectionFailed, trio.BrokenResourceError):
            return "refused"
        finally:
            await trio.aclose_forcefully(raw)

    with undisturbed(net, NAMES):
        before = metric(net, TARGET, 'qenex_p2p_connections_closed_total{reason="tls_untrusted"')
        for _ in range(30):
            assert trio.run(attempt) in ("refused", "closed")
        after = metric(net, TARGET, 'qenex_p2p_connections_closed_total{reason="tls_untrusted"')
        assert after - before == 30
        # No client certificate at all.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with context.wrap_socket(connect_tcp(p2p)) as tls:
                assert tls.recv(100) == b""
        except (ssl.SSLError, ConnectionError):
            pass


def test_a_permitted_node_of_another_chain_is_told_so(net: Devnet) -> None:
    with Hostile(net, "full-01") as hostile:
        for context, code in (
            (ChainContext("other-chain", hostile.context.genesis_hash), "wrong_chain"),
            (ChainContext("\U0001f4a3" * 16, hostile.context.genesis_hash), "wrong_chain"),
            (ChainContext(hostile.context.chain_id, bytes(32)), "wrong_genesis"),  # type: ignore[arg-type]
        ):
            assert code in hostile.run(hostile.greet_as, TARGET, context)
    assert answers(net)


def test_frames_that_break_the_protocol_end_the_connection_and_ban(net: Devnet) -> None:
    deep = b"\x91" * 60_000 + b"\x01"
    cases = {
        NAMES[0]: (1 << 31).to_bytes(4, "big") + b"\x92\x08" + bytes(100),
        NAMES[1]: (len(deep) + 2).to_bytes(4, "big") + b"\x92\x07" + deep,
        NAMES[2]: encode_frame(Kind.TX_REQUEST, (b"x" * 32,)).replace(b"\xc4\x20", b"\xc5\x00\x20"),
        NAMES[3]: (KINDS[Kind.STATUS].bytes_max + 1).to_bytes(4, "big")
        + b"\x92\x07"
        + bytes(KINDS[Kind.STATUS].bytes_max),
    }
    with undisturbed(net, NAMES), Hostile(net, "full-01") as hostile:
        for name, data in cases.items():
            hostile.connect(name)
            hostile.raw(name, data)
            why = hostile.ended(name)
            assert why is not None, name
            assert "frame_" in why or "banned" in why or "malformed" in why, (name, why)
        for name in NAMES:
            assert metric(net, name, "qenex_p2p_bans_total") >= 1, name
            with pytest.raises(ConnectionFailed, match="banned"):
                hostile.run(hostile.dial, name)


def test_normal_clients_work_after_all_that(net: Devnet) -> None:
    for name in NAMES:
        with net.client(name) as client:
            client.transfer(net.bulk_key(3), net.bulk_key(4).address, 5, "QNX")
        ready, why = net.readiness(name)
        assert ready, (name, why)
