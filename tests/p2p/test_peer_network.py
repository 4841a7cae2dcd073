"""Whole networks in memory, over real TLS, on a clock that jumps: joining, refusing, relaying, coming back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from p2p_support import (
    CHAIN,
    FakeNode,
    HandPeer,
    MemoryInternet,
    MemoryTransport,
    internet,
    joined,
    poll,
    running,
    simulate,
)

from p2p import limits
from p2p.hello import Greeting, PermittedPeer, Role
from p2p.identity import NodeKey, leaf, tls_contexts
from p2p.network import Target
from p2p.peer import Peer
from p2p.session import secure
from p2p.wire import KINDS, Kind, encode_frame
from state.errors import InvariantError, Rejected
from state.hashing import sha256
from state.types import ChainContext

HASH = bytes(range(32))


def pair(**second: Any) -> tuple[FakeNode, FakeNode, MemoryInternet, list[MemoryTransport]]:
    """Returns node a, and node b that dials it, on one internet."""
    a, b = FakeNode("a", 1), FakeNode("b", 2, **second)
    net, (at, bt) = internet(a, b)
    a.build(at, [b])
    b.build(bt, [a], [a], seed=2)
    return a, b, net, [at, bt]


def lone() -> tuple[FakeNode, FakeNode, MemoryTransport]:
    """Returns node a, which permits b, and b's transport for playing it by hand."""
    a, b = FakeNode("a", 1), FakeNode("b", 2)
    _, (at, bt) = internet(a, b)
    a.build(at, [b])
    return a, b, bt


# Joining.


def test_two_nodes_join_and_tell_each_other_who_they_are() -> None:
    async def main() -> None:
        a, b, _, _ = pair(role=Role.FULL)
        async with running(a, b):
            await joined(a, b)
            await joined(b, a)
            (seen,) = a.network.peers()
            assert (seen.name, seen.id, seen.direction, seen.role) == ("b", b.id, "inbound", "full")
            assert (seen.height, seen.listen_address, seen.validator_key, seen.score) == (2, "b:1", None, 0)
            (seen,) = b.network.peers()
            assert (seen.name, seen.direction, seen.role) == ("a", "outbound", "validator")
            assert seen.validator_key == a.validator.public.data
            assert seen.address == "a:1"

    simulate(main)


def test_messages_arrive_in_their_shape_and_are_counted() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            await joined(b, a)
            assert a.network.send(b.key.id, Kind.TRANSACTIONS, [b"one", b"two"])
            assert a.network.send(b.key.id, Kind.BLOCKS, [[b"block", b"certificate"]])
            assert b.network.send(a.key.id, Kind.BLOCK_REQUEST, (5, 10))
            assert not a.network.send(FakeNode("c", 3).key.id, Kind.BODY_REQUEST, HASH)
            await b.handler.until(lambda: len(b.handler.messages) == 2)
            await a.handler.until(lambda: len(a.handler.messages) == 1)
            assert b.handler.messages == [
                ("a", Kind.TRANSACTIONS, (b"one", b"two")),
                ("a", Kind.BLOCKS, ((b"block", b"certificate"),)),
            ]
            assert a.handler.messages == [("b", Kind.BLOCK_REQUEST, (5, 10))]
            (seen,) = b.network.peers()
            assert seen.messages_in["transactions"] == 1
            assert b.network.counters["messages_in"]["blocks"] == 1
            assert b.network.counters["bytes_in"]["blocks"] == len(
                encode_frame(Kind.BLOCKS, ((b"block", b"certificate"),))
            )

    simulate(main)


def test_latency_and_clock_offset_are_measured() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        _, (at, bt) = internet(a, b)
        a.build(at, [b], clock_ms=1_000_000)
        b.build(bt, [a], [a], clock_ms=1_002_500)
        async with running(a, b):
            await joined(a, b)
            await poll(lambda: a.network.peers()[0].latency_ms is not None)
            (seen,) = a.network.peers()
            assert seen.latency_ms is not None
            assert seen.latency_ms < 50
            assert seen.clock_offset_ms == pytest.approx(2500, abs=60)

    simulate(main)


def test_two_nodes_that_dial_each_other_at_once_keep_one_connection_the_same_on_both_sides() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        net, (at, bt) = internet(a, b)
        a.build(at, [b], [b])
        b.build(bt, [a], [a], seed=2)
        async with running(a, b):
            await trio.sleep(60)
            lower, higher = sorted((a, b), key=lambda node: node.id)
            assert [peer.direction for peer in lower.network.peers()] == ["outbound"]
            assert [peer.direction for peer in higher.network.peers()] == ["inbound"]
            assert len(net.dials) <= 4
            for node in (a, b):
                ups = [event[0] for event in node.handler.events]
                assert ups == (["connected", "disconnected"] * 5)[: len(ups)]
                assert len(ups) <= 3

    simulate(main)


