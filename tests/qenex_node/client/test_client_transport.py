"""Both HTTP faces: keep-alive, lost connections, time limits, what is repeated, and answers that are none."""

import json

import pytest
import trio

from qenex_node.client import AsyncClient, Client, ProtocolError, Retry, RpcError, TimedOut, TransportError
from qenex_node.client.errors import HeightAhead, MalformedRequest, NotFound
from qenex_node.client.http import Endpoint, HttpConnection
from qenex_node.client.jsonrpc import Call, decode, decode_batch, decode_message, encode, encode_batch
from qenex_node.client.retry import is_safe
from qenex_node.rpc import errors as table
from qenex_node.rpc.methods import registry
from state.errors import Rejected
from state.ledger import Ledger
from tests.qenex_node.client.client_support import ANN, HonestNode, Wire, answering, run, session, wired

URL = "http://localhost:1"

# JSON-RPC


def test_a_call_leaves_out_what_is_none():
    assert json.loads(encode(Call("m", {"a": 1, "b": None}), 7)) == {
        "jsonrpc": "2.0",
        "method": "m",
        "params": {"a": 1},
        "id": 7,
    }
    assert [request["id"] for request in json.loads(encode_batch([Call("m"), Call("n")], 3))] == [3, 4]


BAD_ANSWERS = [
    b"<html>",
    b"[1]",
    b"7",
    b"{}",
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}',
    b'{"jsonrpc":"2.0","id":2,"result":1}',
    b'{"jsonrpc":"2.0","id":"1","result":1}',
    b'{"jsonrpc":"2.0","id":null,"result":1}',
    b'{"jsonrpc":"2.0","id":1,"error":{"message":""}}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BAD_ANSWERS, ids=range(len(BAD_ANSWERS)))
def test_an_answer_that_is_none_is_a_protocol_error(body):
    with pytest.raises(ProtocolError):
        decode(body, 1)
    client, wire, _ = wired()
    wire.raw = body.replace(b'"id":1', b'"id":99') if b'"id":2' not in body else body
    with pytest.raises(ProtocolError):
        client.call("qenex_status")


def test_answers_of_a_batch_are_put_in_the_order_of_its_calls():
    body = b'[{"jsonrpc":"2.0","id":6,"result":"b"},{"jsonrpc":"2.0","id":5,"error":{"code":-32002,"message":"no"}}]'
    first, second = decode_batch(body, 5, 2)
    assert isinstance(first, NotFound)
    assert second == "b"
    for wrong in (body.replace(b'"id":6', b'"id":5'), body.replace(b'"id":6', b'"id":9'), b"[]"):
        with pytest.raises(ProtocolError):
            decode_batch(wrong, 5, 2)
    with pytest.raises(RpcError, match="batch_max"):
        decode_batch(
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"m","data":{"reason":"batch_max"}}}', 5, 2
        )


def test_a_message_of_a_websocket_is_an_answer_a_batch_or_a_notification():
    assert decode_message('{"jsonrpc":"2.0","method":"qenex_subscription","params":{"a":1}}')[0].params == {"a": 1}
    assert decode_message('[{"jsonrpc":"2.0","id":1,"result":2}]')[0].result == 2
    with pytest.raises(ProtocolError):
        decode_message('{"jsonrpc":"2.0","method":"other","params":{}}')


@pytest.mark.parametrize("kind", [*table.STANDARD_KINDS, *table.APPLICATION_KINDS], ids=lambda kind: kind.name)
def test_each_row_of_the_nodes_table_has_its_exception(kind):
    error = table.RpcError(kind, "why", {"more": 1}, reason="some_reason").to_json()
    raised = decode(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode(), 1)
    assert type(raised) is not RpcError
    assert isinstance(raised, RpcError)
    assert (raised.code, raised.reason, raised.message, raised.data["more"]) == (kind.code, "some_reason", "why", 1)


def test_methods_that_the_node_has_are_safe_to_repeat_but_for_those_of_one_connection():
    unsafe = {method.name for method in registry(Ledger(), "0.1.0") if not is_safe(method.name)}
    assert unsafe == {"qenex_unsubscribe"}
    assert not is_safe("admin_shutdown")


# The blocking face


def test_one_connection_serves_many_calls():
    client, wire, _ = wired()
    for _ in range(5):
        assert client.call("qenex_status")["chain_id"] == "test-1"
    assert wire.connections == 1


def test_a_batch_returns_results_and_errors_in_order():
    client, _, _ = wired()
    first, second = client.batch([Call("qenex_status"), Call("qenex_getBlock", {"block": 99})])
    assert first["head"]["height"] == 0
    assert isinstance(second, HeightAhead)
    assert second.data["head_height"] == 0


def test_errors_of_the_node_are_typed():
    client, _, _ = wired()
    with pytest.raises(MalformedRequest) as caught:
        client.call("qenex_nonsense")
    assert caught.value.code == -32601
    with pytest.raises(MalformedRequest) as caught:
        client.call("qenex_getBalance", address="qx1", asset="QNX")
    assert caught.value.data["param"] == "address"


def test_a_lost_connection_is_made_again_at_the_next_node_with_growing_pauses():
    client, wire, _ = wired()
    wire.faults = ["refused", "unsent", "unanswered"]
    assert client.call("qenex_status")["chain_id"] == "test-1"
    assert wire.endpoints == ["http://a:1", "http://b:2", "http://a:1", "http://b:2"]
    first, second, third = wire.slept
    assert 0.025 <= first <= 0.05 <= second <= 0.1 <= third <= 0.2


