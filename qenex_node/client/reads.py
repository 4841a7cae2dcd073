"""Queries as flows: each believed as the node says it, or proved where the session has a trusted chain.

With `session.trusted` an account, balance or asset comes with a proof under the newest certified state root;
transactions and receipts are found again under the roots of their certified block; headers are certified, validators
compared with those in force. Whatever does not hold raises VerificationFailed by the name of the lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qenex_node.client import forms
from qenex_node.client.errors import NotFound, ProtocolError, VerificationFailed
from qenex_node.client.flows import Flow
from qenex_node.client.forms import hexed, reading
from qenex_node.client.jsonrpc import Call
from qenex_node.client.light import LightBlock
from qenex_node.client.session import Session
from qenex_node.client.submit import Committed, Prepared, context_of, succeeded
from qenex_node.client.verify import Proven, TrustedChain, check_content, check_links, check_receipts
from state.address import to_text
from state.block import Block
from state.errors import DecodeError, JsonValue, Rejected
from state.ledger import Account, Asset, Ledger
from state.ledger.account import Balance, account_key, balance_key, decode_balance
from state.ledger.asset import asset_key
from state.ledger.receipt import Event, Receipt
from state.transaction import Transaction, decode_transaction
from state.types import Address, Certificate, Header, Height, TxId, ValidatorSet

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Status:
    """Who the node is and where it stands; `raw` is its whole answer."""

    chain_id: str
    height: Height
    time_ms: int
    raw: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class AccountAt:
    """An account at a height; `account` is None where there is no record. `next_free[lane]` counts what waits too."""

    address: Address
    account: Account | None
    height: int
    proved: bool
    next_free: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """What an account has of an asset at a height, in base units."""

    available: int
    held: int
    height: int
    proved: bool


@dataclass(frozen=True, slots=True)
class AssetAt:
    """An asset at a height."""

    asset: Asset
    height: int
    proved: bool


@dataclass(frozen=True, slots=True)
class TransactionAt:
    """What became of a transaction. `status` is unknown, pending, committed or expired.

    `height` and `index` are set once it is committed; `waiting` says why it is pending.
    """

    id: TxId
    status: str
    transaction: Transaction | None
    height: int | None
    index: int | None
    waiting: JsonValue
    proved: bool


@dataclass(frozen=True, slots=True)
class ReceiptAt:
    """The receipt of a committed transaction, None for another status."""

    id: TxId
    status: str
    receipt: Receipt | None
    height: int | None
    index: int | None
    proved: bool


@dataclass(frozen=True, slots=True)
class BlockAt:
    """A whole block with certificate and receipts."""

    block: Block
    certificate: Certificate | None
    receipts: tuple[Receipt, ...]
    proved: bool


def status(session: Session) -> Flow[Status]:
    """Returns where the node stands; with a trusted chain its head is proved."""
    answer = yield Call("qenex_status")

    def read(value: Any) -> Status:
        head = value["head"]
        return Status(
            forms.text(value["chain_id"]),
            Height(forms.integer(head["height"])),
            forms.integer(head["time_ms"]),
            value,
        )

    told = reading("status", read, answer)
    trusted = session.trusted
    if trusted is not None:
        if told.chain_id != trusted.context.chain_id:
            raise VerificationFailed("chain", f"the node is on chain {told.chain_id!r}")
        head = reading("status", lambda value: forms.hash_of(value["head"]["hash"]), answer)
        header, certificate, _ = yield from _certified(told.height)
        yield from lead_to(session, header)
        trusted.accept(header, certificate, session.freshness, None)
        if header.hash != head or header.height != told.height or header.time_ms != told.time_ms:
            raise VerificationFailed("header", "the node's head is not the block that it serves for that height")
    session.head_time_ms = max(session.head_time_ms, told.time_ms)
    return told


def light_block(session: Session, height: int) -> Flow[LightBlock]:
    """Returns header, certificate and validator set of a height, proved through all changes of the set below it.

    Raises Rejected("trust_missing") without a trusted chain.
    """
    wanted = _trusted(session).light.bisect(height)
    try:
        asked = next(wanted)
        while True:
            answer = yield Call("qenex_getLightBlock", {"height": asked})
            asked = wanted.send(reading("light block", forms.light_block, answer))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def trust_block(session: Session, height: int, block_hash: bytes) -> Flow[LightBlock]:
    """Trusts the block of a height because its hash comes from a trusted source; returns it as the node shows it.

    Raises VerificationFailed if the node shows another, Rejected("trust_missing") without a trusted chain.
    """
    light = _trusted(session).light
    answer = yield Call("qenex_getLightBlock", {"height": height})
    block: LightBlock = reading("light block", forms.light_block, answer)
    if block.header.height != height:
        raise VerificationFailed("height", f"asked for height {height}, answered for {block.header.height}")
    light.trust(block, block_hash)
    return block


def lead_to(session: Session, header: Header) -> Flow[None]:
    """Follows the validator set up to a header that names another one than is trusted, if a chain is trusted."""
    if session.trusted is not None and not session.trusted.leads_to(header):
        yield from light_block(session, header.height)


def prove(session: Session, key: bytes, at: int | None = None) -> Flow[tuple[bytes | None, Header]]:
    """Returns the value under a state key (None: absent) and the block whose state it is of, proved.

    Raises Rejected("trust_missing") without a trusted chain.
    """
    trusted = _trusted(session)
    answer = yield Call("qenex_getProof", {"key": hexed(key), "height": at})
    proven: Proven = reading("proof", forms.proven, answer)
    yield from lead_to(session, proven.header)
    return trusted.value(key, proven, session.freshness, at), proven.header


def _trusted(session: Session) -> TrustedChain:
    if session.trusted is None:
        raise Rejected("trust_missing", "nothing is trusted: give the chain's genesis file")
    return session.trusted


def _record(what: str, decode: Any, value: bytes | None) -> Any:
    """Decodes a proven record. It was agreed on, so one that cannot be read is of a newer version than we know."""
    try:
        return None if value is None else decode(value)
    except (DecodeError, Rejected) as error:
        raise ProtocolError(f"the {what} is of a form that this client does not know: {error}") from None


def account(session: Session, address: Address, at: int | None = None) -> Flow[AccountAt]:
    """Returns an account now or at a height."""
    if session.trusted is not None:
        value, header = yield from prove(session, account_key(address), at)
        return AccountAt(address, _record("account", Account.decode, value), header.height, True)
    answer = yield Call("qenex_getAccount", {"address": to_text(address), "height": at})
    return reading("account", _account, answer)


def _account(value: Any) -> AccountAt:
    held = value["balances"]
    lanes = [forms.integer(sequence) for sequence in value["lanes"]]
    while lanes and lanes[-1] == 0:
        lanes.pop()
    record = Account(
        tuple(lanes),
        forms.policy(value["policy"]),
        None if held is None else {forms.text(code): _balance(held[code]) for code in held},
        tuple((forms.text(tag), forms.unhexed(entry["bytes"])) for tag, entry in value["extensions"].items()),
    )
    free = value["next_free"]
    return AccountAt(
        forms.address(value["address"]),
        record if value["exists"] else None,
        forms.integer(value["height"]),
        False,
        None if free is None else tuple(forms.integer(sequence) for sequence in free),
    )


def _balance(value: Any) -> Balance:
    return forms.amount_of(value["available"]), forms.amount_of(value["held"])


def balance(session: Session, address: Address, asset: str, at: int | None = None) -> Flow[BalanceAt]:
    """Returns what an account has of one asset, wherever it stands."""
    if session.trusted is None:
        answer = yield Call("qenex_getBalance", {"address": to_text(address), "asset": asset, "height": at})
        available, held = reading("balance", _balance, answer)
        return BalanceAt(
            available, held, reading("balance", lambda value: forms.integer(value["height"]), answer), False
        )
    found = yield from account(session, address, at)
    record = found.account
    pair: Balance = (0, 0)
    if record is not None and record.balances is not None:
        pair = record.balances.get(asset, pair)
    elif record is not None:
        value, _ = yield from prove(session, balance_key(address, asset), found.height)
        pair = _record("balance", decode_balance, value) or pair
    return BalanceAt(*pair, found.height, True)


def asset(session: Session, code: str, at: int | None = None) -> Flow[AssetAt]:
    """Returns an asset; raises NotFound where there is none."""
    if session.trusted is not None:
        value, header = yield from prove(session, asset_key(code), at)
        if value is None:
            raise NotFound(-32002, f"there is no asset {code}", {"reason": "asset_unknown"})
        return AssetAt(_record("asset", Asset.decode, value), header.height, True)
    answer = yield Call("qenex_getAsset", {"asset": code, "height": at})

    def read(value: Any) -> AssetAt:
        found = Asset(
            value["code"],
            forms.integer(value["decimals"]),
            forms.address(value["issuer"]),
            forms.integer(value["flags"]),
            forms.amount_of(value["supply"]),  # type: ignore[arg-type]
        )
        return AssetAt(found, forms.integer(value["height"]), False)

    return reading("asset", read, answer)


def validators(session: Session, at: int | None = None) -> Flow[ValidatorSet]:
    """Returns the validators in force now or at a height; with a trusted chain they are those that are trusted."""
    answer = yield Call("qenex_getValidators", {"height": at})
    told = reading("validators", forms.validators, answer)
    trusted = session.trusted
    if trusted is not None:
        height = reading("validators", lambda value: forms.integer(value["height"]), answer)
        if at is not None and height != at:
            raise VerificationFailed("height", f"asked for height {at}, answered for {height}")
        named = trusted.genesis.validators.hash
        if height > 1:
            # The block below names it, so that the set of the height after the head can be proved too.
            header, certificate, _ = yield from _certified(height - 1)
            yield from lead_to(session, header)
            trusted.accept(header, certificate, session.freshness, None if at is None else height - 1)
            named = header.next_validators_hash
        if told.hash != named:
            raise VerificationFailed("validators", "the node names other validators than the trusted ones")
    return told


def _certified(reference: int | str) -> Flow[tuple[Header, Certificate | None, Any]]:
    """Asks for a block without its content."""
    answer = yield Call("qenex_getBlock", {"block": reference, "verbosity": "header"})
    return reading("block", _signed_header, answer)


def _signed_header(value: Any) -> tuple[Header, Certificate | None, Any]:
    return forms.header(value["header"]), forms.certificate(value["certificate"]), value


def block(session: Session, reference: int | bytes | None = None) -> Flow[BlockAt]:
    """Returns a whole block by height or hash, the newest if None; with a trusted chain all of it is proved."""
    asked: int | str = (
        hexed(reference) if isinstance(reference, bytes) else "latest" if reference is None else reference
    )
    answer = yield Call("qenex_getBlock", {"block": asked, "verbosity": "full"})
    header, certificate, first = reading("block", _signed_header, answer)
    evidence = reading("block", lambda value: tuple(map(forms.unhexed, value["evidence"])), first)
    entries: list[Any] = []
    page = first
    while True:
        entries += reading("block", lambda value: list(value["transactions"]), page)
        offset = page["next_offset"]
        if offset is None:
            break
        if offset != len(entries):
            raise ProtocolError("the pages of the block do not follow each other")
        page = yield Call("qenex_getBlock", {"block": header.height, "verbosity": "full", "offset": offset})
        if reading("block", lambda value: forms.header(value["header"]), page) != header:
            raise VerificationFailed("header", "the pages of the block have different headers")
    wires = reading("block", lambda value: tuple(forms.unhexed(item["transaction"]["wire"]) for item in value), entries)
    receipts = reading("block", lambda value: tuple(_receipt(session, item["receipt"]) for item in value), entries)
    if session.trusted is not None:
        yield from lead_to(session, header)
        at = reference if isinstance(reference, int) else None
        if isinstance(reference, bytes) and header.hash != reference:
            raise VerificationFailed("header", "the block has another hash than the one that was asked for")
        if isinstance(reference, bytes):
            session.trusted.check_header(header, certificate)
        else:
            session.trusted.accept(header, certificate, session.freshness, at)
        check_content(header, wires, evidence)
        check_receipts(header, [receipt.encode() for receipt in receipts])
    return BlockAt(Block(header, wires, evidence), certificate, receipts, session.trusted is not None)


def _receipt(session: Session, value: Any) -> Receipt:
    """Reads a receipt's JSON form back into what the receipts root commits to, by the declared fields of its events."""
    return receipt_from_json(session.operations.ledger, value)


