"""The only door from a domain's rules to the state: balances, assets, policies, records, parameters and events.

`move`, `hold`, `release`, `mint` and `burn` are the only code that changes a balance. Each takes a positive amount and
either happens whole or raises OperationFailed, upon which the whole transaction is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

from state.codec import AMOUNT_LIMIT, decode, encode, encode_amount
from state.errors import InvariantError
from state.keys import Policy
from state.ledger.account import Account, Balance
from state.ledger.asset import Asset
from state.ledger.fields import ADDRESS, AMOUNT, ASSET_CODE, Values, record
from state.ledger.overlay import Overlay
from state.ledger.plugin import EventType, OperationFailed, Plugin
from state.ledger.receipt import Event
from state.ledger.validators import VALIDATORS_KEY, Rule, changed_rule_pairs, decode_rule
from state.limits import EVENTS_MAX, EXTENSION_BYTES_MAX, EXTENSIONS_MAX
from state.types import Address, Amount, AssetCode, Height, ValidatorSet

RECORD_BYTES_MAX: Final = 64 * 1024

CORE_ERRORS: Final = {
    "not_authorised": "an account that the operation needs did not authorise it, or lacks the role",
    "balance_insufficient": "the account has less of the asset available than is to leave it",
    "held_insufficient": "the account has less of the asset held than is to be released",
    "asset_unknown": "there is no asset with this code",
    "supply_overflow": "the supply of the asset would not fit 128 bits",
    "events_too_many": f"the transaction causes more than {EVENTS_MAX} events",
}

_MOVEMENT: Final = (
    ("asset", ASSET_CODE, "the asset"),
    ("amount", AMOUNT, "how much, in base units"),
)
CORE_EVENTS: Final = (
    EventType(
        "moved",
        "an amount went from one account to another",
        record(("source", ADDRESS, "the account debited"), ("target", ADDRESS, "the account credited"), *_MOVEMENT),
    ),
    EventType("minted", "an amount was created", record(("target", ADDRESS, "the account credited"), *_MOVEMENT)),
    EventType("burned", "an amount was destroyed", record(("source", ADDRESS, "the account debited"), *_MOVEMENT)),
    EventType("held", "an available amount was set aside", record(("account", ADDRESS, "whose it is"), *_MOVEMENT)),
    EventType("released", "a held amount is available again", record(("account", ADDRESS, "whose it is"), *_MOVEMENT)),
)

Mover = Callable[["Context", Address | None, Address | None, str, int], None]


class Context:
    """What the rules of one operation, or one hook, may see and do. One object serves a whole block.

    `height` and `time_ms` are those of the block; `sender` is who sent the transaction.
    """

    __slots__ = (
        "_authorised",
        "_event_types",
        "_events",
        "_movers",
        "_overlay",
        "_plugin",
        "_rule",
        "_touched",
        "height",
        "sender",
        "time_ms",
    )

    def __init__(
        self,
        overlay: Overlay,
        height: int,
        time_ms: int,
        event_types: Mapping[str, EventType],
        movers: Iterable[tuple[Plugin, Mover]],
    ) -> None:
        self.height = height
        self.time_ms = time_ms
        self.sender = Address(b"")
        self._overlay = overlay
        self._event_types = event_types
        self._movers = tuple(movers)
        self._plugin: Plugin | None = None
        self._authorised: tuple[Address, ...] = ()
        self._events: list[Event] | None = None
        self._touched: dict[Address, None] = {}
        self._rule: Rule | None = None

    # For whoever runs the block, not for rules.

    def begin_transaction(self, sender: Address, authorised: tuple[Address, ...]) -> None:
        """Sets whose transaction it is and which accounts have authorised it."""
        self.sender = sender
        self._authorised = authorised
        self._events = []
        self._touched = {}

    def end_transaction(self) -> tuple[tuple[Event, ...], Iterable[Address]]:
        """Returns the transaction's events and the accounts that it touched."""
        events, self._events = self._events or [], None
        return tuple(events), self._touched

    def enter(self, plugin: Plugin) -> None:
        """Names the plug-in whose rules come next: its namespace, extension and codes are in force."""
        self._plugin = plugin

    @property
    def plugin(self) -> Plugin:
        """The plug-in whose rules are running."""
        if self._plugin is None:
            raise InvariantError("no plug-in is running")
        return self._plugin

    # Authority

    def authorised(self, address: Address) -> bool:
        """Returns whether this account has authorised the transaction, judged by the state at its start."""
        return address in self._authorised

    @property
    def authorisers(self) -> tuple[Address, ...]:
        """The accounts that have authorised the transaction; the sender comes first."""
        return self._authorised

    def require(self, address: Address) -> None:
        """Fails the transaction with not_authorised unless this account has authorised it."""
        if address not in self._authorised:
            raise OperationFailed("not_authorised", "an account that must authorise the operation did not")

    def fail(self, code: str, message: str) -> NoReturn:
        """Fails the transaction; `code` must be declared by the plug-in that is running, or by the ledger itself."""
        if code not in CORE_ERRORS and code not in self.plugin.errors:
            raise InvariantError(f"plug-in {self.plugin.name} fails with {code!r}, a code that it does not declare")
        raise OperationFailed(code, message)

    # Balances

    def move(self, source: Address, target: Address, asset: str, amount: int) -> None:
        """Moves an available amount from one account to another."""
        if self._movers:
            self._before_move(source, target, asset, amount)
        if amount <= 0:
            raise InvariantError(f"an amount of {amount} was to be moved")
        overlay, touched = self._overlay, self._touched
        if not overlay.add(source, asset, -amount, 0):
            self._fail_for_balance(source, asset, amount)
        overlay.add(target, asset, amount, 0)
        touched[source] = touched[target] = None
        self._record_event(Event("moved", (source, target, asset, encode_amount(amount))))

    def hold(self, address: Address, asset: str, amount: int) -> None:
        """Sets an available amount aside: it stays the account's, but cannot leave it until released."""
        _require_positive(amount)
        if not self._overlay.add(address, asset, -amount, amount):
            self._fail_for_balance(address, asset, amount)
        self._touched[address] = None
        self._record_event(Event("held", (address, asset, encode_amount(amount))))

    def release(self, address: Address, asset: str, amount: int) -> None:
        """Makes a held amount available again."""
        _require_positive(amount)
        if not self._overlay.add(address, asset, amount, -amount):
            held = self._overlay.balance(address, asset)[1]
            self.fail("held_insufficient", f"{held} {asset} are held, {amount} were to be released")
        self._touched[address] = None
        self._record_event(Event("released", (address, asset, encode_amount(amount))))

    def mint(self, target: Address, asset: str, amount: int) -> None:
        """Creates an amount: the supply grows, and the target has it available."""
        if self._movers:
            self._before_move(None, target, asset, amount)
        _require_positive(amount)
        minted = self.asset(asset)
        if minted.supply + amount >= AMOUNT_LIMIT:
            self.fail("supply_overflow", f"the supply of {asset} would not fit 128 bits")
        self._overlay.set_asset(minted.with_supply(minted.supply + amount))
        self._overlay.add(target, asset, amount, 0)
        self._touched[target] = None
        self._record_event(Event("minted", (target, asset, encode_amount(amount))))

    def burn(self, source: Address, asset: str, amount: int) -> None:
        """Destroys an available amount: the supply shrinks."""
        if self._movers:
            self._before_move(source, None, asset, amount)
        _require_positive(amount)
        burned = self.asset(asset)
        if not self._overlay.add(source, asset, -amount, 0):
            self._fail_for_balance(source, asset, amount)
        self._overlay.set_asset(burned.with_supply(burned.supply - amount))
        self._touched[source] = None
        self._record_event(Event("burned", (source, asset, encode_amount(amount))))

    def charge_fee(self, payer: Address, pool: Address, asset: str, fee: int) -> None:
        """Moves a fee, for whoever runs the block: no hook may refuse it, and a failure does not undo it."""
        if not self._overlay.add(payer, asset, -fee, 0):
            raise InvariantError("a fee was charged without a look at whether it can be paid")
        self._overlay.add(pool, asset, fee, 0)

    def _fail_for_balance(self, source: Address, asset: str, amount: int) -> NoReturn:
        free = self._overlay.balance(source, asset)[0]
        raise OperationFailed("balance_insufficient", f"{free} {asset} are available, {amount} were to leave")

    def _before_move(self, source: Address | None, target: Address | None, asset: str, amount: int) -> None:
        running = self._plugin
        for plugin, hook in self._movers:
            self._plugin = plugin
            hook(self, source, target, asset, amount)
        self._plugin = running

    def balance(self, address: Address, asset: str) -> Balance:
        """Returns (available, held) of an account."""
        return self._overlay.balance(address, asset)

    # Assets and accounts

    def asset(self, code: str) -> Asset:
        """Returns the asset with this code; fails with asset_unknown."""
        asset = self._overlay.asset(code)
        if asset is None:
            self.fail("asset_unknown", f"there is no asset {code}")
        return asset

    def asset_exists(self, code: str) -> bool:
        """Returns whether there is an asset with this code."""
        return self._overlay.asset(code) is not None

    def create_asset(self, code: AssetCode, decimals: int, issuer: Address, flags: int) -> None:
        """Makes a new asset, of which nothing exists yet."""
        if self._overlay.asset(code) is not None:
            raise InvariantError(f"asset {code} was to be made a second time")
        self._overlay.set_asset(Asset(code, decimals, issuer, flags, Amount(0)))

    def policy(self, address: Address) -> Policy | None:
        """Returns the stored policy of an account, None while it is the one that its address is the hash of."""
        account = self._overlay.peek(address)
        return None if account is None else account.policy

    def set_policy(self, address: Address, policy: Policy) -> None:
        """Stores who may act for an account from the next transaction on."""
        account = self._overlay.open(address)
        self._overlay.replace_account(
            address, Account(account.lanes, policy, _copied(account.balances), account.extensions)
        )
        self._touched[address] = None

    def extension(self, address: Address) -> Values | None:
        """Returns what the running plug-in keeps in an account, or None."""
        plugin = self.plugin
        if plugin.extension is None:
            raise InvariantError(f"plug-in {plugin.name} declares no account extension")
        account = self._overlay.peek(address)
        for tag, data in account.extensions if account is not None else ():
            if tag == plugin.extension.tag:
                return plugin.extension.fields.decode(decode(data, bytes_max=EXTENSION_BYTES_MAX), tag)
        return None

    def set_extension(self, address: Address, values: Values | None) -> None:
        """Puts what the running plug-in keeps in an account; None removes it."""
        plugin = self.plugin
        if plugin.extension is None:
            raise InvariantError(f"plug-in {plugin.name} declares no account extension")
        account = self._overlay.open(address)
        kept = dict(account.extensions)
        kept.pop(plugin.extension.tag, None)
        if values is not None:
            data = encode(plugin.extension.fields.encode(values))
            if len(data) > EXTENSION_BYTES_MAX or len(kept) >= EXTENSIONS_MAX:
                raise InvariantError(f"the account extension of plug-in {plugin.name} is beyond its bound")
            kept[plugin.extension.tag] = data
        extensions = tuple(sorted(kept.items()))
        self._overlay.replace_account(
            address, Account(account.lanes, account.policy, _copied(account.balances), extensions)
        )
        self._touched[address] = None

    # Validators

    @property
    def validators(self) -> ValidatorSet:
        """The set in force at this height; after a change by this block, the one in force at the next."""
        return self._validator_rule().validators

    def change_validators(self, validators: ValidatorSet) -> None:
        """Puts another set in force from the next height on. Once in a block, and only at its end: in the block the
        set is one."""
        rule = self._validator_rule()
        if self._events is not None or rule.first > self.height or validators.hash == rule.validators.hash:
            raise InvariantError("a validator set is changed once, at the end of a block, and to another one")
        self._rule = Rule(Height(self.height + 1), validators)
        for state_key, value in changed_rule_pairs(self._rule, rule.first):
            self._overlay.set_record(state_key, value)

    def _validator_rule(self) -> Rule:
        if self._rule is None:
            data = self._overlay.record(VALIDATORS_KEY)
            if data is None:
                raise InvariantError("the state holds no validator set")
            self._rule = decode_rule(data)
        return self._rule

    # Records, parameters, events

    def get(self, *key: Any) -> Any:
        """Returns the canonical value under `key` in the running plug-in's namespace, or None."""
        data = self._overlay.record(self._key(key))
        return None if data is None else decode(data, bytes_max=RECORD_BYTES_MAX)

    def put(self, *key: Any, value: Any) -> None:
        """Puts a canonical value under `key` in the running plug-in's namespace; None removes the record."""
        data = None if value is None else encode(value)
        if data is not None and len(data) > RECORD_BYTES_MAX:
            raise InvariantError(f"plug-in {self.plugin.name} puts a record of {len(data)} bytes")
        self._overlay.set_record(self._key(key), data)

    def _key(self, key: tuple[Any, ...]) -> bytes:
        if self.plugin.namespace is None:
            raise InvariantError(f"plug-in {self.plugin.name} declares no namespace")
        return encode((self.plugin.namespace, *key))

    def parameter(self, name: str) -> Any:
        """Returns a chain parameter; parameters are state."""
        data = self._overlay.record(parameter_key(name))
        if data is None:
            raise InvariantError(f"there is no chain parameter {name}")
        return decode(data, bytes_max=RECORD_BYTES_MAX)

    def emit(self, kind: str, *values: Any) -> None:
        """Adds an event with these field values to the receipt."""
        event_type = self._event_types.get(kind)
        if event_type is None:
            raise InvariantError(f"plug-in {self.plugin.name} emits {kind!r}, an event that nobody declares")
        self._record_event(Event(kind, event_type.fields.encode(values)))

    def touch(self, address: Address) -> None:
        """Counts the transaction among those of this account."""
        self._touched[address] = None

    def _record_event(self, event: Event) -> None:
        events = self._events
        if events is None:
            raise InvariantError("events belong to a transaction, and none is running")
        if len(events) >= EVENTS_MAX:
            raise OperationFailed("events_too_many", CORE_ERRORS["events_too_many"])
        events.append(event)


