"""A Byzantine primary: invalid, contradicting and withheld proposals cost a view change each, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_support import Hostile, log_errors, metric, undisturbed

from consensus.messages import PrePrepare
from devnet.network import Devnet
from devnet.prepare import Wish
from state.block import evidence_hash, tx_root
from state.genesis import ChainParameters
from state.hashing import sha256
from state.types import HEADER_VERSION, Header, Height, TimeMs, View, WireHash

HONEST = ["validator-01", "validator-02", "validator-03"]
LIAR = "validator-04"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A network whose primary changes with each height, so that the liar's turn comes by itself."""
    home: Path = tmp_path_factory.mktemp("primary") / "net"
    wish = Wish(validators=4, accounts=100, parameters=ChainParameters(leader_term=1))
    with Devnet(home, wish=wish, autostart=False) as devnet:
        for name in HONEST:
            devnet.start(name, wait=False)
        devnet.wait_ready(HONEST)
        yield devnet
        faults = log_errors(devnet, HONEST)
        assert not faults, faults
        assert devnet.running == HONEST


def proposal(
    liar: Hostile, status: dict[str, Any], wires: tuple[bytes, ...], *, height: int, ahead_ms: int = 0, salt: str = ""
) -> Any:
    head = status["head"]
    header = Header(
        HEADER_VERSION,
        liar.context.chain_id,
        Height(height),
        TimeMs(max(time.time_ns() // 1_000_000 + ahead_ms, head["time_ms"] + 1)),
        bytes.fromhex(head["hash"][2:]),  # type: ignore[arg-type]
        tx_root(wires),
        sha256(b"receipts" + salt.encode()),
        sha256(b"state" + salt.encode()),
        liar.validators.hash,
        liar.validators.hash,
        liar.key.public.data,
        evidence_hash(()),
        1,
    )
    hashes = tuple(WireHash(wire) for wire in wires)
    return liar.sign(PrePrepare(Height(height), View(status["view"]), header, hashes, None, liar.index))


def turns(net: Devnet, liar: Hostile, act: Callable[[dict[str, Any], int], None], count: int) -> int:
    """Acts as primary whenever it is the liar's turn; returns how often it was."""
    done: set[tuple[int, int]] = set()
    end = time.monotonic() + 14
    while len(done) < count and time.monotonic() < end:
        status = net.status(HONEST[0])
        assert status is not None
        height = status["head"]["height"] + 1
        place = (height, status["view"])
        if place not in done and liar.validators.primary(Height(height), View(status["view"]), 1) == liar.index:
            done.add(place)
            act(status, height)
        time.sleep(0.01)
    return len(done)


@pytest.fixture
def liar(net: Devnet) -> Iterator[Hostile]:
    with Hostile(net, LIAR) as hostile:
        hostile.connect(*HONEST)
        yield hostile


def test_a_block_of_which_nobody_has_the_transactions_costs_a_view_change(net: Devnet, liar: Hostile) -> None:
    def withhold(status: dict[str, Any], height: int) -> None:
        wires = tuple(sha256(b"nobody has %d" % n) for n in range(2_000))
        liar.say(proposal(liar, status, wires, height=height))

    with undisturbed(net, HONEST, pause_max_s=8):
        assert turns(net, liar, withhold, 2) == 2


def test_invalid_and_contradicting_proposals_are_suspected_at_once(net: Devnet, liar: Hostile) -> None:
    kinds = iter(range(100))

    def cheat(status: dict[str, Any], height: int) -> None:
        kind = next(kinds)
        known = sha256(b"x")
        if kind == 0:
            liar.say(proposal(liar, status, (), height=height))
        elif kind == 1:
            liar.say(proposal(liar, status, (known,), height=height, ahead_ms=3_600_000))
        elif kind == 2:
            for number, name in enumerate(HONEST):
                liar.say(proposal(liar, status, (known,), height=height, salt=str(number)), name)
            for number, name in enumerate(reversed(HONEST)):
                liar.say(proposal(liar, status, (known,), height=height, salt=str(number)), name)
        else:
            liar.say(proposal(liar, status, (known,) * 3, height=height, ahead_ms=-3_600_000))

    with undisturbed(net, HONEST, pause_max_s=8):
        assert turns(net, liar, cheat, 4) == 4
    kinds_shown = [item["kind"] for item in net.call(HONEST[0], "consensus_evidence")["evidence"]]
    assert "pre_prepare" in kinds_shown
    assert all(metric(net, name, "qenex_consensus_view_changes_total") >= 1 for name in HONEST)