def test_a_peer_that_lost_its_end_unnoticed_replaces_the_connection_that_still_stands() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            first = await HandPeer.dial(bt, b, "a:1", a)
            await first.greet(b, a)
            await joined(a, b)
            second = await HandPeer.dial(bt, b, "a:1", a)
            await second.greet(b, a)
            await a.handler.until(lambda: len(a.handler.events) == 3)
            assert a.handler.events == [("connected", "b"), ("disconnected", "b", "replaced"), ("connected", "b")]
            await second.send(Kind.BODY_REQUEST, HASH)
            await a.handler.until(lambda: bool(a.handler.messages))

    simulate(main)


def dialed_by(first: str) -> tuple[FakeNode, FakeNode]:
    """Returns two nodes, of which the second has the smaller id if `first` is "higher"."""
    nodes = sorted((FakeNode("a", 1), FakeNode("b", 2)), key=lambda node: node.id, reverse=first == "higher")
    return nodes[0], nodes[1]


async def crossed(ours: FakeNode, theirs: FakeNode, seconds: float, *, welcome: bool) -> None:
    """Lets `ours` dial `theirs`, then `theirs`, played by hand, dial it too, `seconds` later."""
    _, (our_transport, their_transport) = internet(ours, theirs)
    ours.build(our_transport, [theirs], [theirs])
    (listener,) = await their_transport.listen(f"{theirs.name}:1")
    contexts = tls_contexts(theirs.key, [ours.key.public])
    async with running(ours):
        standing = HandPeer(await secure(await listener.accept(), contexts, server_side=True))
        await standing.greet(theirs, ours)
        await joined(ours, theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(standing.answer_pings)
            await trio.sleep(seconds)
            newer = await HandPeer.dial(their_transport, theirs, f"{ours.name}:1", ours)
            if welcome:
                await newer.greet(theirs, ours)
                await ours.handler.until(lambda: len(ours.handler.events) == 3)
                assert ours.handler.events[1] == ("disconnected", theirs.name, "replaced")
            else:
                assert (await newer.receive_kind(Kind.REJECT)).body[0] == "duplicate_connection"
                assert len(ours.handler.events) == 1
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("first", "seconds", "welcome"),
    [
        ("lower", 1, False),
        ("higher", 1, True),
        ("lower", limits.DUPLICATE_SECONDS + 1, True),
    ],
)
def test_of_two_connections_the_one_dialed_by_the_smaller_id_stays_unless_the_other_is_long_made(
    first: str, seconds: float, welcome: bool
) -> None:
    async def main() -> None:
        ours, theirs = dialed_by(first)
        await crossed(ours, theirs, seconds, welcome=welcome)

    simulate(main)


def test_a_node_dials_again_with_growing_delays_until_the_other_is_there() -> None:
    async def main() -> None:
        a, b, net, _ = pair()
        async with running(b) as nursery:
            await trio.sleep(30)
            times = [at for at, host, _ in net.dials if host == "b"]
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert all(gap <= limits.RETRY_SECONDS_MAX for gap in gaps)
            assert gaps[0] < 0.3
            assert min(gaps[-3:]) >= limits.RETRY_SECONDS_MAX / 2
            assert 7 <= len(times) <= 20
            await nursery.start(a.network.run)
            began = trio.current_time()
            await joined(b, a)
            assert trio.current_time() - began <= limits.RETRY_SECONDS_MAX
            assert b.closed("connect_failed") == len(times)

    simulate(main)


def test_a_connection_that_stood_and_breaks_is_made_again_at_once_whatever_failed_before() -> None:
    async def main() -> None:
        a, b, net, _ = pair()
        async with running(b) as nursery:
            await trio.sleep(60)
            await nursery.start(a.network.run)
            await joined(b, a)
            await trio.sleep(limits.RETRY_STABLE_SECONDS + 1)
            for stream in net.streams:
                await trio.aclose_forcefully(stream)
            await b.handler.until(lambda: len(b.handler.events) == 3, seconds=2 * limits.RETRY_SECONDS_BASE)
            assert [event[0] for event in b.handler.events] == ["connected", "disconnected", "connected"]

    simulate(main)


