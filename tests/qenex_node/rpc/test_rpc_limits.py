"""The bounds of the server: those that make each other senseless are refused at the start."""

import pytest

from qenex_node.rpc.connections import Connection, Connections
from qenex_node.rpc.dispatch import _Pool, _Room
from qenex_node.rpc.limits import RpcLimits
from state.errors import Rejected


@pytest.mark.parametrize(
    "values",
    [
        {"body_bytes_max": 1000},
        {"bodies_bytes_max": 1000},
        {"outbox_bytes_max": 1000},
        {"pending_max": 10},
        {"batch_max": 0},
        {"connections_max": 0},
        {"send_timeout_s": 0.0},
        {"subscriptions_max": -1},
        {"header_bytes_max": 10},
        {"behind_blocks_max": 0},
    ],
)
def test_limits_that_contradict_each_other_are_refused(values):
    with pytest.raises(Rejected) as caught:
        RpcLimits(**values)
    assert caught.value.code == "config_invalid"


def test_when_too_much_waits_to_be_read_the_reader_furthest_behind_goes():
    ended = []
    connections = Connections(RpcLimits(unsent_bytes_max=10_000_000))
    readers = [Connection(f"10.0.0.{n}", lambda n=n: ended.append(n)) for n in range(3)]
    for reader in readers:
        connections.admit(reader)
    for size in (1_000, 3_000_000, 6_000_000):
        for reader, factor in zip(readers, (1, 2, 0), strict=True):
            connections.unsent(reader, size * factor // 2)
    assert ended == []
    connections.unsent(readers[0], 5_000_000)
    assert ended == [1]
    assert readers[1].too_slow
    assert len(connections) == 2
    connections.unsent(readers[2], 4_900_000)
    assert ended == [1]


def test_the_answers_of_all_batches_together_have_a_bound():
    pool = _Pool(100)
    first, second = _Room(80, pool), _Room(80, pool)
    first.take("x" * 70)
    assert not second.full
    second.take("x" * 40)
    assert (first.full, second.full) == (True, True)
    assert second.error().data["reason"] == "answers_bytes_max"
    first.leave()
    assert not second.full
    second.leave()
    assert pool.left == 100
