"""Subscriptions: replay that becomes live without a gap, each channel, slow readers, and limits."""

import random

import pytest
import trio
import trio.testing

from qenex_node.rpc.view import EvidenceInfo, Reason
from state.address import to_text
from tests.qenex_node.rpc.rpc_support import ANN, BOB, CEM, FakeNode, RpcFailure, Socket, run, serving
from tests.state.ledger.world import pay


def transfer(node, sender, to, amount=1):
    return node.world.tx(sender, pay(to.address, amount))


async def events(socket, count):
    """Returns the next events of a socket's subscriptions."""
    found = []
    for _ in range(count):
        params = (await socket.message())["params"]
        assert "ended" not in params, params
        found.append(params["event"])
    return found


def heights(found):
    return [event["header"]["height"] for event in found]


def test_blocks_come_as_they_are_committed():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            node.commit(transfer(node, ANN, CEM))
            answer = await socket.call("qenex_subscribe", "blocks")
            assert answer == {"subscription": "blocks-1", "head_height": 1}
            node.commit(transfer(node, ANN, CEM), transfer(node, BOB, CEM))
            message = await socket.message()
            assert message["method"] == "qenex_subscription"
            assert message["params"]["subscription"] == "blocks-1"
            event = message["params"]["event"]
            assert event["header"]["height"] == 2
            assert event["header"]["hash"] == "0x" + node.world.head.hash.hex()
            assert event["certificate"]["block_hash"] == event["header"]["hash"]
            assert event["transaction_count"] == 2

    run(main)


def test_a_replay_reads_the_store_where_the_feed_has_nothing():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            for _ in range(5):
                node.commit(transfer(node, ANN, CEM), in_feed=False)
            await socket.call("qenex_subscribe", channel="blocks", from_height=0)
            assert heights(await events(socket, 6)) == [0, 1, 2, 3, 4, 5]
            node.commit(transfer(node, ANN, CEM))
            assert heights(await events(socket, 1)) == [6]

    run(main)


@pytest.mark.parametrize("seed", range(8))
def test_a_replay_becomes_live_without_a_gap_or_a_double_while_blocks_are_committed(seed):
    async def main():
        rng = random.Random(seed)
        async with serving() as service:
            node, socket = service.node, await service.socket()
            for _ in range(10):
                node.commit(transfer(node, ANN, CEM), in_feed=rng.random() < 0.7)

            async def go_on():
                for _ in range(60):
                    for _ in range(rng.randrange(4)):
                        await trio.lowlevel.checkpoint()
                    node.commit(transfer(node, ANN, CEM))

            start = rng.randrange(12)
            await socket.call("qenex_subscribe", channel="blocks", from_height=start)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_on)
                found = []
                while len(found) < 71 - start:
                    found += heights(await events(socket, 1))
                    for _ in range(rng.randrange(3)):
                        await trio.lowlevel.checkpoint()
            assert found == list(range(start, 71))

    run(main)


def test_transactions_of_an_account_are_replayed_from_the_index_and_then_live():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            wanted = []
            for number in range(6):
                paid = CEM if number % 2 else ANN
                executed = node.commit(transfer(node, BOB, paid), transfer(node, BOB, BOB), in_feed=number > 3)
                if paid is CEM:
                    wanted.append(executed.receipts[0].id)
            await socket.call("qenex_subscribe", channel="transactions", account=to_text(CEM.address), from_height=1)
            found = await events(socket, 3)
            assert [event["height"] for event in found] == [2, 4, 6]
            assert [event["transactions"][0]["receipt"]["id"] for event in found] == ["0x" + i.hex() for i in wanted]
            assert all(event["last"] and len(event["transactions"]) == 1 for event in found)
            shown = found[0]["transactions"][0]
            assert shown["transaction"]["sender"] == to_text(BOB.address)
            assert (shown["receipt"]["code"], shown["height"], shown["index"]) == ("ok", 2, 0)
            node.commit(transfer(node, ANN, BOB))
            node.commit(transfer(node, ANN, CEM))
            assert [event["height"] for event in await events(socket, 1)] == [8]

    run(main)


