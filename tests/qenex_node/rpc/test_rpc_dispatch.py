"""JSON-RPC 2.0 itself: what is answered to well-formed, malformed and misdirected messages."""

import json

import pytest
import trio

from qenex_node.rpc.errors import LIMIT_REACHED, RpcError
from qenex_node.rpc.params import HEIGHT, choice
from qenex_node.rpc.registry import Method, Param, Registry, Result
from state.errors import InvariantError, Rejected
from tests.qenex_node.rpc.rpc_support import RpcFailure, request, run, serving

RESULT = Result("result", {}, "something")


def method(name, handler, *params, kind="plain"):
    return Method(name, name, params, RESULT, **{kind: handler})


def failing(error):
    def handler(call):
        raise error

    return handler


async def bulk(call, bounds):
    values = [bound[0] for bound in bounds]
    bounds.clear()
    return [RpcError(LIMIT_REACHED) if value == 13 else {"value": value, "of": len(values)} for value in values]


async def later(call, value):
    await trio.sleep(1)
    return value


METHODS = Registry(
    (
        method("echo", lambda call, a, b: [a, b], Param("a", HEIGHT, "a"), Param("b", choice("x", "y"), "b", "x")),
        method("bulk", bulk, Param("value", HEIGHT, "v"), kind="bulk"),
        method("later", later, Param("value", HEIGHT, "v"), kind="waiting"),
        method("rejects", failing(Rejected("sequence_used", "used", {"next": 4}))),
        method("busy", failing(Rejected("mempool_full", "full", {"count": 9}))),
        method("breaks", failing(InvariantError("secret inside"))),
        method("crashes", failing(KeyError("secret inside"))),
        method("big", lambda call: "x" * 300_000),
    )
)


def posting(*values, **limits):
    """Returns the answer to each body, sent one after the other over one connection."""
    answers = []

    async def main():
        async with serving(methods=METHODS, **limits) as service:
            http = service.http()
            for value in values:
                answers.append(await http.post(value))
            answers.append(service.counts)

    run(main)
    return answers


def error_of(answer):
    return RpcFailure(answer["error"])


def test_params_go_by_name_and_by_position_and_defaults_fill_in():
    answers = posting(
        request("echo", [3]), request("echo", [3, "y"]), request("echo", {"a": 3}), request("echo", {"b": "y", "a": 3}),
        request("echo", [3, None]),
    )  # fmt: skip
    assert [answer["result"] for answer in answers[:-1]] == [[3, "x"], [3, "y"], [3, "x"], [3, "y"], [3, "x"]]


@pytest.mark.parametrize("id_", [0, -5, 10**30, "", "abc", 'quo"te', "\ud800", None])
def test_the_id_comes_back_as_it_was(id_):
    answer = posting(request("echo", [1], id_))[0]
    assert answer["id"] == id_
    assert answer["result"] == [1, "x"]