class BlockView:
    """What a block has changed, for the invariants of the whole: each record as it was before, and as it is now."""

    __slots__ = ("_overlay", "height", "time_ms")

    def __init__(self, overlay: Overlay, height: int, time_ms: int) -> None:
        self._overlay = overlay
        self.height = height
        self.time_ms = time_ms

    def accounts(self) -> Iterator[tuple[bytes, Account | None, Account]]:
        """Yields address, account before (None: no record) and account now, of all that were opened."""
        before = self._overlay.before
        for address, account in self._overlay.accounts.items():
            yield address, before[address], account

    def balances(self) -> Iterator[tuple[tuple[bytes, str], Balance, Balance]]:
        """Yields (address, asset), balance before and now, of balances in leaves of their own that were set."""
        return self._overlay.leaves_before()

    def assets(self) -> Iterator[tuple[Asset | None, Asset]]:
        """Yields asset before (None: it is new) and now, of all that were changed."""
        return self._overlay.assets_before()

    def record(self, state_key: bytes) -> bytes | None:
        """Returns a plug-in's record, a parameter or a record of validators as it is now."""
        return self._overlay.record(state_key)

    def records(self) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
        """Yields state key, value before and value now, of plug-ins' records that were put."""
        for state_key, value in self._overlay.records.items():
            yield state_key, self._overlay.reader.get(state_key), value


def parameter_key(name: str) -> bytes:
    """Returns the state key of a chain parameter: ["parameter", name]."""
    return encode(("parameter", name))


def _require_positive(amount: int) -> None:
    if amount <= 0:
        raise InvariantError(f"an amount of {amount} was to change a balance")


def _copied(balances: dict[str, Balance] | None) -> dict[str, Balance] | None:
    return None if balances is None else balances.copy()
