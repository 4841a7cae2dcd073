"""The ledger as the rest of the node sees it: its plug-ins, the state it is born with, reading, admitting, simulating.

Executing whole blocks stands in state/execution.py, which drives a BlockRun made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from state.codec import decode, encode
from state.errors import DecodeError, JsonValue, Rejected
from state.genesis import PARAMETER_NAMES, Genesis
from state.ledger.account import Account, Balance, account_key
from state.ledger.asset import FLAGS_KNOWN, Asset, asset_key
from state.ledger.context import RECORD_BYTES_MAX, parameter_key
from state.ledger.domains import account as account_domain
from state.ledger.domains import asset as asset_domain
from state.ledger.domains import governance as governance_domain
from state.ledger.domains import transfer as transfer_domain
from state.ledger.entry import FeePrice, authorised_accounts, check_deadline, check_fee, check_sequence, free_of_charge
from state.ledger.overlay import StateReader, read_account, read_asset, read_balance
from state.ledger.plugin import Plugin
from state.ledger.receipt import Receipt
from state.ledger.registry import Parsed, Registry
from state.ledger.run import BlockRun, Environment
from state.ledger.validators import genesis_rule_pairs
from state.transaction import Operation, Transaction

DEFAULT_PLUGINS: Final = (
    transfer_domain.PLUGIN,
    asset_domain.PLUGIN,
    account_domain.PLUGIN,
    governance_domain.PLUGIN,
)


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """A transaction that could enter a block, now or after others of its lane.

    `next_sequence` is what its lane is at; it can enter at once if that is its own. `units` is its weight.
    """

    next_sequence: int
    units: int


class Ledger:
    """The rules of one chain: plug-ins in their order, and the price of a unit."""

    def __init__(self, plugins: Iterable[Plugin] = DEFAULT_PLUGINS, price: FeePrice = free_of_charge) -> None:
        self.registry = Registry(plugins)
        self.price = price

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """The plug-ins, in registry order."""
        return self.registry.plugins

    def genesis_pairs(self, genesis: Genesis) -> Iterator[tuple[bytes, bytes]]:
        """Yields (state key, value) of the state that a chain is born with, except the accounts of a state file.

        Raises Rejected("genesis_invalid") for what only this ledger can judge.
        """
        for name in PARAMETER_NAMES:
            yield parameter_key(name), encode(getattr(genesis.parameters, name))
        yield from genesis_rule_pairs(genesis)
        supplies = genesis.supplies()
        for entry in genesis.assets:
            if entry.flags > FLAGS_KNOWN:
                raise Rejected("genesis_invalid", f"asset {entry.code} has unknown flags {entry.flags}")
            asset = Asset(entry.code, entry.decimals, entry.issuer, entry.flags, supplies[entry.code])
            yield asset_key(asset.code), asset.encode()
        for plugin in self.plugins:
            if plugin.genesis is not None:
                yield from plugin.genesis(genesis)
        for holder in genesis.accounts:
            account = Account.holding(dict(holder.balances))
            if not account.is_empty():
                yield account_key(holder.address), account.encode()

    def begin_block(self, reader: StateReader, environment: Environment) -> BlockRun:
        """Returns a run of transactions over `reader`, which must not change while it lasts."""
        return BlockRun(self.registry, self.price, reader, environment)

    def parse(self, tx: Transaction) -> Parsed:
        """Returns the typed operations and the weight; raises Rejected if some operation is unknown or malformed."""
        return self.registry.parse(tx)

    def admission(self, reader: StateReader, tx: Transaction, now_ms: int) -> AdmissionResult:
        """Tells whether a transaction can enter a block, now or once others of its lane have.

        Its signatures are proved elsewhere. Raises Rejected: "operation_unknown", "malformed", "transaction_too_heavy",
        "expired", "deadline_too_far", "sequence_used", "not_authorised", "fee_too_low", "fee_unaffordable".
        """
        parsed = self.registry.parse(tx)
        check_deadline(tx, now_ms)
        next_sequence = check_sequence(tx, read_account(reader, tx.sender))
        authorised_accounts(tx, parsed, lambda address: read_account(reader, address))
        fee = self.price(parsed.units)
        if fee:
            native = self.read_parameter(reader, "native_asset")
            check_fee(tx, fee, read_balance(reader, tx.payer or tx.sender, native))
        return AdmissionResult(next_sequence, parsed.units)

    def simulate(self, reader: StateReader, environment: Environment, tx: Transaction) -> Receipt:
        """Returns the receipt that a transaction would have now. One without authorisations counts as authorised.

        Raises Rejected where it could not enter a block; its sequence number is not looked at.
        """
        return self.begin_block(reader, environment).simulate(tx, unsigned=not tx.authorisations)

    # Reading

    def read_account(self, reader: StateReader, address: bytes) -> Account | None:
        """Returns an account, or None where there is no record. It may be shared: it must not be changed."""
        return read_account(reader, address)

    def read_asset(self, reader: StateReader, code: str) -> Asset | None:
        """Returns an asset, or None."""
        return read_asset(reader, code)

    def read_balance(self, reader: StateReader, address: bytes, code: str) -> Balance:
        """Returns (available, held) of an account in one asset."""
        return read_balance(reader, address, code)

    def read_parameter(self, reader: StateReader, name: str) -> Any:
        """Returns a chain parameter; raises Rejected("not_found")."""
        data = reader.get(parameter_key(name))
        if data is None:
            raise Rejected("not_found", f"there is no chain parameter {name!r}")
        return decode(data, bytes_max=RECORD_BYTES_MAX)

    def query(self, reader: StateReader, name: str, params: JsonValue) -> JsonValue:
        """Answers the query <domain>_<query> with JSON parameters by JSON; raises Rejected."""
        entry = self.registry.queries.get(name)
        if entry is None:
            raise Rejected("not_found", f"there is no query {name!r}; there are {', '.join(self.registry.queries)}")
        query = entry[1]
        return query.result.to_json(query.run(reader, query.params.from_json(params, name)))

    # JSON

    def operation_to_json(self, operation: Operation) -> JsonValue:
        """Returns {"kind", "version", "fields": {...}}; raises Rejected for an operation that it does not know."""
        _, rules = self.registry.rules_of(operation.kind, operation.version)
        fields = rules.fields.to_json(rules.fields.decode(operation.fields, operation.kind))
        return {"kind": operation.kind, "version": operation.version, "fields": fields}

    def operation_from_json(self, value: Any) -> Operation:
        """Reads {"kind", "fields", "version" (absent: the newest)}; raises Rejected saying what is wrong."""
        if type(value) is not dict or not {"kind", "fields"} <= set(value) <= {"kind", "version", "fields"}:
            raise DecodeError("an operation is an object with kind, fields and perhaps version")
        known = self.registry.operations.get(value["kind"]) if type(value["kind"]) is str else None
        if known is None:
            names = ", ".join(self.registry.operations)
            raise Rejected("operation_unknown", f"operation {value['kind']!r} is unknown; known: {names}")
        version = value.get("version", known.newest)
        if type(version) is not int:
            raise DecodeError("an operation's version is a number")
        return self.build(known.kind, value["fields"], version)

    def build(self, kind: str, fields: JsonValue, version: int | None = None) -> Operation:
        """Returns the operation of this kind with fields in JSON form, checked as far as that needs no state."""
        known = self.registry.operations.get(kind)
        used = known.newest if version is None and known is not None else version or 0
        _, rules = self.registry.rules_of(kind, used)
        values = rules.fields.from_json(fields, kind)
        rules.check(values)
        return Operation(kind, used, rules.fields.encode(values))

    def receipt_to_json(self, receipt: Receipt) -> dict[str, JsonValue]:
        """Returns {"id", "code", "units", "fee", "events": [{"kind", "fields"}]}."""
        events: list[JsonValue] = []
        for event in receipt.events:
            fields = self.registry.events[event.kind].fields
            events.append({"kind": event.kind, "fields": fields.to_json(fields.decode(event.fields, event.kind))})
        return {
            "id": "0x" + receipt.id.hex(),
            "code": receipt.code,
            "units": receipt.units,
            "fee": str(receipt.fee),
            "events": events,
        }