def test_targets_can_change_while_running() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        _, (at, bt) = internet(a, b)
        a.build(at, [b])
        b.build(bt, [a])
        async with running(a, b):
            await trio.sleep(10)
            assert b.network.peers() == ()
            b.network.set_targets([Target(a.key.id, "a:1")])
            await joined(b, a)
            b.network.set_targets([])
            await trio.sleep(10)
            assert len(b.network.peers()) == 1

    simulate(main)


def test_a_target_without_a_valid_address_is_refused_at_once() -> None:
    with pytest.raises(Rejected, match="address_invalid"):
        Target(FakeNode("a", 1).key.id, "nowhere")


def test_stopping_a_node_tells_its_handler_and_its_peers() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(b):
            async with running(a):
                await joined(a, b)
                await joined(b, a)
            assert a.handler.events[-1] == ("disconnected", "b", "shutdown")
            await b.handler.until(lambda: b.handler.events[-1] == ("disconnected", "a", "closed_by_peer"))

    simulate(main)


# Refusing.


def test_a_node_that_is_not_permitted_is_refused_and_counted() -> None:
    async def main() -> None:
        a, stranger = FakeNode("a", 1), FakeNode("s", 9)
        _, (at, st) = internet(a, stranger)
        a.build(at, [FakeNode("b", 2)])
        stranger.build(st, [a], [a])
        async with running(a, stranger):
            await poll(lambda: a.closed("tls_untrusted") >= 1)
            assert a.handler.events == []
            assert stranger.handler.events == []

    simulate(main)


def test_a_key_that_a_permitted_node_certified_is_refused_unless_permitted_itself() -> None:
    class Lent(NodeKey):
        def certificate(self):  # type: ignore[no-untyped-def]
            return leaf(self.public, FakeNode("b", 2).key.id, Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))

    async def main() -> None:
        a, _, bt = lone()
        stranger = FakeNode("s", 9)
        stranger.key = Lent(bytes([9]) * 32)
        async with running(a):
            peer = await HandPeer.dial(bt, stranger, "a:1", a)
            assert (await peer.receive_kind(Kind.REJECT)).body[0] == "not_permitted"
            await peer.stream.aclose()
            await poll(lambda: a.closed("not_permitted") == 1)
            assert a.handler.events == []

    simulate(main)