def receipt_from_json(ledger: Ledger, value: Any) -> Receipt:
    """Returns the receipt of its JSON form; raises what a malformed one makes the fields raise."""
    events = []
    for event in value["events"]:
        fields = ledger.registry.events[forms.text(event["kind"])].fields
        events.append(Event(event["kind"], fields.encode(fields.from_json(event["fields"], event["kind"]))))
    return Receipt(
        forms.id_of(value["id"]),
        forms.text(value["code"]),
        forms.integer(value["units"]),
        forms.amount_of(value["fee"]),  # type: ignore[arg-type]
        tuple(events),
    )


def headers(session: Session, start: int | None = None, limit: int = 20) -> Flow[tuple[Header, ...]]:
    """Returns headers in order of height from `start` (None: the newest `limit`); proved, they are one chain.

    The last is certified, and each names its parent's hash.
    """
    answer = yield Call("qenex_getBlocks", {"from": start, "limit": limit})
    told: tuple[Header, ...] = reading("blocks", lambda value: tuple(map(forms.header, value["headers"])), answer)
    trusted = session.trusted
    if trusted is None:
        return told
    if not told:
        raise VerificationFailed("height", "the node shows no block where there is one")
    if len(told) > limit or (start is not None and told[0].height != start):
        raise VerificationFailed("height", "the node shows other heights than those that were asked for")
    check_links(told)
    header, certificate, _ = yield from _certified(told[-1].height)
    yield from lead_to(session, header)
    trusted.accept(header, certificate, session.freshness, told[-1].height if start is not None else None)
    if header != told[-1]:
        raise VerificationFailed("header", f"the header of height {told[-1].height} is not the certified one")
    return told


