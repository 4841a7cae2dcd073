"""The relay between nodes: what its schedule does with bytes, and the process with connections."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devnet.relay import Conduct, Link, Relay
from devnet.relay.schedule import BUFFER_BYTES_MAX, Schedule
from state.errors import Rejected

A, B = "validator-02", "validator-01"


def schedule(**conduct: float | bool) -> Schedule:
    return Schedule(Conduct(**conduct), random.Random(7))  # type: ignore[arg-type]


def test_bytes_pass_at_once_or_after_their_delay_and_in_order() -> None:
    plain = schedule()
    plain.take(b"a", 1.0)
    assert plain.due(1.0) == b"a"
    late = schedule(delay_ms=50)
    late.take(b"a", 1.0)
    late.take(b"b", 1.01)
    assert late.next_at == pytest.approx(1.05)
    assert late.due(1.04) == b""
    assert late.due(1.055) == b"a"
    assert late.due(2.0) == b"b"
    assert late.bytes == 0


def test_jitter_never_reorders() -> None:
    uneven = schedule(jitter_ms=100)
    sent = [bytes([n]) for n in range(100)]
    for number, piece in enumerate(sent):
        uneven.take(piece, number / 1000)
    arrived, now = b"", 0.0
    while (at := uneven.next_at) is not None:
        assert at >= now
        now = at
        arrived += uneven.due(at)
    assert arrived == b"".join(sent)
    assert 0.1 < now <= 0.2


def test_a_stalled_piece_is_later_and_so_is_all_behind_it() -> None:
    stalling = schedule(stall_share=1.0, stall_ms=200)
    stalling.take(b"a", 0.0)
    stalling.change(Conduct())
    stalling.take(b"b", 0.1)
    assert stalling.due(0.15) == b""
    assert stalling.due(0.2) == b"ab"


def test_about_the_asked_share_of_the_pieces_is_stalled() -> None:
    stalling = schedule(stall_share=0.01, stall_ms=200)
    stalled = 0
    for number in range(10_000):
        stalling.take(b"x", number * 1.0)
        stalled += not stalling.due(number * 1.0)
        stalling.due(number + 0.9)
    assert 60 < stalled < 150


def test_a_rate_spreads_bytes_over_time() -> None:
    slow = schedule(rate_bytes=1000)
    for _ in range(10):
        slow.take(bytes(100), 0.0)
    assert len(slow.due(0.55)) == 500
    assert len(slow.due(1.0)) == 500


def test_held_bytes_wait_and_leave_when_the_holding_ends() -> None:
    held = schedule(held=True)
    held.take(b"a", 0.0)
    assert held.next_at is None
    assert held.due(9.0) == b""
    held.finish()
    assert not held.ended
    held.change(Conduct())
    assert held.due(9.0) == b"a"
    assert held.ended


def test_cut_bytes_are_gone_and_that_is_known() -> None:
    cut = schedule(delay_ms=100)
    cut.take(b"a", 0.0)
    assert not cut.lost
    cut.change(Conduct(cut=True))
    assert cut.lost
    cut.take(b"b", 0.0)
    cut.change(Conduct())
    assert cut.due(9.0) == b""


def test_a_direction_that_holds_too_much_is_full() -> None:
    held = schedule(held=True)
    held.take(bytes(BUFFER_BYTES_MAX - 1), 0.0)
    assert not held.full
    held.take(b"x", 0.0)
    assert held.full


def test_a_conduct_that_cannot_be_is_refused() -> None:
    for wrong in ({"delay_ms": -1}, {"stall_share": 1.5}, {"rate_bytes": -1}):
        with pytest.raises(Rejected):
            Conduct(**wrong)  # type: ignore[arg-type]
    assert Conduct.from_json(Conduct(delay_ms=5, cut=True).to_json()) == Conduct(delay_ms=5, cut=True)


@contextmanager
def echo_server() -> Iterator[int]:
    """A server that sends back what it gets, on a port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(end: socket.socket) -> None:
        with end:
            try:
                while data := end.recv(65536):
                    end.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(end,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    with echo_server() as port, Relay([Link(A, B, "127.0.0.1", port)]) as running:
        yield running


def dial(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port(A, B)), timeout=5)


def echo(end: socket.socket, data: bytes) -> float:
    """Sends and reads back; returns how long that took."""
    began = time.monotonic()
    end.sendall(data)
    back = b""
    while len(back) < len(data):
        piece = end.recv(65536)
        assert piece, "the connection ended"
        back += piece
    assert back == data
    return time.monotonic() - began


def silent(end: socket.socket, seconds: float = 0.15) -> bool:
    """Whether nothing comes for so long."""
    end.settimeout(seconds)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)
    return False


def test_the_process_passes_bytes_and_delays_each_way(relay: Relay) -> None:
    with dial(relay) as end:
        assert echo(end, b"hello") < 0.05
        relay.set_all(Conduct(delay_ms=40))
        assert 0.08 <= echo(end, b"hello") < 0.2
        relay.set([(A, B)], Conduct())
        assert 0.04 <= echo(end, b"hello") < 0.1
        relay.heal()
        # Longer than all buffers between: a sender that is not read must not be lost or stop the process.
        big = random.Random(1).randbytes(3_000_000)
        sender = threading.Thread(target=end.sendall, args=(big,))
        sender.start()
        back = bytearray()
        while len(back) < len(big):
            back += end.recv(65536)
        sender.join()
        assert back == big
    use = relay.use()
    assert use.carried[A, B][1] == use.carried[B, A][1] == 3_000_015
    assert 0 < use.cpu_s < 5


def test_a_held_way_goes_on_with_the_same_connection(relay: Relay) -> None:
    with dial(relay) as end:
        echo(end, b"1")
        relay.set([(B, A)], Conduct(held=True))
        end.sendall(b"2")
        assert silent(end)
        relay.heal()
        assert end.recv(1) == b"2"


def test_a_cut_way_takes_the_bytes_and_its_connections_end_when_it_heals(relay: Relay) -> None:
    with dial(relay) as end:
        echo(end, b"1")
        relay.cut((A, B))
        end.sendall(b"2")
        assert silent(end)
        with dial(relay) as later:
            later.sendall(b"3")
            assert silent(later)
        relay.heal()
        assert end.recv(1) == b""
    with dial(relay) as end:
        echo(end, b"4")


def test_a_cut_that_took_nothing_leaves_the_connection(relay: Relay) -> None:
    with dial(relay) as end:
        echo(end, b"1")
        relay.part([A], [B])
        relay.heal()
        echo(end, b"2")


def test_closing_and_refusing_end_connections(relay: Relay) -> None:
    with dial(relay) as end:
        echo(end, b"1")
        relay.set([(A, B)], Conduct(refused=True))
        echo(end, b"2")
        assert relay.close([(A, B)]) == 1
        assert end.recv(1) == b""
        with dial(relay) as refused:
            try:
                assert refused.recv(1) == b""
            except ConnectionResetError:
                pass
        relay.heal()
    with dial(relay) as end:
        echo(end, b"3")


def test_a_target_that_is_down_ends_the_dialers_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Relay([Link(A, B, "127.0.0.1", port)]) as relay, dial(relay) as end:
        try:
            assert end.recv(1) == b""
        except ConnectionResetError:
            pass
    with pytest.raises(Rejected):
        relay.use()
