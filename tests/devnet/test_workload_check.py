"""The workload's checker lets a true history pass and catches every way in which it can be doctored."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from devnet.workload.check import check
from devnet.workload.history import Block, Chain, History, Lie, Outcome, Read, Seen, Transfer

A, B = "validator-01", "validator-02"


def transfer(number: int, payer: int, payee: int, amount: int, height: int, index: int, code: str = "ok") -> Transfer:
    """A transfer that was asked for at time `number` and acknowledged half a second later."""
    return Transfer(
        f"t{number}",
        payer,
        payee,
        amount,
        float(number),
        Outcome.COMMITTED,
        number + 0.5,
        A if number % 2 else B,
        height,
        index,
        code,
    )


def true_story() -> tuple[History, Chain]:
    """Two bank accounts with 100 each, registers 2 and 3, seven blocks from height 11 on."""
    transfers = [
        transfer(1, 0, 1, 30, 11, 0),
        transfer(2, 1, 3, 1, 12, 0),
        transfer(3, 0, 2, 1, 13, 0),
        transfer(4, 0, 1, 5000, 14, 0, "balance_insufficient"),
        transfer(5, 1, 0, 9, 15, 0),
        transfer(6, 1, 0, 10, 16, 0),
        transfer(7, 0, 2, 1, 17, 0),
    ]
    # The client never heard of one of them; another never entered a block.
    transfers[5] = Transfer("t6", 1, 0, 10, 6.0, refusal="it timed out")
    transfers.append(Transfer("t8", 0, 1, 3, 8.0, Outcome.EXPIRED, 8.5, A))
    blocks = tuple(Block(10 + number, f"h{10 + number}", (f"t{number}",)) for number in range(1, 8))
    hashes = tuple(block.hash for block in blocks)
    after = (100 - 30 - 1 + 9 + 10 - 1, 100 + 30 - 1 - 9 - 10, 2, 1)
    reads = [
        Read(A, 0, 70, 11, 1.6, 1.7, "h11"),
        Read(A, 1, 130, 11, 1.8, 1.9, "h11"),
        Read(B, 3, 1, 12, 2.6, 2.7, "h12"),
        Read(A, 2, 1, 13, 3.6, 3.7),
        Read(A, 2, 2, 17, 7.6, 7.7, "h17"),
        Read(B, 0, 100, 10, 0.1, 0.2, "h10"),
    ]
    heads = [Seen(A, 11, "h11", 1.6, 1.65), Seen(A, 17, "h17", 7.6, 7.65), Seen(B, 10, "h10", 0.1, 0.15)]
    chain = Chain(10, (100, 100, 0, 0), 1000, blocks, {A: hashes, B: hashes}, {A: after, B: after}, {A: 1000, B: 1000})
    return History(2, transfers, reads, heads), chain


def test_a_true_history_passes() -> None:
    history, chain = true_story()
    verdict = check(history, chain)
    assert verdict.ok, verdict
    assert (verdict.committed, verdict.acknowledged, verdict.resolved, verdict.expired) == (7, 6, 1, 1)
    assert "7 transfers committed in 7 blocks" in str(verdict)


def block(chain: Chain, number: int, *ids: str) -> Chain:
    """The chain with other transactions in one block, on all nodes."""
    blocks = list(chain.blocks)
    blocks[number] = replace(blocks[number], ids=ids)
    return replace(chain, blocks=tuple(blocks))


def lost(_: History, chain: Chain) -> Chain:
    return block(chain, 2)


def doubled(_: History, chain: Chain) -> Chain:
    return block(chain, 6, "t7", "t5")


def moved(history: History, chain: Chain) -> Chain:
    history.transfers[0].index = 3
    return chain


def unresolved(history: History, chain: Chain) -> Chain:
    history.transfers.append(Transfer("t9", 0, 1, 3, 9.0))
    return chain


def expired_and_committed(history: History, chain: Chain) -> Chain:
    history.transfers[0].outcome = Outcome.EXPIRED
    return chain


def stranger(_: History, chain: Chain) -> Chain:
    return block(chain, 6, "t7", "nobody's")


def another_code(history: History, chain: Chain) -> Chain:
    history.transfers[3].code = "ok"
    return chain


def out_of_order(history: History, chain: Chain) -> Chain:
    # t1 was final before t2 was asked for, and yet t2 stands first.
    history.transfers[0].height, history.transfers[1].height = 12, 11
    return block(block(chain, 0, "t2"), 1, "t1")


def balance_differs(_: History, chain: Chain) -> Chain:
    return replace(chain, after={**chain.after, B: (*chain.after[B][:3], 0)})


def money_made(_: History, chain: Chain) -> Chain:
    return replace(chain, supply_after={A: 1000, B: 1001})


def stale_read(history: History, chain: Chain) -> Chain:
    """True of its height, but the node had acknowledged a later one."""
    history.reads.append(Read(A, 0, 100, 10, 1.6, 1.7, "h10"))
    return chain


def wrong_read(history: History, chain: Chain) -> Chain:
    history.reads.append(Read(B, 1, 99, 12, 2.8, 2.9, "h12"))
    return chain


def read_of_a_fork(history: History, chain: Chain) -> Chain:
    history.reads.append(Read(B, 1, 129, 12, 2.8, 2.9, "other"))
    return chain


def head_goes_back(history: History, chain: Chain) -> Chain:
    history.heads.append(Seen(A, 16, "h16", 7.9, 8.0))
    return chain


def read_goes_back(history: History, chain: Chain) -> Chain:
    history.reads.append(Read("validator-03", 2, 2, 17, 8.0, 8.1))
    history.reads.append(Read("validator-03", 2, 1, 16, 8.2, 8.3))
    return chain


def head_of_a_fork(history: History, chain: Chain) -> Chain:
    history.heads.append(Seen(B, 15, "other", 5.9, 6.0))
    return chain


def fork(_: History, chain: Chain) -> Chain:
    return replace(chain, hashes={**chain.hashes, B: (*chain.hashes[B][:6], "other")})


def node_behind(_: History, chain: Chain) -> Chain:
    return replace(chain, hashes={**chain.hashes, B: chain.hashes[B][:6]})


def register_forgets(history: History, chain: Chain) -> Chain:
    history.reads.append(Read(A, 2, 1, 17, 8.0, 8.1))
    return chain


def register_foresees(history: History, chain: Chain) -> Chain:
    history.reads.append(Read(B, 3, 1, 12, 1.0, 1.1))
    return chain


def lie(history: History, chain: Chain) -> Chain:
    history.lies.append(Lie(A, 1.0, "certificate: no quorum signed this block"))
    return chain


@pytest.mark.parametrize(
    ("doctor", "found"),
    [
        (lost, "t3 is lost"),
        (doubled, "t5 is doubled"),
        (moved, "t1 was acknowledged by validator-01 at"),
        (unresolved, "t9 is neither committed nor expired"),
        (expired_and_committed, "t1 was said to be expired"),
        (stranger, "that nobody sent"),
        (another_code, "t4 ended as 'ok'"),
        (out_of_order, "t2 at"),
        (balance_differs, "validator-02: 1 accounts are not"),
        (money_made, "validator-02: the supply is 1001"),
        (stale_read, "a stale read of height 10, it had acknowledged height 11"),
        (wrong_read, "told that account 1 has 99 at height 12, it has 129"),
        (read_of_a_fork, "proved a read by block other"),
        (head_goes_back, "a head of height 16 was told after one of height 17"),
        (read_goes_back, "a read of height 16 was told after one of height 17"),
        (head_of_a_fork, "told of a block other at height 15"),
        (fork, "validator-02 has another block at height 17"),
        (node_behind, "validator-02 has 6 of 7 blocks"),
        (register_forgets, "register 2 shows 1 writes; 2 were acknowledged"),
        (register_foresees, "register 3 shows 1 writes; 0 were acknowledged there before, 0 were asked for"),
        (lie, "validator-01 told what its proof does not bear out"),
    ],
)
def test_a_doctored_history_is_caught(doctor: Callable[[History, Chain], Chain], found: str) -> None:
    history, chain = deepcopy(true_story())
    verdict = check(history, doctor(history, chain))
    assert any(found in problem for problem in verdict.problems), verdict