def test_all_transactions_of_a_large_block_come_in_several_events():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            await socket.call("qenex_subscribe", "transactions")
            node.commit(*[transfer(node, ANN, CEM) for _ in range(230)])
            found = await events(socket, 3)
            assert [len(event["transactions"]) for event in found] == [100, 100, 30]
            assert [event["last"] for event in found] == [False, False, True]
            assert [shown["index"] for event in found for shown in event["transactions"]] == list(range(230))

    run(main)


def evidence(number, height):
    return EvidenceInfo(number, "v3", "prepare", height, 0, b"first", b"second")


def test_evidence_is_replayed_by_height_or_told_when_it_is_found():
    async def main():
        async with serving() as service:
            node, replaying, live = service.node, await service.socket(), await service.socket()
            node.found = [evidence(number, 10 - number) for number in range(1, 6)]
            await replaying.call("qenex_subscribe", channel="evidence", from_height=7)
            await live.call("qenex_subscribe", "evidence")
            assert [event["number"] for event in await events(replaying, 3)] == [1, 2, 3]
            node.found.append(evidence(6, 12))
            node.feed.changed()
            for socket in (replaying, live):
                (event,) = await events(socket, 1)
                assert (event["number"], event["validator"], event["first"]) == (6, "v3", "0x" + b"first".hex())

    run(main)


def test_status_tells_the_newest_state_and_not_each_in_between():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            await socket.call("qenex_subscribe", "status")
            (first,) = await events(socket, 1)
            assert (first["view"], first["head"]["height"], first["ready"]) == (0, 0, True)
            for view in range(1, 50):
                node.view = view
                node.feed.changed()
            node.reasons = [Reason("no_quorum", "alone")]
            node.feed.changed()
            (second,) = await events(socket, 1)
            assert (second["view"], second["ready"]) == (49, False)
            node.feed.changed()
            with trio.move_on_after(100) as scope:
                await socket.message()
            assert scope.cancelled_caught

    run(main)


def test_no_event_follows_the_answer_to_unsubscribe():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            await socket.call("qenex_subscribe", "blocks")
            node.commit(transfer(node, ANN, CEM))
            await events(socket, 1)
            assert (await socket.call("qenex_unsubscribe", "blocks-1"))["ended"] is True
            node.commit(transfer(node, ANN, CEM))
            with pytest.raises(RpcFailure) as caught:
                await socket.call("qenex_unsubscribe", "blocks-1")
            assert (caught.value.code, caught.value.reason) == (-32002, "subscription_unknown")
            with trio.move_on_after(5) as scope:
                await socket.message()
            assert scope.cancelled_caught
            assert service.counts.subscribed == 0

    run(main)


def test_a_subscriber_that_falls_far_behind_is_ended_and_told_where_to_go_on():
    async def main():
        async with serving(behind_blocks_max=10, send_timeout_s=1000.0, ping_interval_s=10_000.0) as service:
            node = service.node
            ours, theirs = trio.testing.lockstep_stream_pair()
            service.nursery.start_soon(service.server.serve_stream, theirs, "10.0.0.1")
            socket = Socket(ours)
            await socket.open()
            await socket.call("qenex_subscribe", "transactions")
            for _ in range(30):
                node.commit(*[transfer(node, ANN, CEM) for _ in range(100)])
                await trio.testing.wait_all_tasks_blocked()
            seen = 0
            while True:
                params = (await socket.message())["params"]
                if "ended" in params:
                    break
                seen = params["event"]["height"]
            ended = params["ended"]
            assert ended["reason"] == "too_far_behind"
            assert ended["from_height"] == seen + 1 < 30
            assert service.counts.drops == {"subscription_too_far_behind": 1}
            assert service.counts.subscribed == 0
            await socket.call("qenex_subscribe", channel="blocks", from_height=ended["from_height"])
            assert heights(await events(socket, 1)) == [seen + 1]

    run(main)


def test_a_slow_reader_of_a_long_replay_costs_little_memory():
    async def main():
        async with serving(send_timeout_s=1000.0, ping_interval_s=10_000.0) as service:
            node = service.node
            for _ in range(400):
                node.commit(*[transfer(node, ANN, CEM) for _ in range(5)], in_feed=False)
            ours, theirs = trio.testing.lockstep_stream_pair()
            service.nursery.start_soon(service.server.serve_stream, theirs, "10.0.0.1")
            socket = Socket(ours)
            await socket.open()
            await socket.call("qenex_subscribe", channel="transactions", from_height=0)
            await trio.testing.wait_all_tasks_blocked()
            # One event has about 10 KB: had all been made, there were 400 of them.
            assert node.world.reads["block_at"] < 150

    run(main)


