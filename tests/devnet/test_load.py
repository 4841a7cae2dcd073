"""The load generator's parts that need no node: statistics, bookkeeping, signing, audit."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
import trio
import trio.testing

from devnet.load.audit import Audit, Holding, expected_holdings
from devnet.load.book import Book, Fate
from devnet.load.latency import percentiles
from devnet.load.signing import AMOUNT, Signed, Signer, Terms, recipients, sign_ahead
from devnet.load.target import send_body
from devnet.load.traffic import Group, Traffic, places
from qenex_node.testnet import bulk_key
from state.hashing import Hash
from state.transaction import decode_transaction, verify_signatures
from state.types import ChainContext

CONTEXT = ChainContext("test-chain", Hash(b"\x07" * 32))
TERMS = Terms("seed", CONTEXT, accounts=10, transfers=1, not_after_ms=1_700_000_000_000)


def signed(number: int, account: int = 0) -> Signed:
    return Signed(f"0x{number:02x}", b"wire", account, 0, number)


def test_percentiles_are_samples_by_nearest_rank() -> None:
    measured = [n / 1000 for n in range(1, 101)]
    random.Random(1).shuffle(measured)
    told = percentiles(measured)
    assert (told.p50, told.p95, told.p99, told.max) == (50.0, 95.0, 99.0, 100.0)
    assert percentiles([0.002]).to_json() == {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0}
    assert percentiles([]).p99 is None


def test_a_transaction_is_accepted_then_final_and_counted_once() -> None:
    book = Book(1)
    entry = book.sent(signed(1), 0, due=10.0)
    book.answered(entry, "accepted", 10.5)
    book.answered(entry, "accepted", 10.6)
    assert (book.totals.accepted, book.in_flight(0)) == (1, 1)
    book.committed(["0x01", "0xff"], 12.0)
    book.committed(["0x01"], 13.0)
    book.answered(entry, "committed", 14.0)
    assert (book.totals.committed, book.latencies, book.all_settled()) == (1, [2.0], True)


def test_latency_counts_from_when_it_was_due_not_from_when_it_was_sent_again() -> None:
    book = Book(1)
    entry = book.sent(signed(1), 0, due=5.0)
    book.lost_connection([entry])
    assert book.to_send_again(0, 6.0, 5.0, 10) == [entry]
    assert book.to_send_again(0, 6.0, 5.0, 10) == []
    book.answered(entry, "committed", 9.0)
    assert book.latencies == [4.0]
    assert book.totals.reopened == 1


def test_what_was_accepted_is_left_to_the_network_until_it_seems_forgotten() -> None:
    book = Book(1)
    entry = book.sent(signed(1), 0, due=0.0)
    soon, later = book.sent(signed(2), 0, due=4.0), book.sent(signed(3), 0, due=8.0)
    book.answered(entry, "accepted", 1.0)
    book.lost_connection([entry])
    book.answered(soon, "committed", 9.0)
    assert book.to_send_again(0, 10.0, 5.0, 10) == []
    book.answered(later, "committed", 11.0)
    assert book.to_send_again(0, 11.5, 5.0, 10) == [entry]
    assert book.totals.resubmitted_accepted == 1
    book.answered(entry, "accepted", 12.0)
    assert book.to_send_again(0, 16.9, 5.0, 10) == []
    assert book.to_send_again(0, 17.1, 5.0, 10) == [entry]


def test_when_nothing_is_committed_any_more_all_that_was_accepted_seems_forgotten() -> None:
    book = Book(1)
    entry = book.sent(signed(1), 0, due=10.0)
    book.answered(entry, "accepted", 10.0)
    assert book.to_send_again(0, 14.0, 5.0, 10) == []
    assert book.to_send_again(0, 15.5, 5.0, 10) == [entry]


@pytest.mark.parametrize(
    ("code", "reason", "fate"),
    [
        (-32009, "mempool_full", Fate.OPEN),
        (-32006, "timeout", Fate.OPEN),
        (-32001, "pending_max", Fate.OPEN),
        (-32007, "expired", Fate.EXPIRED),
        (-32000, "expired", Fate.OPEN),
        (-32000, "sequence_used", Fate.REJECTED),
    ],
)
def test_refusals_are_sent_again_only_where_that_can_help(code: int, reason: str, fate: Fate) -> None:
    book = Book(1)
    entry = book.sent(signed(1, account=3), 0, due=0.0)
    book.refused(entry, code, reason)
    assert entry.fate is fate
    assert book.reasons == {reason: 1}
    assert book.broken == ({3} if fate is Fate.REJECTED else set())
    assert book.all_settled() is (fate is not Fate.OPEN)


def test_signed_transfers_are_valid_and_have_the_ids_that_nodes_give() -> None:
    signer = Signer(TERMS)
    one = signer.sign(9, 0, 5)
    tx = decode_transaction(one.wire, CONTEXT)
    verify_signatures(tx)
    assert "0x" + tx.id.hex() == one.id
    assert (tx.sender, tx.lane, tx.sequence) == (bulk_key("seed", 9).address, 0, 5)


def test_recipients_are_others_even_if_they_come_round() -> None:
    many = Terms("seed", CONTEXT, accounts=3, transfers=5, not_after_ms=1)
    assert list(recipients(many, 0)) == [1, 2, 1, 2, 1]
    assert list(recipients(TERMS, 9)) == [0]


def test_many_are_signed_by_several_processes_in_the_same_order_and_bytes() -> None:
    wanted = [(n % 10, n // 10) for n in range(4_500)]
    ahead = sign_ahead(TERMS, wanted)
    signer = Signer(TERMS)
    assert [(one.account, one.sequence) for one in ahead] == wanted
    for place in (0, 2_000, 4_499):
        assert ahead[place] == signer.sign(*(wanted[place][0], 0, wanted[place][1]))


def test_accounts_take_turns_and_their_sequences_have_no_gaps() -> None:
    sequences = {4: 7, 5: 0}
    assert places([4, 5], sequences, 5) == [(4, 7), (5, 0), (4, 8), (5, 1), (4, 9)]
    group = Group(0, [4, 5], deque(), sequences)
    signer = Signer(TERMS)
    later = [group.next(signer, broken={4}) for _ in range(2)]
    assert [(one.account, one.sequence) for one in later if one is not None] == [(5, 2), (5, 3)]
    assert group.next(signer, broken={4, 5}) is None


def test_a_request_is_json_rpc() -> None:
    import json

    calls = json.loads(send_body([b"\x01\x02", b"\xff"], "accepted", 5_000))
    assert calls[1] == {
        "jsonrpc": "2.0",
        "method": "qenex_sendTransaction",
        "params": ["0xff", "accepted", 5_000],
        "id": 1,
    }
    assert [call["id"] for call in calls] == [0, 1]


class FakeTarget:
    """Takes batches, answers nothing, and remembers when they came."""

    name = "fake"

    def __init__(self, up: bool = True) -> None:
        self.up = up
        self.batches: list[tuple[float, int]] = []

    async def send(self, batch: Any, book: Book, wait: str, timeout_s: float) -> None:
        self.batches.append((trio.current_time(), len(batch)))
        await trio.sleep(100)


def traffic_of(targets: list[FakeTarget], accounts: int = 10) -> tuple[Traffic, Book]:
    count = len(targets)
    groups = [
        Group(number, own := list(range(number, accounts, count)), deque(), dict.fromkeys(own, 0))
        for number in range(count)
    ]
    book = Book(count)
    return Traffic(targets, groups, book, Signer(TERMS)), book  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [50, 1_000])
def test_an_open_loop_offers_its_rate_while_nothing_is_answered(rate: int) -> None:
    targets = [FakeTarget(), FakeTarget()]
    traffic, book = traffic_of(targets)

    async def main() -> float:
        async with trio.open_nursery() as nursery:
            begin = trio.current_time()
            await traffic.at_rate(rate, 4.0, nursery)
            nursery.cancel_scope.cancel()
            return begin

    clock = trio.testing.MockClock(autojump_threshold=0)
    begin = trio.run(main, clock=clock)
    dues = sorted(entry.due - begin for entry in book.entries.values())
    assert len(dues) == 4 * rate
    assert dues == pytest.approx([(n + 1) / rate for n in range(4 * rate)])
    assert abs(sum(n for _, n in targets[0].batches) - 2 * rate) <= 10
    largest = max(n for target in targets for _, n in target.batches)
    assert largest <= max(1, rate // 100 + 1)


def test_a_closed_loop_keeps_a_bounded_number_in_flight() -> None:
    targets = [FakeTarget(), FakeTarget()]
    traffic, book = traffic_of(targets)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await traffic.as_taken(3.0, 400, nursery)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [book.in_flight(0), book.in_flight(1)] == [200, 200]


def test_a_group_goes_to_another_node_while_its_own_is_down() -> None:
    targets = [FakeTarget(up=False), FakeTarget()]
    traffic, _ = traffic_of(targets)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await traffic.at_rate(100, 0.2, nursery)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert targets[0].batches == []
    assert sum(n for _, n in targets[1].batches) == 20


class FakeChain:
    """A node's answers to an audit, over a chain of id lists; some of them may lie."""

    def __init__(self, name: str, blocks: list[list[str]], holdings: list[Holding], supply: str = "1000") -> None:
        self.name = name
        self.blocks = blocks
        self.holdings = holdings
        self.supply = supply
        self.root = "0xroot"
        self.failed: set[str] = set()
        self.asked = 0

    async def read(self, calls: list[tuple[str, list[Any]]], timeout_s: float = 30.0) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [self.answer(method, params) for method, params in calls]

    def answer(self, method: str, params: list[Any]) -> Any:
        if method == "qenex_status":
            return {"head": {"height": len(self.blocks)}}
        if method == "qenex_getBlock":
            header = {"hash": "0xhead", "state_root": self.root}
            return {"header": header, "transactions": self.blocks[params[0] - 1], "next_offset": None}
        if method == "qenex_getAccount":
            holding = self.holdings[self.asked % len(self.holdings)]
            self.asked += 1
            balance = {"available": str(holding.balance - 1), "held": "1"}
            return {"lanes": list(holding.lanes), "balances": {"QNX": balance}}
        if method == "qenex_getReceipt":
            return {"code": "insufficient_balance" if params[0] in self.failed else "ok"}
        return {"supply": self.supply}


