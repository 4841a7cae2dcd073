"""The OpenRPC document and docs/rpc.md say what the declarations say, and the answers are as they promise."""

import re

from qenex_node.rpc import errors, reference
from qenex_node.rpc.methods import registry
from state.address import to_text
from state.ledger import Ledger
from tests.qenex_node.rpc.rpc_support import ANN, CEM, RpcFailure, hexed, pay_tx, run, serving, with_node


def document():
    found = {}

    async def test(node, http):
        found.update(await http.call("rpc.discover"))

    with_node(test)
    return found


def matches(value, schema):
    """A check of the few words of JSON Schema that the document uses."""
    known = {
        "type", "properties", "required", "items", "oneOf", "enum", "pattern", "minimum", "maximum", "const", "title",
        "maxLength", "minItems", "maxItems", "additionalProperties", "description", "default",
    }  # fmt: skip
    assert set(schema) <= known, schema
    if "oneOf" in schema:
        return any(matches(value, option) for option in schema["oneOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    if "type" in schema and type(value) is not kinds[schema["type"]]:
        return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if type(value) is int and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if type(value) is list:
        return all(matches(item, schema.get("items", {})) for item in value)
    if type(value) is dict:
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties", {})
        if any(name not in value for name in schema.get("required", ())):
            return False
        if extra is False and not set(value) <= set(properties):
            return False
        rest = extra if isinstance(extra, dict) else {}
        return all(matches(item, properties.get(name, rest)) for name, item in value.items())
    return True


def test_the_document_has_the_form_that_openrpc_demands():
    found = document()
    assert re.fullmatch(r"1\.\d+\.\d+", found["openrpc"])
    assert {"title", "version"} <= set(found["info"])
    names = [method["name"] for method in found["methods"]]
    assert len(set(names)) == len(names)
    for method in found["methods"]:
        assert {"name", "params", "result"} <= set(method)
        assert method["paramStructure"] in ("by-name", "by-position", "either")
        required = [param["required"] for param in method["params"]]
        assert required == sorted(required, reverse=True)
        assert len({param["name"] for param in method["params"]}) == len(method["params"])
        for descriptor in (*method["params"], method["result"]):
            assert descriptor["name"]
            assert isinstance(descriptor["schema"], dict)
        for error in method["errors"]:
            assert isinstance(error["code"], int)
            assert error["message"]


def test_the_document_covers_every_method_and_itself():
    names = {method["name"] for method in document()["methods"]}
    assert names == {method.name for method in registry(Ledger(), "")}
    assert {"rpc.discover", "qenex_sendTransaction", "qenex_subscribe", "ledger_transfer_balance"} <= names


def test_every_answer_is_as_its_schema_promises():
    async def test(node, http):
        schemas = {
            method["name"]: method["result"]["schema"] for method in (await http.call("rpc.discover"))["methods"]
        }
        executed = node.commit(pay_tx(node), pay_tx(node, amount=10**9))
        waiting = pay_tx(node)
        ann, tx_id = to_text(ANN.address), hexed(executed.transactions[0].id)
        calls = [
            ("qenex_status",),
            ("qenex_sendTransaction", hexed(waiting.wire)),
            ("qenex_sendTransaction", hexed(executed.transactions[0].wire)),
            ("qenex_getTransaction", tx_id),
            ("qenex_getTransaction", hexed(waiting.id)),
            ("qenex_getTransaction", hexed(bytes(32))),
            ("qenex_getReceipt", tx_id),
            ("qenex_getReceipt", hexed(waiting.id)),
            ("qenex_getTransactions", ann),
            ("qenex_getTransactions", ann, None, 1, "full"),
            ("qenex_getAccount", ann),
            ("qenex_getAccount", ann, 0),
            ("qenex_getAccount", to_text(CEM.address)),
            ("qenex_getBalance", ann, "QNX"),
            ("qenex_getAsset", "QNX"),
            ("qenex_getProof", ["account", ann]),
            ("qenex_getProof", ["asset", "EUR"], 0),
            ("qenex_getBlock", 0),
            ("qenex_getBlock", 1, "full"),
            ("qenex_getBlock", 1, "header"),
            ("qenex_getBlocks",),
            ("qenex_getLightBlock",),
            ("qenex_getValidators",),
            ("qenex_simulate", hexed(waiting.wire)),
            ("mempool_status",),
            ("mempool_get", hexed(waiting.id)),
            ("net_peers",),
            ("consensus_state",),
            ("consensus_evidence",),
            ("rpc.discover",),
        ]
        for method, *params in calls:
            assert matches(await http.call(method, *params), schemas[method]), method
        covered = {method for method, *_ in calls}
        assert {name for name in schemas if not name.startswith("ledger_")} - covered == {
            "qenex_subscribe",
            "qenex_unsubscribe",
        }

    with_node(test)


def test_error_codes_are_distinct_and_in_their_ranges():
    kinds = (*errors.STANDARD_KINDS, *errors.APPLICATION_KINDS)
    assert len({kind.code for kind in kinds}) == len({kind.name for kind in kinds}) == len(kinds)
    assert all(-32099 <= kind.code <= -32000 for kind in errors.APPLICATION_KINDS)
    declared = {value for value in vars(errors).values() if isinstance(value, errors.ErrorKind)}
    assert declared == set(kinds)


def test_the_page_in_docs_is_as_the_declarations_say():
    page = reference.PAGE.read_text()
    assert page == reference.generated(page), "run: python -m qenex_node.rpc.reference"


def test_the_examples_of_the_page_are_read_by_the_methods():
    """What an example asks for may not exist, but no example may be a wrong request."""

    async def main():
        async with serving() as service:
            socket = await service.socket()
            for method in registry(Ledger(), ""):
                if any(isinstance(param, str) and param.endswith("...") for param in method.example):
                    continue
                try:
                    await socket.call(method.name, *method.example)
                except RpcFailure as failure:
                    assert failure.code in (-32002, -32005), (method.name, failure)  # noqa: PT017

    run(main)
