"""The plug-ins of a ledger in their order, and what is looked up in them: operations, events, hooks, queries.

That the declarations do not contradict each other is checked once, when the registry is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from state.errors import InvariantError, Rejected
from state.keys import ED25519, ML_DSA_65, ML_DSA_87
from state.ledger.authorisation import acts_from_birth
from state.ledger.context import CORE_ERRORS, CORE_EVENTS
from state.ledger.fields import Values
from state.ledger.plugin import EventType, OperationType, Plugin, Query, Rules
from state.limits import EXTENSIONS_MAX, NAME_LENGTH_MAX
from state.transaction import Operation, Transaction
from state.types import Address

CORE_NAMESPACES: Final = ("account", "asset", "balance", "parameter", "validators")
SIGNATURE_UNITS: Final = {ED25519: 1, ML_DSA_65: 3, ML_DSA_87: 5}
TRANSACTION_UNITS_MAX: Final = 4096
_NAME: Final = re.compile(rf"[a-z][a-z0-9_]{{0,{NAME_LENGTH_MAX - 1}}}\Z")


class ParsedOperation(NamedTuple):
    """An operation with its rules found and its fields typed."""

    plugin: Plugin
    rules: Rules
    values: Values
    authorisers: tuple[Address, ...]


class Parsed(NamedTuple):
    """What a transaction says, as far as that depends on no state.

    `born[i]` tells whether its i-th authorisation is valid for an account without a stored policy.
    """

    operations: tuple[ParsedOperation, ...]
    units: int
    born: tuple[bool, ...]


class Registry:
    """Plug-ins in their order. `operations`, `events` and `queries` are by name."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        """Takes the plug-ins; raises InvariantError when two contradict each other."""
        self.plugins = tuple(plugins)
        self.operations: dict[str, OperationType] = {}
        self.events: dict[str, EventType] = {}
        self.queries: dict[str, tuple[Plugin, Query]] = {}
        self.errors: dict[str, str] = dict(CORE_ERRORS)
        self._rules: dict[tuple[str, int], tuple[Plugin, Rules]] = {}
        for event in CORE_EVENTS:
            self._enter(self.events, event.kind, event)
        namespaces: dict[str, str] = dict.fromkeys(CORE_NAMESPACES, "the ledger")
        names: dict[str, Plugin] = {}
        tags: dict[str, Plugin] = {}
        for plugin in self.plugins:
            self._enter(names, plugin.name, plugin)
            if plugin.namespace is not None:
                self._enter(namespaces, plugin.namespace, plugin.name)
            if plugin.extension is not None:
                self._enter(tags, plugin.extension.tag, plugin)
            self._add(plugin)
        if len(tags) > EXTENSIONS_MAX:
            raise InvariantError(f"at most {EXTENSIONS_MAX} plug-ins may extend accounts")
        self.block_begin = [(p, p.block_begin) for p in self.plugins if p.block_begin]
        self.evidence = [(p, p.evidence) for p in self.plugins if p.evidence]
        self.before_move = [(p, p.before_move) for p in self.plugins if p.before_move]
        self.transaction_end = [(p, p.transaction_end) for p in self.plugins if p.transaction_end]
        self.block_end = [(p, p.block_end) for p in self.plugins if p.block_end]
        self.block_invariant = [(p, p.block_invariant) for p in self.plugins if p.block_invariant]

    def _add(self, plugin: Plugin) -> None:
        for operation in plugin.operations:
            self._enter(self.operations, operation.kind, operation)
            for version, rules in operation.versions.items():
                self._rules[operation.kind, version] = (plugin, rules)
        for event in plugin.events:
            self._enter(self.events, event.kind, event)
        for query in plugin.queries:
            self._enter(self.queries, f"{plugin.name}_{query.name}", (plugin, query))
        for code, meaning in plugin.errors.items():
            if not _NAME.match(code):
                raise InvariantError(f"error code {code!r} is not snake_case")
            self.errors.setdefault(code, meaning)

    @staticmethod
    def _enter(table: dict[str, Any], name: str, value: Any) -> None:
        if not _NAME.match(name):
            raise InvariantError(f"{name!r} is not a snake_case name of at most {NAME_LENGTH_MAX} characters")
        if name in table:
            raise InvariantError(f"{name!r} is declared twice")
        table[name] = value

    def rules_of(self, kind: str, version: int) -> tuple[Plugin, Rules]:
        """Returns the plug-in and rules of an operation; raises Rejected("operation_unknown")."""
        entry = self._rules.get((kind, version))
        if entry is None:
            known = self.operations.get(kind)
            if known is None:
                names = ", ".join(self.operations)
                raise Rejected("operation_unknown", f"operation {kind!r} is unknown; known: {names}")
            versions = ", ".join(map(str, sorted(known.versions)))
            raise Rejected("operation_unknown", f"operation {kind!r} has no version {version}; known: {versions}")
        return entry

    def parse(self, tx: Transaction) -> Parsed:
        """Returns the transaction's operations typed and checked, once: the result is kept in `tx.parsed`.

        Raises Rejected for an unknown operation, malformed fields, or a weight beyond TRANSACTION_UNITS_MAX.
        """
        parsed: Parsed | None = tx.parsed
        if parsed is None:
            operations = tuple([self._parse_operation(tx.sender, operation) for operation in tx.operations])
            units = sum([operation.rules.units(operation.values) for operation in operations])
            for authorisation in tx.authorisations:
                for key, _ in authorisation.signatures:
                    units += SIGNATURE_UNITS[key.scheme]
            if units > TRANSACTION_UNITS_MAX:
                raise Rejected(
                    "transaction_too_heavy",
                    f"a transaction weighs at most {TRANSACTION_UNITS_MAX} units, this one {units}: split it",
                )
            parsed = tx.parsed = Parsed(operations, units, tuple([acts_from_birth(a) for a in tx.authorisations]))
        return parsed

    def _parse_operation(self, sender: Address, operation: Operation) -> ParsedOperation:
        plugin, rules = self.rules_of(operation.kind, operation.version)
        values = rules.fields.decode(operation.fields, operation.kind)
        rules.check(values)
        return ParsedOperation(plugin, rules, values, rules.authorisers(sender, values))