def transaction(session: Session, tx_id: TxId) -> Flow[TransactionAt]:
    """Returns a transaction and what became of it; a committed one is proved where there is a trusted chain.

    That a transaction is not committed cannot be proved: only its deadline makes that a fact.
    """
    context = yield from context_of(session)
    answer = yield Call("qenex_getTransaction", {"id": hexed(tx_id)})

    def read(value: Any) -> TransactionAt:
        wire = forms.unhexed(value["transaction"]["wire"]) if "transaction" in value else None
        tx = None if wire is None else decode_transaction(wire, context)
        if forms.id_of(value["id"]) != tx_id or (tx is not None and tx.id != tx_id):
            raise VerificationFailed("transaction", "the answer is for another transaction")
        committed = value["status"] == "committed"
        height = forms.integer(value["height"]) if committed else None
        index = forms.integer(value["index"]) if committed else None
        return TransactionAt(tx_id, forms.text(value["status"]), tx, height, index, value.get("waiting"), False)

    told: TransactionAt = reading("transaction", read, answer)
    if session.trusted is None or told.height is None or told.index is None:
        return told
    found = yield from block(session, told.height)
    wires = found.block.transactions
    if told.index >= len(wires):
        raise VerificationFailed("transaction", f"block {told.height} has no transaction {told.index}")
    tx = _record("transaction", lambda wire: decode_transaction(wire, context), wires[told.index])
    if tx.id != tx_id or (told.transaction is not None and told.transaction.wire != tx.wire):
        raise VerificationFailed("transaction", f"transaction {told.index} of block {told.height} is another one")
    return TransactionAt(tx_id, told.status, tx, told.height, told.index, told.waiting, True)


