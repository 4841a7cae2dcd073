"""The decoded state of one block in the making, over the committed state that it began from.

Nothing here reaches the database or a cache: an overlay is encoded once, at the block's end, and then committed by
others or dropped. Accounts are copied when they are first opened for writing, once for each block; within a
transaction each change is entered into a journal of (mapping, key, what was there), so that a failure is undone
backwards without copies.

The only code that changes a balance is state/ledger/context.py, through `add`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, Protocol

from state.errors import InvariantError
from state.ledger.account import (
    NO_BALANCE,
    Account,
    Balance,
    account_key,
    balance_key,
    decode_balance,
    encode_balance,
)
from state.ledger.asset import Asset, asset_key
from state.limits import INLINE_BALANCES_MAX
from state.slices import Slices

ACCOUNTS_CACHED_DEFAULT: Final = 50_000
"""About 600 bytes each."""

_SLICE_RECORDS: Final = 256
_ABSENT: Final = object()

Changes = dict[bytes, bytes | None]
"""State key -> its new value, None where the record goes."""


class StateReader(Protocol):
    """Where committed records come from: the newest state, or the state at some height."""

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key, or None."""


class AccountCache:
    """Decoded accounts of the newest committed state over its reader, the least recently used dropped first.

    It is itself a reader, so that whoever reads the newest state can use it. It takes what was committed
    (`replace`) and what it read itself, never what an overlay holds; its accounts are shared and never changed.
    """

    __slots__ = ("_accounts", "_reader", "accounts_max")

    def __init__(self, reader: StateReader, accounts_max: int = ACCOUNTS_CACHED_DEFAULT) -> None:
        self._reader = reader
        self._accounts: OrderedDict[bytes, Account] = OrderedDict()
        self.accounts_max = accounts_max

    def __len__(self) -> int:
        return len(self._accounts)

    def get(self, state_key: bytes, /) -> bytes | None:
        """Returns the value under a state key, uncached."""
        return self._reader.get(state_key)

    def account(self, address: bytes) -> Account | None:
        """Returns the account as it is committed, or None; it must not be changed."""
        accounts = self._accounts
        account = accounts.get(address)
        if account is not None:
            accounts.move_to_end(address)
            return account
        data = self._reader.get(account_key(address))
        if data is None:
            return None
        account = Account.decode(data)
        if self.accounts_max:
            accounts[address] = account
            if len(accounts) > self.accounts_max:
                accounts.popitem(last=False)
        return account

    def replace(self, accounts: dict[bytes, Account | None]) -> None:
        """Takes the accounts that a block changed, once the block is committed; None where a record went."""
        held = self._accounts
        for address, account in accounts.items():
            if account is None:
                held.pop(address, None)
            else:
                held[address] = account
                held.move_to_end(address)
        while len(held) > self.accounts_max:
            held.popitem(last=False)

    def clear(self) -> None:
        """Forgets all accounts, as when the committed state was changed by other means."""
        self._accounts.clear()


def read_account(reader: StateReader, address: bytes) -> Account | None:
    """Returns the account at `address`, or None where there is none. It may be shared: it must not be changed."""
    if isinstance(reader, AccountCache):
        return reader.account(address)
    data = reader.get(account_key(address))
    return None if data is None else Account.decode(data)


def read_asset(reader: StateReader, code: str) -> Asset | None:
    """Returns the asset with this code, or None."""
    data = reader.get(asset_key(code))
    return None if data is None else Asset.decode(data)


def read_balance(reader: StateReader, address: bytes, code: str) -> Balance:
    """Returns what `address` has of an asset as (available, held), wherever it stands."""
    account = read_account(reader, address)
    if account is None:
        return NO_BALANCE
    if account.balances is not None:
        return account.balances.get(code, NO_BALANCE)
    data = reader.get(balance_key(address, code))
    return NO_BALANCE if data is None else decode_balance(data)