def test_a_permitted_node_at_another_nodes_address_is_refused_by_the_dialer() -> None:
    async def main() -> None:
        a, b, c = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
        _, (at, bt, _) = internet(a, b, c)
        a.build(at, [b, c])
        b.build(bt, [a, c])
        b.network.set_targets([Target(c.key.id, "a:1")])
        async with running(a, b):
            await poll(lambda: b.closed("wrong_peer") >= 1)
            await poll(lambda: a.closed("rejected_by_peer") >= 1)
            assert a.handler.events == []
            assert b.handler.events == []

    simulate(main)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (ChainContext("other-chain", CHAIN.genesis_hash), "wrong_chain"),
        (ChainContext(CHAIN.chain_id, sha256(b"other")), "wrong_genesis"),
    ],
)
def test_a_node_of_another_chain_is_refused_by_name_told_so_and_logged(
    chain: ChainContext, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        b.chain = chain
        b.build(b.network._transport, [a], [a])
        async with running(a, b):
            await poll(lambda: a.closed(reason) >= 1)
            await poll(lambda: b.closed(reason) + b.closed("rejected_by_peer") >= 1)
            assert a.handler.events == b.handler.events == []

    with caplog.at_level("WARNING", "qenex.p2p"):
        simulate(main)
    assert any(record.message.startswith(reason) for record in caplog.records)


def test_a_refusal_names_its_reason_to_the_other_side() -> None:
    async def main() -> None:
        a, b, bt = lone()
        b.chain = ChainContext("other-chain", CHAIN.genesis_hash)
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            greeting = Greeting(b.local(), b.key.id, a.key.id, bytes(32))
            await peer.send(Kind.HELLO, greeting.hello())
            frame = await peer.receive_kind(Kind.REJECT)
            assert frame.body[0] == "wrong_chain"
            assert "test-chain" in frame.body[1]
            assert await peer.receive() is None

    simulate(main)


def test_a_validator_proof_replayed_from_an_earlier_connection_is_refused() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            first = await HandPeer.dial(bt, b, "a:1", a)
            greeting = Greeting(b.local(), b.key.id, a.key.id, bytes(32))
            await first.send(Kind.HELLO, greeting.hello())
            recorded = greeting.receive_hello((await first.receive_kind(Kind.HELLO)).body)
            await first.send(Kind.HELLO_ACK, recorded)
            await joined(a, b)
            second = await HandPeer.dial(bt, b, "a:1", a)
            await second.send(Kind.HELLO, greeting.hello())
            await second.send(Kind.HELLO_ACK, recorded)
            frame = await second.receive_kind(Kind.REJECT)
            assert frame.body[0] == "proof_invalid"
            await second.stream.aclose()
            await poll(lambda: a.closed("proof_invalid") == 1)

    simulate(main)


def test_a_dialer_that_never_speaks_tls_is_dropped_in_time() -> None:
    async def main() -> None:
        a, _, bt = lone()
        async with running(a):
            stream = await bt.dial("a:1")
            assert isinstance(stream, trio.StapledStream)
            began = trio.current_time()
            await poll(lambda: a.network.pending_connections == 1)
            assert await stream.receive_some(10) == b""
            assert trio.current_time() - began == pytest.approx(limits.TLS_SECONDS, abs=0.1)
            await poll(lambda: a.closed("tls_timeout") == 1)
            assert a.network.pending_connections == 0

    simulate(main)


@pytest.mark.parametrize("begins", [b"", encode_frame(Kind.HELLO, (1,))[:5]])
def test_a_peer_that_does_not_finish_its_hello_is_dropped_in_time(begins: bytes) -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            await peer.stream.send_all(begins)
            began = trio.current_time()
            await peer.receive_kind(Kind.HELLO)
            assert await peer.receive() is None
            assert trio.current_time() - began == pytest.approx(limits.HELLO_SECONDS, abs=0.1)
            await poll(lambda: a.closed("hello_timeout") == 1)
            assert a.handler.events == []

    simulate(main)


def test_a_hello_that_is_not_acknowledged_makes_no_peer() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            greeting = Greeting(b.local(), b.key.id, a.key.id, bytes(32))
            await peer.send(Kind.HELLO, greeting.hello())
            await trio.sleep(limits.HELLO_SECONDS + 1)
            assert a.closed("hello_timeout") == 1
            assert a.handler.events == []

    simulate(main)


@pytest.mark.parametrize(
    ("early", "reason"),
    [
        (encode_frame(Kind.CONSENSUS, b"early"), "frame_unexpected"),
        (b"GET / HTTP/1.1\r\n\r\n", "frame_oversize"),
        (b"\x00\x00\x00\x05\x92\x01\x91\x91\xff", "frame_malformed"),
        (encode_frame(Kind.HELLO, b"hello"), "malformed"),
        (encode_frame(Kind.HELLO_ACK, (None, None)), "unexpected_frame"),
    ],
)
def test_garbage_instead_of_a_hello_is_refused_by_name(early: bytes, reason: str) -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            await peer.stream.send_all(early)
            frame = await peer.receive_kind(Kind.REJECT)
            assert frame.body[0] == reason
            await peer.stream.aclose()
            await poll(lambda: a.closed(reason) == 1)
            assert a.handler.events == []

    simulate(main)


def test_garbage_in_greetings_bans_in_the_end() -> None:
    async def main() -> None:
        a, b, bt = lone()
        codes = []
        async with running(a):
            for _ in range(int(limits.SCORE_BAN / limits.POINTS_REJECTED) + 2):
                peer = await HandPeer.dial(bt, b, "a:1", a)
                await peer.send(Kind.HELLO, b"garbage")
                codes.append((await peer.receive_kind(Kind.REJECT)).body[0])
                await peer.stream.aclose()
        assert codes[0] == "malformed"
        assert codes[-1] == "banned"

    simulate(main)


def test_greetings_of_one_node_that_lead_nowhere_make_room_for_its_next() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            silent = [await HandPeer.dial(bt, b, "a:1", a) for _ in range(limits.GREETINGS_PER_NODE_MAX + 3)]
            await poll(lambda: a.closed("evicted") == 3, seconds=1)
            last = await HandPeer.dial(bt, b, "a:1", a)
            await last.greet(b, a)
            await joined(a, b)
            assert len(silent) == 7

    simulate(main)


def test_a_callback_of_the_node_that_fails_in_a_greeting_costs_that_connection_only() -> None:
    async def main() -> None:
        a, b, c = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
        _, (at, bt, ct) = internet(a, b, c)

        class Failing(dict[bytes, bytes]):
            def get(self, key: bytes, default: Any = None) -> Any:
                if key == b.validator.public.data:
                    raise ZeroDivisionError
                return super().get(key, default)

        a.votes = Failing()
        a.build(at, [b, c])
        b.build(bt, [a], [a])
        async with running(a, b):
            await poll(lambda: a.closed("internal_error") >= 1)
            c.build(ct, [a], [a])
            async with running(c):
                await joined(a, c)

    simulate(main)


def test_a_vote_too_long_for_the_greeting_is_left_out() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        a.votes[b.validator.public.data] = bytes(limits.VOTE_SEEN_BYTES_MAX + 1)
        b.votes[a.validator.public.data] = bytes(limits.VOTE_SEEN_BYTES_MAX)
        async with running(a, b):
            await joined(a, b)
            await joined(b, a)
            at_a, at_b = a.network.peer(b.key.id), b.network.peer(a.key.id)
            assert at_a is not None
            assert at_b is not None
            assert at_b.vote_seen is None
            assert at_a.vote_seen == bytes(limits.VOTE_SEEN_BYTES_MAX)

    simulate(main)


# Misbehaviour.


def test_the_node_can_drop_a_peer_for_a_reason_of_its_own() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            peer = a.network.peer(b.key.id)
            assert peer is not None
            peer.drop("out_of_favour", "by hand", tell=True)
            assert not peer.send(Kind.BODY, b"too late")
            await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", "out_of_favour"))
            await poll(lambda: a.closed("dropped_by_node") == 1)

    simulate(main)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"\xff\xff\xff\xff", "frame_oversize"),
        (b"\x00\x01\x00\x00\x92\x04", "frame_oversize"),
        (b"\x00\x00\x00\x04\x92\x04\xcc\x01", "frame_malformed"),
        (b"\x00\x00\x10\x02\x92\x0c" + b"\x91" * 4096, "frame_malformed"),
        (encode_frame(Kind.HELLO, (1,)), "frame_unexpected"),
        (bytes(1000), "frame_oversize"),
    ],
)
def test_garbage_from_a_peer_ends_its_connection_bans_it_for_a_while_and_touches_no_other(
    garbage: bytes, reason: str
) -> None:
    async def main() -> None:
        a, b, c = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
        _, (at, bt, ct) = internet(a, b, c)
        a.build(at, [b, c])
        c.build(ct, [a], [a])
        async with running(a, c):
            await joined(a, c)
            bad = await HandPeer.dial(bt, b, "a:1", a)
            await bad.greet(b, a)
            await joined(a, b)
            await bad.stream.send_all(garbage)
            assert (await bad.receive_kind(Kind.REJECT)).body[0] == reason
            await bad.stream.aclose()
            await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", reason))
            assert a.network.counters["bans"]["total"] == 1

            again = await HandPeer.dial(bt, b, "a:1", a)
            assert (await again.receive_kind(Kind.REJECT)).body[0] == "banned"
            assert a.network.send(c.key.id, Kind.BODY_REQUEST, HASH)
            await c.handler.until(lambda: bool(c.handler.messages))

            await trio.sleep(limits.BAN_SECONDS)
            later = await HandPeer.dial(bt, b, "a:1", a)
            await later.greet(b, a)
            await joined(a, b)
            assert ("disconnected", "c") not in [event[:2] for event in a.handler.events]

    simulate(main)