def test_what_may_have_been_carried_out_is_not_repeated_unless_that_is_safe():
    client, wire, _ = wired()
    wire.faults = ["unsent"]
    with pytest.raises(TransportError) as caught:
        client.call("admin_shutdown")
    assert caught.value.sent
    wire.faults = ["refused"]
    with pytest.raises(MalformedRequest):
        client.call("admin_shutdown")


def test_giving_up_says_whether_anything_may_have_arrived():
    client, wire, _ = wired(attempts=3)
    wire.faults = ["refused"] * 3
    with pytest.raises(TransportError, match="refused") as caught:
        client.call("qenex_status")
    assert not caught.value.sent
    wire.faults = ["silent", "refused", "refused"]
    with pytest.raises(TransportError) as caught:
        client.call("qenex_status")
    assert caught.value.sent


def test_a_time_limit_bounds_the_whole_answer():
    now = [0.0]

    class Trickle:
        def settimeout(self, seconds):
            self.left = seconds

        def sendall(self, data):
            pass

        def recv(self, size):
            now[0] += 1.0
            return b"H"

        def close(self):
            pass

    client = Client(
        URL, timeout_s=5.0, retry=Retry(attempts=1), connect=lambda endpoint, timeout: Trickle(), clock=lambda: now[0]
    )
    with pytest.raises(TimedOut):
        client.call("qenex_status")
    assert now[0] <= 6


@pytest.mark.parametrize("url", ["https://a:1", "http://", "http://a:port", "ftp://a"])
def test_a_wrong_address_is_refused_before_anything_is_sent(url):
    with pytest.raises(Rejected, match="url_invalid"):
        Client(url)


def test_addresses_may_leave_out_what_is_usual():
    assert str(Endpoint.parse("127.0.0.1:27101")) == "http://127.0.0.1:27101"
    assert str(Endpoint.parse("http://[::1]:27101/")) == "http://[::1]:27101"
    assert Endpoint.parse("http://node.example").port == 80


def test_an_answer_beyond_the_bound_is_refused():
    connection = HttpConnection(Endpoint("a", 1), answer_bytes_max=100)
    connection.request(b"{}")
    with pytest.raises(ProtocolError, match="100"):
        connection.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + b"x" * 200)
    assert not connection.reusable


@pytest.mark.parametrize("data", [b"\x16\x03\x01 tls", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"])
def test_what_is_not_http_is_a_protocol_error(data):
    connection = HttpConnection(Endpoint("a", 1))
    connection.request(b"{}")
    with pytest.raises(ProtocolError):
        connection.receive(data)


def test_a_node_that_closes_after_an_answer_gets_a_new_connection_next_time():
    connection = HttpConnection(Endpoint("a", 1))
    connection.request(b"{}")
    answer = connection.receive(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
    assert answer.body == b"{}"
    assert not connection.reusable


# The trio face


def test_many_tasks_share_a_few_connections():
    async def test():
        async with answering() as (service, connect):
            async with AsyncClient(URL, connect=connect, connections_max=3) as client:
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(client.call, "qenex_status")
                assert service.server.connection_count <= 3
            await trio.testing.wait_all_tasks_blocked()
            assert service.server.connection_count == 0

    run(test)


def test_calls_of_a_lost_connection_are_repeated_when_that_is_safe():
    async def test():
        node = HonestNode()
        dead = []

        async with answering(node) as (_, connect):

            async def flaky(endpoint):
                if len(dead) < 2:
                    dead.append(endpoint)
                    ours, theirs = trio.testing.memory_stream_pair()
                    if len(dead) == 1:
                        raise OSError("refused")
                    await theirs.aclose()
                    return ours
                return await connect(endpoint)

            async with AsyncClient(URL, connect=flaky) as client:
                assert (await client.call("qenex_status"))["chain_id"] == "test-1"
                dead.clear()
                await client.aclose()
                dead.append("one")
                with pytest.raises(TransportError) as caught:
                    await client.call("admin_shutdown")
                assert caught.value.sent

    run(test)


def test_a_silent_node_is_left_after_the_time_limit_and_the_nodes_own_wait():
    async def test():
        async def silent(endpoint):
            return trio.testing.memory_stream_pair()[0]

        async with AsyncClient(URL, connect=silent, timeout_s=5, retry=Retry(attempts=1)) as client:
            with pytest.raises(TimedOut):
                await client._call(Call("qenex_status", wait_ms=2_000))
            assert trio.current_time() == pytest.approx(7)

    run(test)


def test_a_cancelled_call_leaves_no_half_used_connection():
    async def test():
        node = HonestNode()
        node.slow = True
        async with answering(node) as (_, connect), AsyncClient(URL, session=session(), connect=connect) as client:
            prepared = await client.prepare(ANN, [client.session.operations.burn(asset="QNX", amount=1)])
            with trio.move_on_after(3):
                await client.wait(prepared)
            assert (await client.status()).height == 0

    run(test)


def test_the_faces_do_the_same():
    async def test():
        node = HonestNode()
        async with answering(node) as (_, connect), AsyncClient(URL, session=session(), connect=connect) as client:
            done = await client.transfer(ANN, ANN.address, 5, "QNX")
            return (done.height, (await client.account(ANN.address)).account, await client.validators())

    async def both():
        told = await test()
        assert told[0] == 1
        assert told[1].lanes == (1,)

    run(both)
    blocking = Client(URL, session=session(), connect=Wire(HonestNode()).connect)
    assert blocking.transfer(ANN, ANN.address, 5, "QNX").height == 1
