"""The WebSocket face: many calls at once, subscriptions without a gap through lost connections, slow readers."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from qenex_node.client import AsyncClient, ProtocolError, Retry, RpcError, TransportError
from qenex_node.client import live as live_module
from qenex_node.client.subscription import Cursor
from state.errors import Rejected
from tests.qenex_node.client.client_support import ANN, BOB, CEM, HonestNode, answering, run, session
from tests.state.ledger.world import pay

URL = "http://localhost:1"


@asynccontextmanager
async def living(node=None, **limits):
    """A WebSocket to a node in memory; `streams` are the connections made so far, to be cut."""
    node = node or HonestNode()
    streams = []
    async with answering(node, **limits) as (service, connect):

        async def noted(endpoint):
            stream = await connect(endpoint)
            streams.append(stream)
            return stream

        async with (
            AsyncClient(URL, session=session(), connect=noted) as client,
            client.live(Retry(attempts=5, delay_ms=100, delay_ms_max=1000)) as live,
        ):
            yield live, node, streams, service


def block(node, *amounts):
    node.commit(*(node.world.tx(ANN, pay(CEM.address, amount)) for amount in amounts))


async def heights(subscription, count):
    return [(await anext(subscription))["header"]["height"] for _ in range(count)]


def test_calls_of_many_tasks_share_one_connection():
    async def test():
        async with living() as (live, _, streams, _):
            results = []

            async def one():
                results.append((await live.call("qenex_status"))["chain_id"])

            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(one)
            assert results == ["test-1"] * 50
            assert len(streams) == 1
            with pytest.raises(RpcError):
                await live.call("qenex_nonsense")

    run(test)


def test_submissions_are_pipelined_and_all_committed():
    async def test():
        async with living() as (live, node, _, _):
            done = []
            operation = live.session.operations.transfer(asset="QNX", recipients=[(CEM.address, 5)])
            prepared = [await live.prepare(ANN, [operation]) for _ in range(20)]

            async def one(tx):
                done.append(await live.wait(tx))

            async with trio.open_nursery() as nursery:
                for tx in prepared:
                    nursery.start_soon(one, tx)
            assert {tx.code for tx in done} == {"ok"}
            assert node.world.available(CEM.address) == 100
            outcomes = await live.submit_many([await live.prepare(BOB, [operation]) for _ in range(3)])
            assert [one.wire is not None for one in outcomes] == [True] * 3
            assert node.submits[-1] == 3

    run(test)


def test_blocks_are_replayed_from_a_height_and_go_on_live():
    async def test():
        async with living() as (live, node, _, _):
            for amount in range(1, 4):
                block(node, amount)
            events = await live.subscribe("blocks", from_height=1)
            assert await heights(events, 3) == [1, 2, 3]
            block(node, 9)
            assert await heights(events, 1) == [4]
            await events.aclose()
            assert await live.call("qenex_status")

    run(test)


@pytest.mark.parametrize("from_height", [None, 1])
def test_no_block_is_missed_or_doubled_through_a_lost_connection(from_height):
    async def test():
        async with living() as (live, node, streams, _):
            events = await live.subscribe("blocks", from_height=from_height)
            block(node, 1)
            assert await heights(events, 1) == [1]
            for amount in (2, 3):
                block(node, amount)
            await trio.aclose_forcefully(streams[-1])
            block(node, 4)
            assert await heights(events, 3) == [2, 3, 4]
            assert len(streams) == 2

    run(test)


def test_a_subscription_that_saw_nothing_yet_misses_nothing_either():
    async def test():
        async with living() as (live, node, streams, _):
            block(node, 1)
            events = await live.subscribe("blocks")
            await trio.aclose_forcefully(streams[-1])
            block(node, 2)
            assert await heights(events, 1) == [2]

    run(test)


def test_an_accounts_transactions_come_once_each_through_a_lost_connection():
    async def test():
        async with living() as (live, node, streams, _):
            events = await live.subscribe("transactions", account=CEM.address, from_height=0)
            block(node, *range(1, 251))
            amounts = []
            while len(amounts) < 250:
                event = await anext(events)
                amounts += [entry["receipt"]["events"][0]["fields"]["amount"] for entry in event["transactions"]]
                if len(amounts) == 100:
                    await trio.aclose_forcefully(streams[-1])
            assert amounts == [str(n) for n in range(1, 251)]
            node.commit(node.world.tx(ANN, pay(BOB.address, 1)))
            block(node, 7)
            assert (await anext(events))["height"] == 3

    run(test)


def test_a_slow_reader_is_begun_again_where_it_stood(monkeypatch):
    monkeypatch.setattr(live_module, "EVENTS_MAX", 3)

    async def test():
        async with living() as (live, node, _, _):
            events = await live.subscribe("blocks", from_height=1)
            for amount in range(1, 9):
                block(node, amount)
            await trio.testing.wait_all_tasks_blocked()
            assert await live.call("qenex_status")
            assert await heights(events, 8) == list(range(1, 9))

    run(test)


def test_a_subscription_that_the_node_ends_goes_on_where_it_says():
    async def test():
        cursor = Cursor("blocks")
        cursor.ended({"reason": "behind", "message": "", "from_height": 7})
        assert cursor.call().params["from_height"] == 7
        async with living(behind_blocks_max=2) as (live, node, _, _):
            events = await live.subscribe("blocks")
            await trio.testing.wait_all_tasks_blocked()
            for amount in range(1, 6):
                block(node, amount)
            assert await heights(events, 5) == [1, 2, 3, 4, 5]

    run(test)


def test_a_refused_subscription_says_why_and_leaves_the_others():
    async def test():
        async with living() as (live, node, _, _):
            events = await live.subscribe("blocks")
            with pytest.raises(RpcError) as caught:
                await live.subscribe("blocks", from_height=99)
            assert caught.value.reason == "height_ahead"
            with pytest.raises(Rejected, match="channel_unknown"):
                await live.subscribe("weather")
            block(node, 1)
            assert await heights(events, 1) == [1]

    run(test)


def test_calls_wait_for_the_next_connection_and_unsafe_ones_fail():
    async def test():
        node = HonestNode()
        node.slow = True
        async with living(node) as (live, _, streams, _):
            operation = live.session.operations.transfer(asset="QNX", recipients=[(CEM.address, 5)])
            prepared = await live.prepare(ANN, [operation])
            done = []

            async def wait():
                done.append(await live.wait(prepared))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await trio.aclose_forcefully(streams[-1])
                await trio.sleep(1)
                node.commit()
            assert done[0].height == 1
            assert len(streams) == 2

    run(test)


def test_a_node_that_stays_away_fails_everything_that_waits():
    async def test():
        async def nobody(endpoint):
            raise OSError("refused")

        client = AsyncClient(URL, connect=nobody, timeout_s=100)
        async with client.live(Retry(attempts=3)) as live:
            with pytest.raises(TransportError, match="refused") as caught:
                await live.call("qenex_status")
            assert not caught.value.sent
            with pytest.raises(TransportError):
                await live.call("qenex_status")

    run(test)


def test_a_silent_connection_is_given_up():
    async def test():
        connections = []

        async def silent(endpoint):
            connections.append(trio.current_time())
            return trio.testing.memory_stream_pair()[0]

        client = AsyncClient(URL, connect=silent, timeout_s=5)
        async with client.live(Retry(attempts=3)) as live:
            with pytest.raises(TransportError):
                await live.call("qenex_status")
            await trio.sleep(5)
        assert connections[0] == 0
        assert 5 <= connections[1] <= 6

    run(test)


def test_the_callers_own_error_leaves_the_block_as_it_is():
    async def test():
        async with answering() as (_, connect):
            client = AsyncClient(URL, connect=connect)
            with pytest.raises(KeyError):
                async with client.live():
                    raise KeyError("mine")

    run(test)


# Cursors


def test_a_block_that_comes_too_early_is_a_protocol_error():
    cursor = Cursor("blocks", from_height=3)
    assert cursor.take({"header": {"height": 2}}) is None
    assert cursor.take({"header": {"height": 3}})
    with pytest.raises(ProtocolError):
        cursor.take({"header": {"height": 9}})
    with pytest.raises(ProtocolError):
        cursor.take({"nothing": 1})


def test_evidence_is_taken_once_by_its_number():
    cursor = Cursor("evidence")
    cursor.begun({"subscription": "evidence-1", "head_height": 5})
    assert cursor.call().params["from_height"] == 6
    assert [bool(cursor.take({"number": n})) for n in (1, 2, 2, 1, 3)] == [True, True, False, False, True]


def test_status_has_no_history():
    cursor = Cursor("status")
    cursor.begun({"subscription": "status-1", "head_height": 5})
    assert cursor.call().params["from_height"] is None
    assert cursor.take({"view": 1}) == {"view": 1}
