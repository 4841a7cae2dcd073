"""The clients of a workload: each transfers, reads and looks at heads, and notes all that it asked and was told.

Theory of operation. A writer owns one bank account and one register, so it alone gives its account's sequence numbers,
and has one transfer under way at a time. It sends the same bytes to one node after the other until one says that they
are final or expired: then it is the network's fault if they are not. A reader asks one node for proved balances and for
its head. Nobody here judges an answer, except that a proof is checked before it is believed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from devnet.workload.history import History, Lie, Outcome, Read, Seen, Transfer
from qenex_node.client import reads
from qenex_node.client.concurrent import AsyncClient
from qenex_node.client.errors import ClientError, Expired, RpcError, TransportError, VerificationFailed
from qenex_node.client.retry import Retry
from qenex_node.client.session import Session
from qenex_node.client.verify import TrustedChain
from qenex_node.testnet import NATIVE, bulk_key
from state.address import to_text
from state.codec import encode, encode_amount
from state.errors import Rejected
from state.genesis import Genesis
from state.keys import SigningKey
from state.ledger.account import Account, account_key
from state.transaction import Operation, body_value, signing_bytes, transaction_id
from state.types import Address

ANSWER_SECONDS: Final = 2.0
WAIT_MS: Final = 2_000
PAUSE_SECONDS: Final = 0.05
READ_SECONDS: Final = 0.15
VALID_MS: Final = 60_000
AMOUNT_MAX: Final = 1_000
OVERDRAFT: Final = 10**15
OVERDRAFT_SHARE: Final = 0.03
REGISTER_SHARE: Final = 0.4
READ_BACK_SHARE: Final = 0.5
_ONCE: Final = Retry(attempts=1)


@dataclass(frozen=True, slots=True)
class Place:
    """Whom the clients talk to, and about what."""

    urls: Mapping[str, str]
    genesis: Genesis
    seed: str
    banks: int

    def key(self, account: int) -> SigningKey:
        """Returns an account's key."""
        return bulk_key(self.seed, account)


@dataclass(slots=True)
class Progress:
    """What all clients share: the history, whether they are to stop, and how many transfers were acknowledged."""

    history: History
    stopping: bool = False
    committed: int = 0


class Writer:
    """One bank account's owner, who also owns register `banks + number`."""

    def __init__(self, place: Place, progress: Progress, number: int, sequence: int, chance: random.Random) -> None:
        """Takes the account's number and the next sequence of its lane 0."""
        self._place = place
        self._progress = progress
        self._number = number
        self._sequence = sequence
        self._chance = chance
        self._key = place.key(number)
        self._addresses: list[Address] = [place.key(account).address for account in range(2 * place.banks)]
        self._clients = [
            (name, AsyncClient(url, timeout_s=ANSWER_SECONDS, retry=_ONCE)) for name, url in place.urls.items()
        ]
        chance.shuffle(self._clients)

    async def run(self, interval_s: float) -> None:
        """Transfers about each `interval_s` until it is to stop and nothing is under way."""
        await trio.sleep(self._chance.uniform(0, interval_s))
        while not self._progress.stopping:
            began = trio.current_time()
            await self._transfer()
            await trio.sleep_until(began + interval_s * self._chance.uniform(0.5, 1.5))
        for _, client in self._clients:
            await client.aclose()

    def _wish(self) -> tuple[int, int]:
        """Returns whom to pay, and how much."""
        chance, banks = self._chance, self._place.banks
        if chance.random() < REGISTER_SHARE:
            return banks + self._number, 1
        payee = (self._number + chance.randrange(1, banks)) % banks
        return payee, OVERDRAFT if chance.random() < OVERDRAFT_SHARE else chance.randint(1, AMOUNT_MAX)

    async def _transfer(self) -> None:
        payee, amount = self._wish()
        tx_id, wire = self._signed(payee, amount)
        transfer = Transfer(tx_id, self._number, payee, amount, time.monotonic())
        self._progress.history.transfers.append(transfer)
        turn = self._chance.randrange(len(self._clients))
        while transfer.outcome is Outcome.UNKNOWN:
            name, client = self._clients[turn % len(self._clients)]
            turn += 1
            await self._send(name, client, transfer, wire)
        if transfer.outcome is Outcome.COMMITTED:
            self._sequence += 1
            self._progress.committed += 1
            if payee >= self._place.banks and self._chance.random() < READ_BACK_SHARE:
                await self._read_back(transfer.node, payee)

    def _signed(self, payee: int, amount: int) -> tuple[str, str]:
        context, address = self._place.genesis.context, self._key.address
        operation = Operation("transfer", 1, (None, NATIVE, ((self._addresses[payee], encode_amount(amount)),)))
        not_after_ms = time.time_ns() // 1_000_000 + VALID_MS
        body = body_value(context, address, 0, self._sequence, not_after_ms, (operation,))
        message = signing_bytes(context, body)
        authorisation = (address, None, ((self._key.public.to_value(), self._key.sign(message)),))
        return "0x" + transaction_id(message).hex(), "0x" + encode((body, (authorisation,))).hex()

    async def _send(self, name: str, client: AsyncClient, transfer: Transfer, wire: str) -> None:
        try:
            with trio.fail_after(2 * ANSWER_SECONDS):
                answer: Any = await client.call(
                    "qenex_sendTransaction", transaction=wire, wait="committed", timeout_ms=WAIT_MS
                )
        except Expired:
            transfer.outcome, transfer.answered, transfer.node = Outcome.EXPIRED, time.monotonic(), name
            return
        except (ClientError, trio.TooSlowError) as error:
            transfer.refusal = f"{name}: {type(error).__name__}: {error}"
            await trio.sleep(PAUSE_SECONDS)
            return
        transfer.answered = time.monotonic()
        transfer.node, transfer.height, transfer.index = name, answer["height"], answer["index"]
        transfer.code = answer["receipt"]["code"]
        transfer.outcome = Outcome.COMMITTED

    async def _read_back(self, name: str, register: int) -> None:
        """Reads its register from the node that acknowledged the write: it must be seen there."""
        client = dict(self._clients)[name]
        invoked = time.monotonic()
        try:
            with trio.fail_after(ANSWER_SECONDS):
                answer: Any = await client.call(
                    "qenex_getBalance", address=to_text(self._addresses[register]), asset=NATIVE
                )
        except (ClientError, trio.TooSlowError):
            return
        read = Read(name, register, int(answer["available"]), answer["height"], invoked, time.monotonic())
        self._progress.history.reads.append(read)