def test_a_fault_of_ours_ends_the_subscription_and_not_the_connection(caplog):
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            await socket.call("qenex_subscribe", "status")
            await events(socket, 1)
            node.status = None
            node.feed.changed()
            ended = (await socket.message())["params"]["ended"]
            assert ended["reason"] == "internal_error"
            assert (await socket.call("qenex_getBlock", "latest"))["header"]["height"] == 0
            assert service.counts.subscribed == 0

    run(main)
    assert "NoneType" in caplog.text


def test_subscriptions_are_bounded_for_each_connection_and_in_all():
    async def main():
        async with serving(subscriptions_per_connection_max=2, subscriptions_max=3) as service:
            first, second = await service.socket(), await service.socket()
            for socket, count in ((first, 2), (second, 1)):
                for _ in range(count):
                    await socket.call("qenex_subscribe", "blocks")
            for socket, reason in ((first, "subscriptions_per_connection_max"), (second, "subscriptions_max")):
                with pytest.raises(RpcFailure) as caught:
                    await socket.call("qenex_subscribe", "blocks")
                assert (caught.value.code, caught.value.reason) == (-32001, reason)
            await trio.aclose_forcefully(first.stream)
            await trio.testing.wait_all_tasks_blocked()
            assert service.counts.subscribed == 1
            await second.call("qenex_subscribe", "blocks")

    run(main)


def test_a_replay_of_a_quiet_account_does_not_read_every_block():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            for height in range(1, 301):
                node.commit(transfer(node, ANN, CEM if height in (7, 150, 151, 290) else BOB), in_feed=False)
            await socket.call("qenex_subscribe", channel="transactions", account=to_text(CEM.address), from_height=0)
            assert [event["height"] for event in await events(socket, 4)] == [7, 150, 151, 290]
            await trio.testing.wait_all_tasks_blocked()
            assert node.world.reads["account_transactions"] < 80
            assert node.world.reads["block_at"] == 4

    run(main)


def test_a_replay_that_the_index_does_not_reach_is_refused():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            for _ in range(5):
                node.commit(transfer(node, ANN, CEM))
            node.world.accounts_indexed_from = 4
            named = {"channel": "transactions", "account": to_text(CEM.address)}
            with pytest.raises(RpcFailure) as caught:
                await socket.call("qenex_subscribe", **named, from_height=3)
            assert (caught.value.reason, caught.value.data["indexed_from"]) == ("index_off", 4)
            await socket.call("qenex_subscribe", **named, from_height=4)
            assert [event["height"] for event in await events(socket, 2)] == [4, 5]

    run(main)


@pytest.mark.parametrize(
    ("params", "code", "reason"),
    [
        (["nothing"], -32602, "choice_invalid"),
        (["blocks", to_text(ANN.address)], -32602, "misplaced"),
        (["status", None, 0], -32602, "misplaced"),
        (["blocks", None, 2], -32005, "height_ahead"),
        (["transactions", to_text(ANN.address), 0], -32010, "index_off"),
    ],
)
def test_a_wrong_subscription_is_refused(params, code, reason):
    async def main():
        node = FakeNode()
        node.world.accounts_indexed_from = None
        async with serving(node) as service:
            socket = await service.socket()
            with pytest.raises(RpcFailure) as caught:
                await socket.call("qenex_subscribe", *params)
            assert (caught.value.code, caught.value.reason) == (code, reason)

    run(main)


def test_subscriptions_need_a_websocket():
    async def main():
        async with serving() as service:
            with pytest.raises(RpcFailure) as caught:
                await service.http().call("qenex_subscribe", "blocks")
            assert (caught.value.code, caught.value.reason) == (-32011, "websocket_only")

    run(main)


def test_one_may_subscribe_to_the_very_next_height():
    async def main():
        async with serving() as service:
            node, socket = service.node, await service.socket()
            await socket.call("qenex_subscribe", channel="blocks", from_height=1)
            node.commit(transfer(node, ANN, CEM))
            assert heights(await events(socket, 1)) == [1]

    run(main)