@pytest.mark.parametrize(
    ("params", "reason", "param"),
    [
        ([], "missing", "a"),
        ({}, "missing", "a"),
        (None, "missing", "a"),
        ([None], "missing", "a"),
        ([1, "x", 3], "too_many", None),
        ({"a": 1, "z": 2}, "unknown", "z"),
        (["1"], "integer_invalid", "a"),
        ([True], "integer_invalid", "a"),
        ([-1], "integer_invalid", "a"),
        ([1.0], "integer_invalid", "a"),
        ([1 << 53], "integer_invalid", "a"),
        ([1, "z"], "choice_invalid", "b"),
        ([1, {"x": 1}], "choice_invalid", "b"),
        ("text", "params_type", None),
        (7, "params_type", None),
    ],
)
def test_a_wrong_parameter_is_named(params, reason, param):
    failure = error_of(posting({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": params})[0])
    assert (failure.code, failure.reason, failure.data["param"]) == (-32602, reason, param)


NOT_JSON = [
    b"",
    b" ",
    b"{",
    b"}",
    b"[",
    b"nul",
    b"{]",
    b'{"a":}',
    b'{"a" 1}',
    b"{'a':1}",
    b'{"jsonrpc":"2.0",}',
    b"[1,2,]",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b'"\xff"',
    b'"unterminated',
    b'"\x01"',
    b"NaN",
    b"[Infinity]",
    b"-",
    b"01",
    b"1" * 5000,
    b"[" * 60_000,
    b'{"a":' * 60_000,
    b"{}{}",
    b"\x00",
    bytes(range(256)),
    b'{"jsonrpc":"2.0","method":"echo","params":[1],"id":1}garbage',
]


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_not_json_is_a_parse_error(body):
    answer = posting(body)[0]
    assert error_of(answer).code == -32700
    assert answer["id"] is None


NOT_REQUESTS = [
    1,
    "text",
    None,
    True,
    1.5,
    {},
    {"jsonrpc": "2.0"},
    {"jsonrpc": "2.0", "id": 1},
    {"jsonrpc": "2.0", "id": 1, "method": 5},
    {"jsonrpc": "2.0", "id": 1, "method": None},
    {"jsonrpc": "1.0", "id": 1, "method": "echo", "params": [1]},
    {"jsonrpc": 2.0, "id": 1, "method": "echo", "params": [1]},
    {"id": 1, "method": "echo", "params": [1]},
    {"jsonrpc": "2.0", "id": [1], "method": "echo", "params": [1]},
    {"jsonrpc": "2.0", "id": {}, "method": "echo", "params": [1]},
    {"jsonrpc": "2.0", "id": True, "method": "echo", "params": [1]},
    {"jsonrpc": "2.0", "id": 1.5, "method": "echo", "params": [1]},
]


@pytest.mark.parametrize("value", NOT_REQUESTS, ids=range(len(NOT_REQUESTS)))
def test_json_that_is_no_request_is_an_invalid_request(value):
    assert error_of(posting(json.dumps(value).encode())[0]).code == -32600


def test_an_unknown_method_is_named_and_not_counted_under_its_own_name():
    answer, counts = posting(request("n" * 5000))
    assert error_of(answer).code == -32601
    assert len(json.dumps(answer)) < 500
    assert list(counts.answers) == [("unknown", "method_not_found")]


def test_a_notification_is_carried_out_and_not_answered():
    answers = posting(
        {"jsonrpc": "2.0", "method": "echo", "params": [1]},
        {"jsonrpc": "2.0", "method": "no_such_method"},
        {"jsonrpc": "2.0", "method": "echo", "params": ["wrong"]},
        {"jsonrpc": "2.0", "method": "later", "params": [1]},
        {"jsonrpc": "2.0", "method": "bulk", "params": [1]},
        [{"jsonrpc": "2.0", "method": "echo", "params": [1]}, {"jsonrpc": "2.0", "method": "bulk", "params": [1]}],
    )
    assert answers[:-1] == [None] * 6
    assert answers[-1].answers["echo", "ok"] == 2
    assert answers[-1].answers["bulk", "ok"] == 2


def test_a_batch_is_answered_in_its_order_whatever_is_in_it():
    batch = [
        request("bulk", [5], 1),
        request("echo", [1], 2),
        7,
        {"jsonrpc": "2.0", "method": "echo", "params": [1]},
        request("later", [9], 3),
        request("bulk", [13], 4),
        request("nothing", [], 5),
        request("bulk", [6], 6),
    ]
    answers = posting(batch)[0]
    assert [answer["id"] for answer in answers] == [1, 2, None, 3, 4, 5, 6]
    assert answers[0]["result"] == {"value": 5, "of": 3}
    assert answers[1]["result"] == [1, "x"]
    assert error_of(answers[2]).code == -32600
    assert answers[3]["result"] == 9
    assert error_of(answers[4]).code == -32001
    assert error_of(answers[5]).code == -32601
    assert answers[6]["result"] == {"value": 6, "of": 3}


def test_an_empty_batch_is_an_invalid_request_and_a_large_one_reaches_the_limit():
    empty, full, over, counts = posting([], [request("echo", [1])] * 5, [request("echo", [1])] * 6, batch_max=5)
    assert error_of(empty).code == -32600
    assert len(full) == 5
    failure = error_of(over)
    assert (failure.code, failure.reason, failure.data["maximum"]) == (-32001, "batch_max", 5)
    assert counts.answers["echo", "ok"] == 5


def test_a_batch_answer_stays_within_its_bytes():
    answers = posting([request("big")] * 10, answer_bytes_max=1_000_000)[0]
    outcomes = ["ok" if "result" in answer else error_of(answer).reason for answer in answers]
    assert outcomes == ["ok"] * 4 + ["answer_bytes_max"] * 6


def test_json_of_very_many_parts_is_refused_before_it_is_read():
    bodies = [b"[" + b"[]," * 1_000 + b"0]", b"[" * 5_000, b"{" * 5_000, b"," * 5_000]
    for answer in posting(*bodies, batch_max=15)[:-1]:
        failure = error_of(answer)
        assert (failure.code, failure.reason, failure.data["maximum"]) == (-32001, "json_parts_max", 1_984)
    assert error_of(posting(b"[" * 900, batch_max=15)[0]).code == -32700


def test_a_refusal_keeps_its_code_and_details():
    used, busy, _ = posting(request("rejects"), request("busy"))
    assert (used["error"]["code"], used["error"]["data"]) == (-32000, {"reason": "sequence_used", "next": 4})
    assert (busy["error"]["code"], busy["error"]["data"]) == (-32009, {"reason": "mempool_full", "count": 9})


@pytest.mark.parametrize("name", ["breaks", "crashes"])
def test_our_own_faults_are_logged_and_not_told(name, caplog):
    answer, counts = posting(request(name))
    assert answer["error"]["code"] == -32603
    assert "secret" not in json.dumps(answer)
    assert "secret inside" in caplog.text
    assert counts.answers[name, "internal_error"] == 1


def test_calls_that_wait_are_bounded():
    async def main():
        async with serving(methods=METHODS, batch_max=2, pending_max=2, pending_per_connection_max=9) as service:
            outcomes = []

            async def client():
                try:
                    outcomes.append(await service.http().call("later", 1))
                except RpcFailure as failure:
                    outcomes.append(failure.reason)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(client)
            assert sorted(outcomes, key=str) == [1, 1, "pending_max"]
            assert await service.http().call("later", 2) == 2

    run(main)