def test_messages_over_budget_are_not_delivered_and_in_the_end_ban() -> None:
    async def main() -> None:
        a, b, bt = lone()
        burst = int(KINDS[Kind.BODY_REQUEST].budget.messages_burst)
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            await peer.greet(b, a)
            await joined(a, b)
            await peer.stream.send_all(encode_frame(Kind.BODY_REQUEST, HASH) * (burst + 50))
            await poll(lambda: a.network.counters["over_budget"]["body_request"] == 50)
            assert len(a.handler.messages) == burst
            assert a.network.peers()[0].score == pytest.approx(50 * limits.POINTS_OVER_BUDGET, rel=0.01)
            await peer.stream.send_all(encode_frame(Kind.BODY_REQUEST, HASH) * 2000)
            assert (await peer.receive_kind(Kind.REJECT)).body[0] == "banned"
            await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", "banned"))

    simulate(main)


def test_what_the_node_reports_adds_to_the_score_and_bans_at_the_bound() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            peer = a.network.peer(b.key.id)
            assert peer is not None
            a.network.report(peer, 60, "bad_block")
            assert a.network.peers()[0].score == pytest.approx(60)
            a.network.report(peer, 60, "bad_block")
            await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", "banned"))
            banned_at = trio.current_time()
            await a.handler.until(lambda: a.handler.events[-1] == ("connected", "b"), seconds=2 * limits.BAN_SECONDS)
            assert trio.current_time() - banned_at >= limits.BAN_SECONDS - limits.CLOSE_SECONDS

    simulate(main)


