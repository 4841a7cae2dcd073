"""qenex_status, qenex_getBlock, qenex_getBlocks, qenex_getLightBlock and qenex_getValidators: the chain itself."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import history, render, schemas
from qenex_node.rpc.errors import BLOCK_PRUNED, HEIGHT_AHEAD, NOT_FOUND, RpcError
from qenex_node.rpc.methods.heights import block_height, check_height
from qenex_node.rpc.params import BLOCK_REF, HEIGHT, choice, integer
from qenex_node.rpc.registry import Call, Method, Param, Result
from qenex_node.rpc.render import Json, hexed
from state.errors import JsonValue

FULL_PAGE_MAX: Final = 500
IDS_PAGE_MAX: Final = 5_000
HEADERS_PAGE_MAX: Final = 500


def status(call: Call) -> JsonValue:
    """Answers qenex_status."""
    return render.status(call.node)


async def get_block(
    call: Call, reference: int | bytes | None, verbosity: str, offset: int, limit: int | None
) -> JsonValue:
    """Answers qenex_getBlock."""
    node = call.node
    height = block_height(call, reference)
    header = node.store.header_at(height)
    if header is None:
        raise RpcError(NOT_FOUND, f"the block of height {height} is not kept", reason="block_unknown")
    answer: Json = {
        "header": render.header(header),
        "certificate": render.certificate(node.store.certificate_at(height)),
    }
    if verbosity == "header":
        return answer
    block = history.block_at(node, height)
    count = len(block.transactions)
    page = FULL_PAGE_MAX if verbosity == "full" else IDS_PAGE_MAX
    end = min(count, offset + min(limit or page, page))
    receipts = history.receipts_at(node, height, offset, end)
    transactions: list[JsonValue] = []
    pauses = history.Pauses()
    for index, receipt in enumerate(receipts, start=offset):
        if verbosity == "ids":
            transactions.append(hexed(receipt.id))
        else:
            wire = block.transactions[index]
            transactions.append(history.committed_transaction(node, height, index, wire, receipt))
        await pauses.pause()
    answer["transaction_count"] = count
    answer["transactions"] = transactions
    answer["next_offset"] = end if end < count else None
    answer["evidence"] = [hexed(item) for item in block.evidence]
    return answer


async def get_blocks(call: Call, start: int | None, limit: int) -> JsonValue:
    """Answers qenex_getBlocks."""
    store = call.node.store
    head_height = store.head.height
    first = max(store.base_height, head_height - limit + 1) if start is None else check_height(store, start)
    headers: list[JsonValue] = []
    pauses = history.Pauses()
    for height in range(first, min(head_height, first + limit - 1) + 1):
        header = store.header_at(height)
        if header is None:
            raise RpcError(NOT_FOUND, f"the header of height {height} is not kept", reason="block_unknown")
        headers.append(render.header(header))
        await pauses.pause()
    following = first + len(headers)
    return {"headers": headers, "next": following if following <= head_height else None}


def get_light_block(call: Call, height: int | None) -> JsonValue:
    """Answers qenex_getLightBlock."""
    store = call.node.store
    at = store.head.height if height is None else check_height(store, height)
    if at == 0:
        message = "block 0 has no certificate: it follows from the genesis document"
        raise RpcError(NOT_FOUND, message, {"height": at}, reason="not_certified")
    header, certificate = store.header_at(at), store.certificate_at(at)
    if header is None or certificate is None:
        raise RpcError(NOT_FOUND, f"the header of height {at} is not kept", {"height": at}, reason="block_unknown")
    return {
        "header": render.header(header),
        "certificate": render.certificate(certificate),
        "validators": render.validators(store.validators_at(at)),
    }


def get_validators(call: Call, height: int | None) -> JsonValue:
    """Answers qenex_getValidators."""
    store = call.node.store
    following = store.head.height + 1
    at = following if height is None or height == following else check_height(store, height)
    return {"height": at, **render.validators(store.validators_at(at))}


METHODS: Final = (
    Method(
        "qenex_status",
        "Who the node is, the newest committed block, the view, and whether it is catching up.",
        params=(),
        result=Result(
            "status",
            schemas.STATUS,
            "`primary` is the name of the validator that proposes now. `genesis_hash` is part of what transactions "
            "sign.",
        ),
        plain=status,
    ),
    Method(
        "qenex_getBlock",
        "A committed block with its certificate.",
        params=(
            Param("block", BLOCK_REF, 'a height, a block hash, or "latest"', None),
            Param(
                "verbosity",
                choice("header", "ids", "full"),
                '"header": without its content; "ids": transaction ids; "full": transactions with receipts',
                "ids",
            ),
            Param("offset", integer(0, 1 << 32), "the first transaction to show", 0),
            Param(
                "limit",
                integer(1, IDS_PAGE_MAX),
                f"how many transactions to show; at most {IDS_PAGE_MAX} ids or {FULL_PAGE_MAX} full ones",
                None,
            ),
        ),
        result=Result(
            "block",
            schemas.some(
                header=schemas.HEADER,
                certificate=schemas.CERTIFICATE,
                transaction_count=schemas.NUMBER,
                transactions={"type": "array"},
                next_offset=schemas.nullable(schemas.NUMBER),
                evidence=schemas.array(schemas.HEX_SCHEMA),
            ),
            "`next_offset` is where the next page begins, null on the last. Block 0 has no certificate.",
        ),
        errors=(NOT_FOUND, HEIGHT_AHEAD, BLOCK_PRUNED),
        example=("latest", "ids"),
        waiting=get_block,
    ),
    Method(
        "qenex_getBlocks",
        "Headers of committed blocks, in order of height.",
        params=(
            Param("from", HEIGHT, "the first height; if left out, the newest `limit` headers are shown", None),
            Param("limit", integer(1, HEADERS_PAGE_MAX), "how many headers", 20),
        ),
        result=Result(
            "headers",
            schemas.fields(headers=schemas.array(schemas.HEADER), next=schemas.nullable(schemas.NUMBER)),
            "`next` is the height to go on from, null at the head.",
        ),
        errors=(NOT_FOUND, HEIGHT_AHEAD, BLOCK_PRUNED),
        example=(0, 20),
        waiting=get_blocks,
    ),
    Method(
        "qenex_getLightBlock",
        "What a light client needs of a height: header, certificate, and the validator set in force there.",
        params=(Param("height", HEIGHT, "the height, from 1 on; the head's if left out", None),),
        result=Result(
            "light block",
            schemas.fields(header=schemas.HEADER, certificate=schemas.CERTIFICATE, validators=schemas.VALIDATOR_SET),
            "The set is the one that signed: its hash is the header's validators_hash. The set of the next height is "
            "named by the header's next_validators_hash alone.",
        ),
        errors=(NOT_FOUND, HEIGHT_AHEAD, BLOCK_PRUNED),
        example=(1,),
        plain=get_light_block,
    ),
    Method(
        "qenex_getValidators",
        "The validator set in force at a height.",
        params=(Param("height", HEIGHT, "the height; if left out, the one after the head", None),),
        result=Result("validators", schemas.VALIDATORS, "A validator's index is its place in the list."),
        errors=(HEIGHT_AHEAD,),
        plain=get_validators,
    ),
)
