"""kill -9 at random points of a real network under load, again and again: nothing final is lost, nobody helps.

    python -m devnet.trials.kills --rounds 1000

A round kills one to all four validators at a random moment, starts them again a moment later, and mostly waits for a
transfer to be final before the next one; else the next round hits nodes that are still starting. A workload runs
throughout; after each segment its history is judged against the chain of all nodes. The figures of each segment are
added to the results, so that runs accumulate.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Final

from devnet.fleet import ALIVE, State
from devnet.network import Devnet
from devnet.trials.common import add_result, options, own_home, say, seed_of, spread
from devnet.workload import Workload

SEGMENT: Final = 25
RECOVERY_SECONDS: Final = 60.0
ACCOUNTS: Final = 16
VICTIMS: Final = (1, 1, 1, 1, 2, 2, 3, 4, 4)
BEFORE_SECONDS: Final = 0.8
DOWN_SECONDS: Final = 0.4
AT_ONCE_SHARE: Final = 0.25


def main() -> None:
    """Runs the trial; see the module's docstring."""
    parser = options("kill -9 at random points of a network under load")
    parser.add_argument("--rounds", type=int, default=1000, help="how many times to kill")
    arguments = parser.parse_args()
    seed = seed_of(arguments.seed)
    chance = random.Random(seed)
    with own_home("kills") as home, Devnet(home, accounts=ACCOUNTS) as net:
        done = 0
        while done < arguments.rounds:
            rounds = min(SEGMENT, arguments.rounds - done)
            _segment(net, chance, rounds, seed + done, arguments.results)
            done += rounds
            say(f"{done} of {arguments.rounds} rounds")


def _segment(net: Devnet, chance: random.Random, rounds: int, seed: int, results: Path) -> None:
    killed, recoveries, began = 0, list[float](), time.monotonic()
    with Workload(net, seed=seed) as work:
        for number in range(rounds):
            time.sleep(chance.uniform(0, BEFORE_SECONDS))
            killed += _kill_and_start(net, chance)
            if number < rounds - 1 and chance.random() < AT_ONCE_SHARE:
                continue
            started = time.monotonic()
            work.wait_committed(1, timeout_s=RECOVERY_SECONDS)
            recoveries.append(time.monotonic() - started)
        net.wait_ready(timeout_s=RECOVERY_SECONDS)
        verdict = work.verdict()
    all_runs = add_result(
        results,
        "kills",
        {
            "rounds": rounds,
            "kills": killed,
            "ok": verdict.ok,
            "problems": verdict.problems,
            "committed": verdict.committed,
            "blocks": verdict.blocks,
            "reads": verdict.reads,
            "seconds": round(time.monotonic() - began, 1),
            "recovery_ms": spread(recoveries),
        },
    )
    say(f"{verdict}\nkilled {killed} in {rounds} rounds; next final transfer after {spread(recoveries)} ms")
    say(f"in all runs: {sum(run['rounds'] for run in all_runs)} rounds, {sum(run['kills'] for run in all_runs)} kills")
    if not verdict.ok:
        raise SystemExit(1)


def _kill_and_start(net: Devnet, chance: random.Random) -> int:
    """Kills some of the nodes at once and starts them a moment later; returns how many."""
    net.fleet.reap()
    ended = [name for name, member in net.fleet.members.items() if member.state is State.ENDED]
    if ended:
        raise SystemExit(f"{', '.join(ended)} ended without being killed, and would need a person: see node.log")
    alive = [name for name, member in net.fleet.members.items() if member.state in ALIVE]
    victims = chance.sample(alive, min(len(alive), chance.choice(VICTIMS)))
    net.kill(*victims)
    time.sleep(chance.uniform(0, DOWN_SECONDS))
    for name in victims:
        net.start(name, wait=False)
    return len(victims)


if __name__ == "__main__":
    main()