PAIR = Terms("seed", CONTEXT, accounts=2, transfers=1, not_after_ms=1)
BEFORE = [Holding((0, 0), 500), Holding((3, 0), 500)]


def audited(blocks: list[list[str]], after: list[Holding], **changes: Any) -> Any:
    """Audits two nodes after two transactions: 0x01 of account 0 and 0x02 of account 1, both told accepted."""
    book = Book(1)
    for number, account in ((1, 0), (2, 1)):
        book.answered(book.sent(signed(number, account), 0, due=0.0), "accepted", 0.0)
    chains = [FakeChain("a", blocks, after), FakeChain("b", blocks, after)]
    for name, value in changes.items():
        setattr(chains[1], name, value)
    chains[0].failed = chains[1].failed
    addresses = ["qx1a", "qx1b"]
    audit = Audit(chains, book, PAIR, addresses, BEFORE, 0, "1000")  # type: ignore[arg-type]
    return trio.run(audit.run)


AFTER = [Holding((1, 0), 500), Holding((4, 0), 500)]


def test_an_audit_is_content_with_what_adds_up() -> None:
    assert expected_holdings(BEFORE, [], PAIR) == BEFORE
    findings = audited([["0x01", "0xelse"], ["0x02"]], AFTER)
    assert findings.problems == []
    assert (findings.committed, findings.blocks, findings.failed) == (2, 2, 0)