class Reader:
    """Reads one node, and believes only what is proved."""

    def __init__(self, place: Place, progress: Progress, name: str, chance: random.Random) -> None:
        """Takes the node's name."""
        self._place = place
        self._progress = progress
        self._name = name
        self._chance = chance
        session = Session(trusted=TrustedChain(place.genesis))
        self._client = AsyncClient(place.urls[name], session=session, timeout_s=ANSWER_SECONDS, retry=_ONCE)
        self._addresses = [place.key(account).address for account in range(2 * place.banks)]

    async def run(self) -> None:
        """Reads until it is to stop."""
        while not self._progress.stopping:
            try:
                with trio.fail_after(2 * ANSWER_SECONDS):
                    await self._read()
            except VerificationFailed as lie:
                self._progress.history.lies.append(Lie(self._name, time.monotonic(), str(lie)))
            except (TransportError, RpcError, trio.TooSlowError):
                pass
            except Rejected as error:
                # Block 0 is nobody's, so nothing can be proved before the first block.
                if error.code != "proof_unavailable":
                    raise
            await trio.sleep(READ_SECONDS * self._chance.uniform(0.5, 1.5))
        await self._client.aclose()

    async def _read(self) -> None:
        client, history = self._client, self._progress.history
        invoked = time.monotonic()
        status: Any = await client.call("qenex_status")
        head = status["head"]
        history.heads.append(Seen(self._name, head["height"], head["hash"], invoked, time.monotonic()))
        account = self._chance.randrange(len(self._addresses))
        invoked = time.monotonic()
        flow = reads.prove(client.session, account_key(self._addresses[account]))
        value, header = await client.run(flow)
        balance = 0
        if value is not None:
            balances = Account.decode(value).balances or {}
            balance = balances.get(NATIVE, (0, 0))[0]
        proved = Read(self._name, account, balance, header.height, invoked, time.monotonic(), "0x" + header.hash.hex())
        history.reads.append(proved)


async def run_clients(
    place: Place,
    progress: Progress,
    sequences: Sequence[int],
    rate: float,
    seed: int,
    started: Callable[[], None],
) -> None:
    """Runs all clients until `progress.stopping`, and what is under way is settled."""
    async with trio.open_nursery() as nursery:
        for number, sequence in enumerate(sequences):
            writer = Writer(place, progress, number, sequence, random.Random(f"{seed} writer {number}"))
            nursery.start_soon(writer.run, len(sequences) / rate)
        for name in place.urls:
            nursery.start_soon(Reader(place, progress, name, random.Random(f"{seed} reader {name}")).run)
        started()