def receipt(session: Session, tx_id: TxId) -> Flow[ReceiptAt]:
    """Returns the receipt of a transaction; a committed one is proved where there is a trusted chain."""
    answer = yield Call("qenex_getReceipt", {"id": hexed(tx_id)})

    def read(value: Any) -> ReceiptAt:
        if forms.id_of(value["id"]) != tx_id:
            raise VerificationFailed("receipt", "the answer is for another transaction")
        if value["status"] != "committed":
            return ReceiptAt(tx_id, forms.text(value["status"]), None, None, None, False)
        place = forms.integer(value["height"]), forms.integer(value["index"])
        return ReceiptAt(tx_id, "committed", _receipt(session, value), *place, False)

    told: ReceiptAt = reading("receipt", read, answer)
    if session.trusted is None or told.receipt is None or told.height is None or told.index is None:
        return told
    found = yield from block(session, told.height)
    if told.index >= len(found.receipts) or found.receipts[told.index] != told.receipt:
        raise VerificationFailed("receipt", f"receipt {told.index} of block {told.height} is another one")
    return ReceiptAt(tx_id, told.status, told.receipt, told.height, told.index, True)


def settled(session: Session, waiting: Flow[Committed], check: bool) -> Flow[Committed]:
    """Returns the final transaction that `waiting` returns, proved where there is a trusted chain.

    Whoever believed a false "failed" would pay again, and whoever believed a false "final" would deliver for nothing.
    With `check` raises TransactionFailed if it failed.
    """
    done = yield from waiting
    if session.trusted is not None:
        found = yield from receipt(session, done.id)
        told = None if found.receipt is None else session.operations.ledger.receipt_to_json(found.receipt)
        if (found.height, found.index, told) != (done.height, done.index, done.receipt):
            raise VerificationFailed("receipt", "the transaction is not final as the node said")
    return succeeded(done) if check else done


