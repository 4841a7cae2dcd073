"""The primary is killed, with default settings: how long until the next block, and what one dead validator costs.

    python -m devnet.trials.primary --runs 100

Each run kills the primary under a light load and waits for a block of another proposer, then brings the node back.
After that one validator stays dead for good: the gap, and transactions a second with four and with three, measured in
turn and in alternating order on the same network.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from devnet.network import Devnet
from devnet.trials.common import Load, add_result, loaded, options, own_home, say, seed_of, spread
from devnet.workload import Workload

GAP_MS_MAX: Final = 1_500
ACCOUNTS: Final = 1_000
LOOK_SECONDS: Final = 0.005
WAIT_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 3.0
CLOSED_LOOP_SECONDS: Final = 15
PAIRS: Final = 3


def main() -> None:
    """Runs the trial; see the module's docstring."""
    parser = options("the primary killed: time to the next block")
    parser.add_argument("--runs", type=int, default=100, help="how many times to kill the primary")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="throughput measurements with four and with three")
    parser.add_argument("--seconds", type=int, default=CLOSED_LOOP_SECONDS, help="how long each of them takes")
    arguments = parser.parse_args()
    chance = random.Random(seed_of(arguments.seed))
    figures: dict[str, Any] = {"runs": arguments.runs}
    with own_home("primary") as home, Devnet(home, accounts=ACCOUNTS) as net:
        if arguments.runs:
            gaps = _kill_again_and_again(net, chance, arguments.runs)
            figures["next_block_ms"] = spread(gaps)
            say(f"next block of another primary: {figures['next_block_ms']} ms over {len(gaps)} runs")
        if arguments.pairs:
            figures |= _one_dead(net, home, arguments.pairs, arguments.seconds)
    add_result(arguments.results, "primary", figures)
    within = all(
        gap is None or gap <= GAP_MS_MAX
        for gap in (figures.get("next_block_ms", {}).get("p99"), figures.get("gap_ms_one_dead"))
    )
    if not within or figures.get("ratio_three_to_four", 1.0) < 1.0:
        say(f"out of bounds: {figures}")
        raise SystemExit(1)


def _kill_again_and_again(net: Devnet, chance: random.Random, runs: int) -> list[float]:
    gaps: list[float] = []
    with Workload(net) as work:
        for number in range(runs):
            work.wait_committed(5)
            time.sleep(chance.uniform(0.1, 0.5))
            gaps.append(_kill_primary(net))
            say(f"run {number + 1}: {1000 * gaps[-1]:.0f} ms")
            _bring_back(net)
        verdict = work.verdict()
    say(str(verdict))
    if not verdict.ok:
        raise SystemExit(1)
    return gaps


def _kill_primary(net: Devnet) -> float:
    """Kills the primary; returns how long the others took to commit a block of another proposer."""
    primary, key = _primary(net)
    others = [name for name in net.running if name != primary]
    began = time.monotonic()
    net.fleet.kill(primary)
    while True:
        for name in others:
            if _proposer(net, name) not in (key, None):
                gap = time.monotonic() - began
                net.fleet.reap()
                return gap
        if time.monotonic() - began > WAIT_SECONDS:
            raise SystemExit(f"no block of another proposer within {WAIT_SECONDS:g} s: see {net.home}")
        time.sleep(LOOK_SECONDS)


def _primary(net: Devnet) -> tuple[str, str]:
    """Returns the primary's name and key once the head is a block of its own, so that a later one tells of another."""

    def settled() -> tuple[str, str] | None:
        name = net.running[0]
        status = net.status(name)
        if status is None:
            return None
        keys = {entry["name"]: entry["key"] for entry in net.call(name, "qenex_getValidators")["validators"]}
        key = keys[status["primary"]]
        return (status["primary"], key) if _proposer(net, name) == key else None

    found = net.wait_for(settled, "the head is a block of the primary")
    return found if found is not None else ("", "")


def _proposer(net: Devnet, name: str) -> str | None:
    with suppress(OSError, HTTPException):
        return str(net.call(name, "qenex_getBlock", "latest", "header")["header"]["proposer"])
    return None


def _bring_back(net: Devnet) -> None:
    net.fleet.reap()
    for name in set(net.names) - set(net.running):
        net.start(name)
    net.wait_ready()


def _one_dead(net: Devnet, home: Path, pairs: int, seconds: int) -> dict[str, Any]:
    """Measures the gap when the primary dies under full load, and throughput with four and with three, in turn."""
    gap_s = _gap_under_full_load(net, home, seconds)
    say(f"gap under full load: {1000 * gap_s:.0f} ms")
    four, three = list[float](), list[float]()
    for pair in range(pairs):
        for alive in (3, 4) if pair % 2 == 0 else (4, 3):
            if alive == 3 and len(net.running) == 4:
                net.kill(_primary(net)[0])
            elif alive == 4:
                _bring_back(net)
            time.sleep(SETTLE_SECONDS)
            tps = loaded(home, "--seconds", str(seconds))["tps"]
            (four if alive == 4 else three).append(tps)
            say(f"with {alive}: {tps:.0f} tx/s")
    ratio = statistics.mean(three) / statistics.mean(four)
    say(f"with three {ratio:.2f} of with four")
    return {
        "gap_ms_one_dead": round(1000 * gap_s),
        "tps_four": four,
        "tps_three": three,
        "ratio_three_to_four": round(ratio, 3),
    }


def _gap_under_full_load(net: Devnet, home: Path, seconds: int) -> float:
    """Kills the primary half-way through a closed-loop load; returns the longest time without a further block."""
    load = Load(home, "--seconds", str(seconds))
    try:
        height = net.height(net.names[0])
        net.wait_height(height + 10, timeout_s=WAIT_SECONDS)
        time.sleep(seconds / 3)
        primary = net.call(net.running[0], "qenex_status")["primary"]
        others = [name for name in net.running if name != primary]
        net.fleet.kill(primary)
        gap_s = _longest_gap(net, others, seconds / 3)
        load.result()
    finally:
        load.end()
    return gap_s


def _longest_gap(net: Devnet, names: list[str], seconds: float) -> float:
    began = last = time.monotonic()
    height, gap_s = -1, 0.0
    while (now := time.monotonic()) - began < seconds:
        net.fleet.reap()
        told = [status["head"]["height"] for status in map(net.status, names) if status is not None]
        if told and max(told) > height:
            height, gap_s, last = max(told), max(gap_s, now - last), now
        time.sleep(LOOK_SECONDS)
    return max(gap_s, time.monotonic() - last)


if __name__ == "__main__":
    main()