def test_an_audit_finds_what_is_lost_or_doubled() -> None:
    lost = audited([["0x01"]], [Holding((1, 0), 499), Holding((3, 0), 501)])
    assert lost.lost == ["0x02"]
    assert any("lost" in problem for problem in lost.problems)
    doubled = audited([["0x01", "0x02"], ["0x02"]], AFTER)
    assert doubled.doubled == ["0x02"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"root": "0xother"}, "same block"),
        ({"supply": "1001"}, "supply"),
        ({"holdings": [Holding((1, 0), 500), Holding((4, 0), 501)]}, "hold 1001 together"),
        ({"holdings": [Holding((1, 0), 499), Holding((4, 0), 501)]}, "2 accounts"),
        ({"holdings": [Holding((2, 0), 500), Holding((4, 0), 500)]}, "1 accounts"),
    ],
)
def test_an_audit_names_each_disagreement_of_a_node(changes: dict[str, Any], word: str) -> None:
    problems = audited([["0x01", "0x02"]], AFTER, **changes).problems
    assert any(word in problem for problem in problems)
    assert all(problem.startswith("b:") or "same block" in problem for problem in problems)


def test_a_failed_transaction_uses_its_sequence_and_moves_nothing() -> None:
    findings = audited(
        [["0x01", "0x02"]], [Holding((1, 0), 500 + AMOUNT), Holding((4, 0), 500 - AMOUNT)], failed={"0x01"}
    )
    assert (findings.failed, findings.problems) == (1, [])
