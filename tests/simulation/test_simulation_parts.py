"""The parts that faults act on: links that are cut one way, disks that lose what was not synced, clocks, pauses."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from consensus.messages import Kind
from devnet.simulation.checks import ALL_CHECKS
from devnet.simulation.cluster import Cluster, correct_only, run
from devnet.simulation.disk import Disk, RecordWrite
from devnet.simulation.durable import Promises, Records
from devnet.simulation.faults import (
    ClockStep,
    Crash,
    CrashAtEffect,
    Cut,
    Damage,
    FullDisk,
    Hush,
    LoseDisk,
    LoseQuorum,
    LoseRecords,
    Pause,
    Restore,
    Slow,
)
from devnet.simulation.memory import frame, read_log
from devnet.simulation.network import Network
from devnet.simulation.schedule import MS, SECOND, Schedule
from devnet.simulation.settings import ADD, CALM, REMOVE, REPLACE, Links, Reform, Settings
from devnet.simulation.variants import SOUND
from devnet.simulation.world import world_of
from state.store.errors import Damaged, StorageFailed


def network(links=CALM):
    schedule, got = Schedule(), []
    made = Network(schedule, random.Random(1), links)
    made.join([lambda source, message, target=target: got.append((source, target)) for target in range(8)])
    return schedule, made, got


def settle(schedule):
    schedule.run(10**9)


def test_a_cut_takes_one_direction_only_and_ends_when_all_its_causes_end():
    schedule, links, got = network()
    links.cut([(0, 1)], +1)
    links.cut([(0, 1)], +1)
    links.cut([(0, 1)], -1)
    links.send(0, 1, "lost", None)
    links.send(1, 0, "other way", None)
    settle(schedule)
    links.cut([(0, 1)], -1)
    links.send(0, 1, "mended", None)
    settle(schedule)
    assert got == [(1, 0), (0, 1)]


def test_a_cut_takes_what_is_under_way():
    schedule, links, got = network()
    links.send(0, 1, "under way", None)
    links.cut([(0, 1)], +1)
    settle(schedule)
    assert got == []


def test_a_hushed_link_drops_one_kind_of_message():
    schedule, links, got = network()
    links.hush([(0, 1)], [Kind.COMMIT], +1)
    links.send(0, 1, "commit", Kind.COMMIT)
    links.send(0, 1, "prepare", Kind.PREPARE)
    links.send(0, 2, "commit", Kind.COMMIT)
    settle(schedule)
    assert sorted(got) == [(0, 1), (0, 2)]


def test_links_lose_and_duplicate_as_often_as_told():
    schedule, links, got = network(Links(loss=0.5))
    for _ in range(400):
        links.send(0, 1, "message", None)
    settle(schedule)
    assert 150 < len(got) < 250
    schedule, links, got = network(Links(duplication=0.5))
    for _ in range(400):
        links.send(0, 1, "message", None)
    settle(schedule)
    assert 550 < len(got) < 650


def record(key):
    return RecordWrite(((key, b"value"),), (), (), ())


def new_disk():
    return Disk(world_of(4, 0), votes=True)


def test_a_disk_keeps_what_was_synced_and_a_beginning_of_what_was_not():
    kept = set()
    for seed in range(60):
        disk = new_disk()
        disk.issue(record(b"synced"))
        disk.sync()
        disk.issue(record(b"first"))
        disk.issue(record(b"second"))
        disk.lose_power(random.Random(seed))
        disk.open()
        kept.add(tuple(disk.votes.all()))
        disk.sync()
        assert tuple(disk.votes.all()) in kept
    assert kept == {(b"synced",), (b"first", b"synced"), (b"first", b"second", b"synced")}


def test_a_log_is_read_up_to_the_first_write_that_is_not_whole():
    rows = [((b"a", b"1"),), ((b"b", None), (b"c", b"2")), ((b"d", b"3"),)]
    frames = [frame(row) for row in rows]
    log = b"".join(frames)
    for cut in range(len(log) + 1):
        whole = sum(cut >= len(b"".join(frames[: count + 1])) for count in range(3))
        assert list(read_log(log[:cut])) == rows[:whole]
    torn = len(frames[0]) + 5
    assert list(read_log(log[:torn] + bytes(len(log) - torn))) == rows[:1]


def test_damage_to_vote_records_is_noticed_by_the_code_that_reads_them():
    noticed = 0
    for seed in range(60):
        disk = new_disk()
        for key in (b"one", b"two", b"three"):
            disk.issue(record(key))
        disk.sync()
        disk.damage(random.Random(seed))
        with pytest.raises(Damaged):
            disk.open()
        noticed += 1
    assert noticed == 60


def test_a_full_disk_takes_nothing_and_keeps_what_it_has():
    disk = new_disk()
    disk.issue(record(b"before"))
    disk.sync()
    disk.full = True
    with pytest.raises(StorageFailed):
        disk.issue(record(b"after"))
    disk.full = False
    disk.open()
    assert tuple(disk.votes.all()) == (b"before",)


def quiet(*faults, n=4):
    return Settings(seed=5, conducts=correct_only(n), faults=faults, heal_us=3 * SECOND, submit_until_us=2 * SECOND)


def test_without_faults_no_view_is_ever_left():
    result = run(quiet())
    assert result.violation is None
    assert result.view == 0
    assert "view_change sent" not in result.counts


def test_a_dead_primary_costs_one_view_change():
    result = run(quiet(Crash(SECOND // 2, (0,), (2 * SECOND,))))
    assert result.violation is None
    assert result.view == 1


def test_each_kind_of_fault_is_survived_alone():
    everyone = tuple((a, b) for a in range(4) for b in range(4) if a != b)
    for fault in (
        Cut(SECOND // 2, SECOND, everyone),
        Hush(SECOND // 2, SECOND, everyone, (Kind.PREPARE,)),
        Crash(SECOND // 2, (0, 1, 2, 3), (0, 100 * MS, 200 * MS, 700 * MS)),
        CrashAtEffect(SECOND // 2, 0, 3, 100 * MS),
        LoseRecords(SECOND // 2, 1, 100 * MS),
        LoseRecords(SECOND // 2, 1, 100 * MS, recovered=False),
        LoseDisk(SECOND // 2, 1, 100 * MS),
        Damage(SECOND // 2, 0, 100 * MS, chain=False),
        Damage(SECOND // 2, 0, 100 * MS, chain=True),
        Restore(SECOND // 4, SECOND, 1, 100 * MS),
        FullDisk(SECOND // 2, SECOND, 0),
        Slow(SECOND // 2, SECOND, 0, 50),
        Pause(SECOND // 2, SECOND, 0),
        ClockStep(SECOND // 2, 0, 3_000),
    ):
        result = run(quiet(fault))
        assert result.violation is None, f"{fault}: {result.violation}"


def test_a_crash_at_an_effect_can_split_a_broadcast():
    splits = set()
    for effects in range(12):
        settings = replace(quiet(CrashAtEffect(0, 0, effects, SECOND)), transactions=1)
        lines: list[str] = []
        assert run(settings, write=lines.append).violation is None
        before = lines[: next(place for place, line in enumerate(lines) if "loses power" in line)]
        splits.add(sum("hears v0 PRE_PREPARE 1/0" in line for line in lines[: len(before) + 60]))
    assert len(splits) > 1


def test_validators_come_and_go_while_newcomers_and_followers_keep_up():
    changes = (
        Reform(SECOND // 4, ADD, 4),
        Reform(SECOND // 2, REPLACE, 1, by=5),
        Reform(SECOND, REMOVE, 2),
    )
    settings = replace(quiet(Crash(SECOND // 2, (0,), (SECOND,))), reforms=changes, spares=2, followers=1)
    cluster = Cluster(settings, SOUND, None, (*ALL_CHECKS, Records, Promises))
    result = cluster.run()
    assert result.violation is None
    assert result.counts["sets changed"] == 3
    assert [v.name for v in cluster.newest_chain().validators.validators] == ["v00", "v01", "v03", "v04"]
    assert len({machine.disk.chain.head.hash for machine in cluster.machines}) == 1
    assert [machine.index for machine in cluster.machines] == [0, None, None, 2, 3, 1, None]


def test_more_lost_records_than_can_be_spared_are_made_good_by_one_statement():
    result = run(quiet(LoseQuorum(SECOND // 2, (1, 3))))
    assert result.violation is None
    assert result.counts["statements"] == 1
    assert result.height >= 10


def test_all_machines_end_with_the_same_state():
    cluster = Cluster(quiet(Cut(SECOND // 2, SECOND, ((0, 1), (2, 3)))), SOUND, None, ())
    assert cluster.run().violation is None
    states = [machine.disk.chain.pairs for machine in cluster.machines]
    height = max(machine.disk.chain.head.height for machine in cluster.machines)
    assert height > 1
    assert all(state == states[0] for state in states)
