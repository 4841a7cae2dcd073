"""The bounds of the server: those that make each other senseless are refused at the start."""

import pytest

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
