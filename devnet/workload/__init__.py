"""A register-and-bank workload beside whatever a test breaks, with a recorded history and its verdict.

    with Workload(net) as work:
        net.kill("validator-01")
        ...
        verdict = work.verdict()
    assert verdict.ok, verdict

The clients (clients.py) run in a thread of their own; what they note (history.py) is judged by check.py once all is
over. The network must be nobody else's meanwhile, and have at least `2 * writers` bulk accounts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import trio

from devnet.network import Devnet
from devnet.workload.check import Verdict, check
from devnet.workload.clients import Place, Progress, run_clients
from devnet.workload.history import Block, Chain, History
from qenex_node.client.jsonrpc import Call
from qenex_node.testnet import NATIVE
from state.address import to_text
from state.errors import InvariantError, Rejected

__all__ = ["Verdict", "Workload"]

WRITERS: Final = 8
RATE: Final = 60.0
SETTLE_SECONDS: Final = 40.0
SAME_HEAD_SECONDS: Final = 40.0
_PER_REQUEST: Final = 100


class Workload:
    """One run of the workload against a devnet; see the module's docstring."""

    def __init__(self, net: Devnet, *, writers: int = WRITERS, rate: float = RATE, seed: int = 1) -> None:
        """Takes the network; `rate` transfers a second by all `writers` together."""
        if net.network.bulk_accounts < 2 * writers:
            raise Rejected("load_invalid", f"{writers} writers need {2 * writers} bulk accounts")
        self._net = net
        self._rate = rate
        self._seed = seed
        urls = {name: net.url(name) for name in net.names}
        self._place = Place(urls, net.genesis, net.network.seed, writers)
        self._addresses = [to_text(self._place.key(account).address) for account in range(2 * writers)]
        self.progress = Progress(History(writers))
        self._failure: BaseException | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Workload:
        self._base = max(self._net.heights().values())
        name = self._first()
        self._net.wait_height(self._base, [name])
        accounts = self._ask(
            name, [Call("qenex_getAccount", {"address": a, "height": self._base}) for a in self._addresses]
        )
        self._before = tuple(_available(account) for account in accounts)
        self._supply = self._supply_of(name, self._base)
        sequences = [account["lanes"][0] for account in accounts[: self._place.banks]]
        started = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(sequences, started.set), name="workload")
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stopping = True
        self._cancel()
        self._thread.join()

    def _work(self, sequences: list[int], started: Callable[[], None]) -> None:
        async def run() -> None:
            with trio.CancelScope() as self._scope:
                self._token = trio.lowlevel.current_trio_token()
                await run_clients(self._place, self.progress, sequences, self._rate, self._seed, started)

        try:
            trio.run(run)
        except BaseException as error:
            self._failure = error
        finally:
            started()
            self._ended.set()

    def _cancel(self) -> None:
        if not self._ended.is_set():
            try:
                self._token.run_sync_soon(self._scope.cancel)
            except trio.RunFinishedError:
                pass

    @property
    def committed(self) -> int:
        """How many transfers were acknowledged so far."""
        return self.progress.committed

    def wait_committed(self, more: int, timeout_s: float = 30.0) -> None:
        """Waits until so many further transfers are acknowledged; raises WaitedInVain."""
        wanted = self.committed + more
        self._net.wait_for(lambda: self.committed >= wanted, f"{more} further transfers are final", timeout_s)

    def stop(self, settle_s: float = SETTLE_SECONDS) -> History:
        """Lets the clients come to an end: what is under way is settled first, if that takes no longer."""
        self.progress.stopping = True
        self._ended.wait(settle_s)
        self._cancel()
        self._thread.join()
        if self._failure is not None:
            raise InvariantError("the workload itself failed") from self._failure
        return self.progress.history

    def verdict(self, settle_s: float = SETTLE_SECONDS) -> Verdict:
        """Stops, reads the chain from every node that runs, and returns what is wrong with the history."""
        history = self.stop(settle_s)
        return check(history, self.chain())

    def chain(self) -> Chain:
        """Returns the chain since the beginning, as all nodes that run have it; raises WaitedInVain."""
        net = self._net
        names = net.running
        head = net.wait_same_head(names, SAME_HEAD_SECONDS)["height"]
        heights = range(self._base + 1, head + 1)
        hashes = {name: self._hashes(name, heights) for name in names}
        first = names[0]
        blocks = [
            Block(height, block_hash, ids)
            for height, block_hash, ids in zip(heights, hashes[first], self._ids(first, heights), strict=True)
        ]
        after = {
            name: tuple(
                _available(account)
                for account in self._ask(
                    name, [Call("qenex_getAccount", {"address": a, "height": head}) for a in self._addresses]
                )
            )
            for name in names
        }
        supply = {name: self._supply_of(name, head) for name in names}
        return Chain(self._base, self._before, self._supply, tuple(blocks), hashes, after, supply)

    def _first(self) -> str:
        running = self._net.heights()
        if not running:
            raise Rejected("devnet_down", "no node answers")
        return max(running, key=lambda name: running[name])

    def _ask(self, name: str, calls: list[Call]) -> list[Any]:
        answers: list[Any] = []
        with self._net.client(name) as client:
            for start in range(0, len(calls), _PER_REQUEST):
                answers += client.batch(calls[start : start + _PER_REQUEST])
        wrong = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if wrong is not None:
            raise wrong
        return answers

    def _supply_of(self, name: str, height: int) -> int:
        (asset,) = self._ask(name, [Call("qenex_getAsset", {"asset": NATIVE, "height": height})])
        return int(asset["supply"])

    def _hashes(self, name: str, heights: range) -> tuple[str, ...]:
        starts = range(heights.start, heights.stop, _PER_REQUEST)
        pages = self._ask(
            name,
            [
                Call("qenex_getBlocks", {"from": start, "limit": min(_PER_REQUEST, heights.stop - start)})
                for start in starts
            ],
        )
        return tuple(header["hash"] for page in pages for header in page["headers"])

    def _ids(self, name: str, heights: range) -> list[tuple[str, ...]]:
        blocks = self._ask(name, [Call("qenex_getBlock", {"block": height, "verbosity": "ids"}) for height in heights])
        cut = next((block["header"]["height"] for block in blocks if block["next_offset"] is not None), None)
        if cut is not None:
            raise InvariantError(f"block {cut} has more transactions than one page: this workload is not that fast")
        return [tuple(block["transactions"]) for block in blocks]


def _available(account: Any) -> int:
    balance = (account["balances"] or {}).get(NATIVE)
    return 0 if balance is None else int(balance["available"])