def test_a_rejected_message_counts_against_its_sender() -> None:
    async def main() -> None:
        a, b, _, _ = pair()

        def refuse(peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
            raise Rejected("bad_request", "no such thing")

        a.handler.react = refuse
        async with running(a, b):
            await joined(b, a)
            b.network.send(a.key.id, Kind.BODY_REQUEST, HASH)
            await a.handler.until(lambda: bool(a.handler.messages))
            assert a.network.peers()[0].score == pytest.approx(limits.POINTS_REJECTED)

    simulate(main)


def test_an_error_of_the_node_on_a_message_costs_one_connection_and_no_more() -> None:
    async def main() -> None:
        a, b, _, _ = pair()

        def fail(peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
            raise ZeroDivisionError

        a.handler.react = fail
        async with running(a, b):
            await joined(b, a)
            b.network.send(a.key.id, Kind.BODY_REQUEST, HASH)
            await a.handler.until(lambda: ("disconnected", "b", "handler_error") in a.handler.events)
            await a.handler.until(lambda: a.handler.events[-1] == ("connected", "b"))

    simulate(main)


def test_a_broken_invariant_of_the_node_gets_out_of_the_network() -> None:
    async def main() -> None:
        a, b, _, _ = pair()

        def fail(peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
            raise InvariantError("two blocks at one height")

        a.handler.react = fail
        async with running(a, b):
            await joined(b, a)
            b.network.send(a.key.id, Kind.BODY_REQUEST, HASH)
            await trio.sleep(10)

    with pytest.raises(ExceptionGroup) as caught:
        simulate(main)
    assert caught.group_contains(InvariantError, match="two blocks")


def test_a_peer_that_drips_a_frame_and_answers_no_ping_is_dropped() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            await peer.greet(b, a)
            await joined(a, b)

            async def drip() -> None:
                for byte in encode_frame(Kind.CONSENSUS, bytes(10_000)):
                    await peer.stream.send_all(bytes([byte]))
                    await trio.sleep(1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drip)
                await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", "ping_timeout"))
                assert trio.current_time() <= limits.PING_SILENCE_SECONDS_MAX + 2 * limits.PING_INTERVAL_SECONDS
                nursery.cancel_scope.cancel()

    simulate(main)


# Permission that changes.


def test_a_peer_whose_permission_ends_is_told_dropped_and_kept_out_until_it_is_permitted_again() -> None:
    async def main() -> None:
        a, b, c = FakeNode("a", 1), FakeNode("b", 2), FakeNode("c", 3)
        _, (at, bt, ct) = internet(a, b, c)
        a.build(at, [b, c])
        b.build(bt, [a], [a])
        c.build(ct, [a], [a])
        async with running(a, b, c):
            await joined(a, b, c)
            a.network.set_permitted([c.entry])
            await a.handler.until(lambda: a.handler.events[-1] == ("disconnected", "b", "no_longer_permitted"))
            await b.handler.until(lambda: b.handler.events[-1] == ("disconnected", "a", "rejected_by_peer"))
            await trio.sleep(20)
            assert [peer.name for peer in a.network.peers()] == ["c"]
            assert a.closed("tls_untrusted") >= 1
            a.network.set_permitted([b.entry, c.entry])
            await joined(a, b, c)

    simulate(main)


def test_what_a_peer_is_follows_the_permitted_set_while_it_stays_connected() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            (peer,) = a.network.connected()
            for entry, told in (
                (PermittedPeer("was-b", b.key.public, None), ("was-b", Role.FULL, None)),
                (PermittedPeer("b", b.key.public, bytes(32)), ("b", Role.FULL, None)),
                (b.entry, ("b", Role.VALIDATOR, b.validator.public.data)),
            ):
                a.network.set_permitted([entry])
                assert (peer.name, peer.role, peer.validator_key) == told
            assert not peer.closing

    simulate(main)


def test_a_target_is_not_dialed_before_it_is_permitted() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        net, (at, bt) = internet(a, b)
        a.build(at, [b])
        b.build(bt, [], [a])
        async with running(a, b):
            await trio.sleep(30)
            assert net.dials == []
            b.network.set_permitted([a.entry])
            await joined(b, a)

    simulate(main)


@pytest.mark.parametrize(
    "permitted",
    [
        [PermittedPeer("x", bytes(31), None)],
        [FakeNode("b", 2).entry, FakeNode("c", 2).entry],
        [PermittedPeer(str(i), sha256(bytes([i % 256, i // 256])), None) for i in range(limits.PERMITTED_MAX + 2)],
    ],
)
def test_a_permitted_set_that_cannot_be_is_refused_and_changes_nothing(permitted: list[PermittedPeer]) -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            with pytest.raises(Rejected, match="permitted_invalid"):
                a.network.set_permitted(permitted)
            await trio.sleep(1)
            assert len(a.network.peers()) == 1

    simulate(main)


# Flooding.


async def flooded(edges: str, roles: dict[str, Role] | None = None) -> list[FakeNode]:
    """Joins four nodes (and a hub) along edges, floods from each, and checks that all others got it exactly once."""
    names = sorted(set(edges.replace(" ", "")))
    nodes = {name: FakeNode(name, n + 1, role=(roles or {}).get(name, Role.VALIDATOR)) for n, name in enumerate(names)}
    _, transports = internet(*nodes.values())
    for (name, node), transport in zip(nodes.items(), transports, strict=True):
        targets = [nodes[edge[1]] for edge in edges.split() if edge[0] == name]
        node.build(transport, nodes.values(), targets, seed=ord(name))
        node.relay_floods()
    async with running(*nodes.values()):
        for edge in edges.split():
            await joined(nodes[edge[0]], nodes[edge[1]])
        await trio.sleep(1)
        for origin in nodes.values():
            origin.network.flood(Kind.CONSENSUS, f"from {origin.name}".encode())
        await trio.sleep(1)
        for node in nodes.values():
            expected = sorted(f"from {name}".encode() for name in names if name != node.name)
            assert sorted(node.bodies(Kind.CONSENSUS)) == expected
    return list(nodes.values())


def run_flooded(edges: str, roles: dict[str, Role] | None = None) -> list[FakeNode]:
    result: list[FakeNode] = []

    async def main() -> None:
        result.extend(await flooded(edges, roles))

    simulate(main)
    return result


def test_four_nodes_joined_only_in_a_line_hear_each_other() -> None:
    nodes = run_flooded("ab bc cd")
    assert [node.network.counters["floods"]["relayed"] for node in nodes] == [0, 3, 3, 0]


def test_four_validators_joined_only_through_a_full_node_hear_each_other() -> None:
    nodes = run_flooded("ah bh ch dh", {"h": Role.FULL})
    assert [node.network.counters["floods"]["relayed"] for node in nodes] == [0, 0, 0, 0, 12]


def test_in_a_full_mesh_nothing_is_relayed() -> None:
    nodes = run_flooded("ab ac ad bc bd cd")
    assert all(node.network.counters["floods"]["relayed"] == 0 for node in nodes)
    assert all(node.network.counters["floods"]["duplicate"] == 0 for node in nodes)


def test_in_a_ring_each_hears_each_flood_once_and_it_dies_out() -> None:
    nodes = run_flooded("ab bc cd de ea")
    assert all(node.network.counters["floods"]["delivered"] == 4 for node in nodes)


def test_a_repeat_of_the_same_message_travels_again_to_those_who_dropped_the_first() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            await joined(b, a)
            a.network.flood(Kind.CONSENSUS, b"vote")
            a.network.flood(Kind.CONSENSUS, b"vote")
            await b.handler.until(lambda: b.bodies(Kind.CONSENSUS) == [b"vote", b"vote"])

    simulate(main)


def test_a_flood_that_comes_back_to_its_origin_is_ignored() -> None:
    async def main() -> None:
        a, b, bt = lone()
        async with running(a):
            peer = await HandPeer.dial(bt, b, "a:1", a)
            await peer.greet(b, a)
            await joined(a, b)
            a.network.flood(Kind.CONSENSUS, b"vote")
            await peer.stream.send_all((await peer.receive_kind(Kind.CONSENSUS)).raw)
            await peer.send(Kind.BODY, b"after")
            await a.handler.until(lambda: bool(a.handler.messages))
            assert a.handler.messages == [("b", Kind.BODY, b"after")]

    simulate(main)


def test_what_was_said_to_one_peer_alone_is_not_relayed() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        b.relay_floods()
        async with running(a, b):
            await joined(a, b)
            a.network.send(b.key.id, Kind.CONSENSUS, b"to you")
            await b.handler.until(lambda: bool(b.handler.messages))
            assert b.network.counters["floods"] == {"originated": 0, "delivered": 0, "duplicate": 0, "relayed": 0}

    simulate(main)


def test_new_transactions_of_a_peer_go_to_those_that_it_does_not_serve() -> None:
    async def main() -> None:
        nodes = {name: FakeNode(name, n + 1) for n, name in enumerate("abcd")}
        _, transports = internet(*nodes.values())
        for (name, node), transport in zip(nodes.items(), transports, strict=True):
            targets = [nodes[edge[1]] for edge in ("ab", "bc", "ac", "bd") if edge[0] == name]
            node.build(transport, nodes.values(), targets)
        b = nodes["b"]

        def pass_on(peer: Peer, kind: Kind, body: Any, raw: bytes) -> None:
            b.network.flood(kind, body, received_from=peer)

        b.handler.react = pass_on
        async with running(*nodes.values()):
            await joined(b, nodes["a"], nodes["c"], nodes["d"])
            await joined(nodes["a"], nodes["c"])
            await trio.sleep(1)
            nodes["a"].network.send(b.key.id, Kind.TRANSACTIONS, (b"tx",))
            await nodes["d"].handler.until(lambda: bool(nodes["d"].handler.messages))
            await trio.sleep(1)
            assert nodes["c"].handler.messages == []
            with pytest.raises(InvariantError):
                b.network.flood(Kind.CONSENSUS, b"vote", received_from=b.network.peer(nodes["a"].key.id))

    simulate(main)


def test_a_proposal_arrives_after_the_transactions_that_were_queued_before_it() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            await joined(b, a)
            await trio.sleep(1)
            a.network.flood(Kind.TRANSACTIONS, (b"one",))
            a.network.flood(Kind.TRANSACTIONS, (b"two",))
            a.network.flood(Kind.CONSENSUS, b"proposal", after_transactions=True)
            a.network.flood(Kind.CONSENSUS, b"vote")
            a.network.send(b.key.id, Kind.BODY, b"body")
            await b.handler.until(lambda: len(b.handler.messages) == 5)
            order = [body for _, _, body in b.handler.messages]
            assert order == [b"vote", (b"one",), (b"two",), b"proposal", b"body"]

    simulate(main)


def test_neighbours_learn_of_each_other() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            await poll(lambda: a.network.peers()[0].neighbours == (a.id,))
            await poll(lambda: b.network.peers()[0].neighbours == (b.id,))

    simulate(main)


def test_a_peer_from_which_nothing_comes_is_served_through_others() -> None:
    """The link between a and c swallows all, both ways, and their connection stands: b must not take c for served."""

    async def main() -> None:
        nodes = {name: FakeNode(name, n + 1) for n, name in enumerate("abc")}
        _, transports = internet(*nodes.values())
        a, b, c = nodes.values()
        a.build(transports[0], nodes.values(), [])
        b.build(transports[1], nodes.values(), [a])
        c.build(transports[2], nodes.values(), [b])
        c.network.set_targets([Target(node.key.id, f"{node.name}:1") for node in (a, b)])
        b.relay_floods()
        async with running(*nodes.values()):
            await joined(a, b, c)
            await joined(b, a, c)
            await poll(lambda: all(len(peer.neighbours) == 2 for peer in b.network.peers()))
            for node, other in ((a, c), (c, a)):
                peer = node.network.peer(other.key.id)
                assert peer is not None
                peer._framer.feed = lambda data: None  # type: ignore[method-assign]
            noticed_s = limits.PING_INTERVAL_SECONDS + 2 * limits.PING_QUIET_SECONDS
            await poll(lambda: all(len(peer.neighbours) == 1 for peer in b.network.peers()), noticed_s)
            a.network.flood(Kind.CONSENSUS, b"vote")
            await c.handler.until(lambda: ("b", Kind.CONSENSUS, b"vote") in c.handler.messages)

    simulate(main)


def test_an_idle_peer_exchanges_pings_and_nothing_else() -> None:
    async def main() -> None:
        a, b, _, _ = pair()
        async with running(a, b):
            await joined(a, b)
            await trio.sleep(13)
            before = dict(a.network.counters["messages_out"])
            await trio.sleep(100)
            after = a.network.counters["messages_out"]
            changed = {kind: after[kind] - before[kind] for kind in after if after[kind] != before[kind]}
            assert changed == {"ping": 50, "pong": 50}

    simulate(main)


def test_a_nodes_own_key_among_the_permitted_and_the_targets_is_ignored() -> None:
    async def main() -> None:
        a, b = FakeNode("a", 1), FakeNode("b", 2)
        net, (at, _) = internet(a, b)
        a.build(at, [a, b], [a])
        async with running(a):
            await trio.sleep(10)
            assert net.dials == []
            assert isinstance(a.key, NodeKey)

    simulate(main)
