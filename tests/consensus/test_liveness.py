"""How long the chain stands still when its primary dies: one timeout and some messages, whatever happened before.

A network with delays, under a steady load. The primary dies at a random moment, in the middle of whatever it does: what
it said last reaches some and not others. Time is virtual.
"""

from __future__ import annotations

import heapq
import random
from itertools import pairwise

import pytest
from cluster import Cluster, Node

from consensus import interface as io
from consensus.messages import Message

JITTER_MS = 10
LOAD_MS = 25


class Delayed(Cluster):
    """Messages take time, and so do answers of the nodes' own parts."""

    def __init__(self, seed: int, n: int = 4, **config: int) -> None:
        self.rng = random.Random(seed)
        self.due: list[tuple[int, int, object]] = []
        self.count = 0
        self.delay_ms = 10
        self.blocks: list[tuple[int, int]] = []
        super().__init__(n, **config)

    def at(self, ms: int, what: object) -> None:
        self.count += 1
        heapq.heappush(self.due, (self.now + ms, self.count, what))

    def post(self, source: str, to: str, message: Message) -> None:
        if source != to and self.passes(source, to, message):
            self.at(self.delay_ms + self.rng.randrange(JITTER_MS), (to, message, source))

    def happen(self, what: object) -> None:
        if callable(what):
            what()
        else:
            to, message, _ = what
            if self[to].up:
                self._hand_over(to, message)

    def run(self, ms: int) -> None:
        end = self.now + ms
        while True:
            timers = [max(node.timer, self.now) for node in self if node.up]
            first = min([*timers, *(item[0] for item in self.due[:1])], default=end + 1)
            if first > end:
                break
            self.now = first
            if self.due and self.due[0][0] <= self.now:
                self.happen(heapq.heappop(self.due)[2])
            for node in self:
                if node.up and node.timer <= self.now:
                    node.do(io.Tick(self.now))
                    node.retry()
            for node, effect in self.later:
                self.at(self.rng.randrange(1, 6), lambda node=node, effect=effect: self.do_later(node, effect))
            self.later = []
        self.now = end

    def do_later(self, node: Node, effect: io.Effect) -> None:
        if node.up:
            before = len(node.chain)
            node.answer(effect)
            if len(node.chain) > before:
                self.blocks.append((self.now, len(node.chain)))

    def load(self, ms: int) -> None:
        for moment in range(0, ms, LOAD_MS):
            self.at(moment, self.arrive)

    def arrive(self) -> None:
        wire = b"%d" % self.count
        for node in self:
            if node.up:
                self.at(self.rng.randrange(JITTER_MS), lambda node=node: node.up and node.learn(wire))

    def primary(self) -> Node:
        state = max((node for node in self if node.up), key=lambda node: node.state.view).state
        return self[self.set_at(state.height).validators[state.primary].name]

    def standstill_ms(self, since: int) -> int:
        """The longest time without a new height, from the last block before `since` on."""
        first = {}
        for at, height in self.blocks:
            first.setdefault(height, at)
        times = sorted(first.values())
        times = [max([at for at in times if at <= since], default=since), *(at for at in times if at > since)]
        return max(later - earlier for earlier, later in pairwise(times))

    def lose_what_is_under_way(self, source: str) -> None:
        """Half of what a dead process had sent arrives, by receiver."""
        self.due = [item for item in self.due if callable(item[2]) or item[2][2] != source or self.rng.random() < 0.5]
        heapq.heapify(self.due)


def kill_primary(cluster: Delayed, complain_after_ms: int | None) -> int:
    primary = cluster.primary()
    primary.crash()
    cluster.lose_what_is_under_way(primary.who.name)
    killed_at = cluster.now
    if complain_after_ms is not None:
        for node in cluster:
            cluster.at(
                complain_after_ms + cluster.rng.randrange(30),
                lambda node=node: node.up and cluster.primary() is primary and node.do(io.Complaint("unreachable")),
            )
    cluster.load(4000)
    cluster.run(4000)
    return cluster.standstill_ms(killed_at)


def gaps(seeds: range, rounds: int, complain_after_ms: int | None, **config: int) -> list[int]:
    found = []
    for seed in seeds:
        cluster = Delayed(seed, **config)
        cluster.load(600)
        for _ in range(rounds):
            cluster.load(600)
            cluster.run(300 + cluster.rng.randrange(300))
            dead = cluster.primary()
            found.append(kill_primary(cluster, complain_after_ms))
            dead.restart()
            cluster.run(1500)
    return sorted(found)


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize(
    ("complain_after_ms", "bound_ms"), [(None, 1200), (250, 450)], ids=["by timer", "told at once"]
)
def test_a_dead_primary_costs_one_timeout_or_none_whatever_happened_before(
    n: int, complain_after_ms: int | None, bound_ms: int
) -> None:
    """Three times in a row: no doubled timer, promise or half-delivered vote of before makes the next one longer."""
    assert gaps(range(8 // n), 3, complain_after_ms, n=n)[-1] <= bound_ms


def test_over_a_wide_area_a_dead_primary_costs_a_timeout_and_some_messages() -> None:
    """50 ms each way, as in a network of three continents: six messages follow the timeout."""
    cluster = Delayed(1)
    cluster.delay_ms = 50
    cluster.load(3000)
    cluster.run(2000)
    assert kill_primary(cluster, None) <= 1000 + 6 * 60 + 250


def test_a_suspicion_that_outlives_a_height_is_said_again_soon() -> None:
    """c suspects at height 1, which is then committed: for d its word is void, and d needs it at height 2."""
    cluster = Cluster(4)
    cluster["c"].do(io.Complaint("unreachable"))
    cluster.deliver()
    cluster.submit(b"1")
    cluster.run(400)
    cluster["d"].do(io.Complaint("unreachable"))
    cluster.deliver()
    assert {node.state.view for node in cluster} == {1}


def test_f_plus_1_words_are_answered_at_once_and_so_is_each_step_of_the_view_change() -> None:
    """No tick is needed from the second suspicion to the block of the next primary."""
    cluster = Cluster(4)
    cluster.passes = lambda source, to, message: source != "a"
    cluster.submit(b"work", "bcd")
    for name in "cd":
        cluster[name].do(io.Complaint("unreachable"))
    cluster.deliver()
    assert [len(cluster[name].chain) for name in "bcd"] == [1, 1, 1]
    assert cluster["b"].chain[0][1].view == 1