class Overlay:
    """Accounts, balances of their own leaves, assets and plug-ins' records, as they stand within one block.

    `accounts` are working copies of those that were opened, `before` what they were in the committed state.
    """

    __slots__ = ("accounts", "assets", "balances", "before", "journal", "reader", "records")

    def __init__(self, reader: StateReader) -> None:
        self.reader = reader
        self.accounts: dict[bytes, Account] = {}
        self.before: dict[bytes, Account | None] = {}
        self.balances: dict[tuple[bytes, str], Balance] = {}
        self.assets: dict[str, Asset] = {}
        self.records: Changes = {}
        self.journal: list[tuple[dict[Any, Any], Any, Any]] = []

    def open(self, address: bytes) -> Account:
        """Returns the working copy of an account, made on first use; one that does not exist begins empty."""
        account = self.accounts.get(address)
        if account is None:
            before = self.before[address] = read_account(self.reader, address)
            account = self.accounts[address] = Account(balances={}) if before is None else before.copy()
        return account

    def peek(self, address: bytes) -> Account | None:
        """Returns an account as it is within the block, to be read only; None where there is none."""
        account = self.accounts.get(address)
        return read_account(self.reader, address) if account is None else account

    def replace_account(self, address: bytes, account: Account) -> None:
        """Puts another object in the place of a working copy, so that the change can be undone."""
        self.journal.append((self.accounts, address, self.open(address)))
        self.accounts[address] = account

    def balance(self, address: bytes, code: str) -> Balance:
        """Returns (available, held)."""
        account = self.peek(address)
        if account is None:
            return NO_BALANCE
        if account.balances is not None:
            return account.balances.get(code, NO_BALANCE)
        return self._leaf_balance(address, code)

    def _leaf_balance(self, address: bytes, code: str) -> Balance:
        balance = self.balances.get((address, code))
        if balance is None:
            data = self.reader.get(balance_key(address, code))
            balance = NO_BALANCE if data is None else decode_balance(data)
        return balance

    def add(self, address: bytes, code: str, free: int, held: int) -> bool:
        """Adds to what an account has available and held, and returns True; returns False if it has too little.

        The 33rd balance of an account moves all of them to leaves of their own.
        """
        account = self.accounts.get(address) or self.open(address)
        balances = account.balances
        if balances is not None:
            old = balances.get(code)
            if old is not None:
                free_now, held_now = old
                free += free_now
                held += held_now
                if free < 0 or held < 0:
                    return False
                self.journal.append((balances, code, old))
                if free or held:
                    balances[code] = (free, held)
                else:
                    del balances[code]
                return True
            if free < 0 or held < 0:
                return False
            if len(balances) < INLINE_BALANCES_MAX:
                self.journal.append((balances, code, _ABSENT))
                balances[code] = (free, held)
                return True
            self._move_out(address, account, balances)
        free_now, held_now = self._leaf_balance(address, code)
        if free + free_now < 0 or held + held_now < 0:
            return False
        self._set_leaf(address, code, (free + free_now, held + held_now))
        return True

    def _set_leaf(self, address: bytes, code: str, balance: Balance) -> None:
        key = (address, code)
        self.journal.append((self.balances, key, self.balances.get(key, _ABSENT)))
        self.balances[key] = balance

    def _move_out(self, address: bytes, account: Account, balances: dict[str, Balance]) -> None:
        self.replace_account(address, Account(account.lanes, account.policy, None, account.extensions))
        for code, balance in balances.items():
            self._set_leaf(address, code, balance)

    def asset(self, code: str) -> Asset | None:
        """Returns the asset with this code, or None."""
        asset = self.assets.get(code)
        return read_asset(self.reader, code) if asset is None else asset

    def set_asset(self, asset: Asset) -> None:
        """Puts the record of an asset."""
        self.journal.append((self.assets, asset.code, self.assets.get(asset.code, _ABSENT)))
        self.assets[asset.code] = asset

    def record(self, state_key: bytes) -> bytes | None:
        """Returns a plug-in's record or a parameter."""
        if state_key in self.records:
            return self.records[state_key]
        return self.reader.get(state_key)

    def set_record(self, state_key: bytes, value: bytes | None) -> None:
        """Puts a plug-in's record; None removes it."""
        self.journal.append((self.records, state_key, self.records.get(state_key, _ABSENT)))
        self.records[state_key] = value

    def undo(self) -> None:
        """Takes back all changes since the journal was last cleared."""
        for mapping, key, old in reversed(self.journal):
            if old is _ABSENT:
                mapping.pop(key, None)
            else:
                mapping[key] = old
        self.journal.clear()

    def leaves_before(self) -> Iterator[tuple[tuple[bytes, str], Balance, Balance]]:
        """Yields (address, asset), committed and present balance of each leaf balance that was set."""
        for (address, code), balance in self.balances.items():
            data = self.reader.get(balance_key(address, code))
            yield (address, code), NO_BALANCE if data is None else decode_balance(data), balance

    def assets_before(self) -> Iterator[tuple[Asset | None, Asset]]:
        """Yields the committed (None: it is new) and the present record of each asset that was set."""
        for code, asset in self.assets.items():
            yield read_asset(self.reader, code), asset

    def finish(self) -> Slices[tuple[Changes, dict[bytes, Account | None]]]:
        """Encodes everything that differs from the committed state: (changes, changed accounts decoded)."""
        changes: Changes = {}
        accounts: dict[bytes, Account | None] = {}
        before = self.before
        for count, (address, account) in enumerate(self.accounts.items(), 1):
            old = before[address]
            if account.is_empty():
                if old is not None:
                    changes[account_key(address)] = accounts[address] = None
            elif old is None or account.lanes != old.lanes or account != old:
                changes[account_key(address)] = account.encode()
                accounts[address] = account
            if count % _SLICE_RECORDS == 0:
                yield
        for key, committed, balance in self.leaves_before():
            if balance != committed:
                changes[balance_key(*key)] = None if balance == NO_BALANCE else encode_balance(balance)
        for code, asset in self.assets.items():
            changes[asset_key(code)] = asset.encode()
        yield
        for state_key, value in self.records.items():
            if state_key in changes:
                raise InvariantError(f"state key {state_key.hex()} was written in two ways")
            if value != self.reader.get(state_key):
                changes[state_key] = value
        return changes, accounts