def never(session: Session, prepared: Prepared) -> Flow[bool]:
    """Returns whether it is proved that a transaction was not committed and never will be.

    It is once a certified block is later than the deadline and the sender's lane still waits for this very number or
    one before it. False says only that this is not so: look for the transaction itself. Raises Rejected without a
    trusted chain.
    """
    value, header = yield from prove(session, account_key(prepared.sender))
    record = _record("account", Account.decode, value)
    used = 0 if record is None else record.sequence(prepared.lane)
    return header.time_ms > prepared.not_after_ms and used <= prepared.sequence


def history(
    session: Session, address: Address, before: tuple[int, int] | None = None, limit: int = 20
) -> Flow[Sequence[Mapping[str, JsonValue]]]:
    """Returns an account's transactions, newest first, as the node tells them: {"height", "index", "id", "code"}.

    No root covers this index, so it is never proved: prove each transaction by itself.
    """
    place: JsonValue = None if before is None else {"height": before[0], "index": before[1]}
    answer = yield Call("qenex_getTransactions", {"account": to_text(address), "before": place, "limit": limit})
    return reading("transactions", lambda value: tuple(dict(item) for item in value["transactions"]), answer)


def simulate(session: Session, wire: bytes) -> Flow[Mapping[str, JsonValue]]:
    """Returns the receipt (JSON form) that a transaction, signed or not, would have now: what a node thinks."""
    answer = yield Call("qenex_simulate", {"transaction": hexed(wire)})
    return reading("simulation", lambda value: dict(value["receipt"]), answer)
