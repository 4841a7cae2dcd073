"""A wide-area network: 100 ms of round trip between all validators, and stalls, against the same machine without.

    python -m devnet.trials.wide_area --minutes 10

Finality under a moderate open-loop rate; closed-loop throughput with the delay, and with stalls of 200 ms on 1% of the
writes beside it, as a share of the local one of the same run, in alternating order; and minutes of steady load in
either, in which no view may change. The relay between the nodes takes its share of the same processors: what it takes
is among the figures.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Final

from devnet.network import Devnet
from devnet.relay import Conduct
from devnet.trials.common import add_result, loaded, options, own_home, say

DELAY: Final = Conduct(delay_ms=50)
STALLS: Final = Conduct(delay_ms=50, stall_share=0.01, stall_ms=200)
ACCOUNTS: Final = 1_000
FINALITY_MS_MAX: Final = 400
DELAY_SHARE_MIN: Final = 0.7
STALLS_SHARE_MIN: Final = 0.3
OPEN_RATE: Final = 50
SECONDS: Final = 15
PAIRS: Final = 2


def main() -> None:
    """Runs the trial; see the module's docstring."""
    parser = options("100 ms between all validators, and stalls")
    parser.add_argument("--minutes", type=float, default=10, help="of steady load, with delay and with stalls each")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long each other measurement takes")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often each throughput is measured")
    parser.add_argument("--rate", type=int, default=OPEN_RATE, help="transactions a second of the open-loop loads")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"rate": arguments.rate, "minutes": arguments.minutes}
    with own_home("wide-area") as home:
        figures |= _throughput(home, arguments.pairs, arguments.seconds)
        with Devnet(home, accounts=ACCOUNTS, relayed=True) as net:
            net.relay.set_all(DELAY)
            finality = loaded(home, "--rate", str(arguments.rate), "--seconds", str(arguments.seconds))["latency_ms"]
            figures["finality_ms"] = finality
            say(f"finality at {arguments.rate} tx/s: {finality} ms")
            for name, conduct in (("delay", DELAY), ("stalls", STALLS)):
                figures[f"steady_{name}"] = _steady(net, home, conduct, arguments.minutes, arguments.rate)
    add_result(arguments.results, "wide_area", figures)
    _judge(figures)


def _throughput(home: Path, pairs: int, seconds: int) -> dict[str, Any]:
    """Measures closed-loop throughput locally, with the delay, and with stalls, in alternating order."""
    tps: dict[str, list[float]] = {"local": [], "delay": [], "stalls": []}
    relay_share: list[float] = []
    for pair in range(pairs):
        for name in ("local", "delay", "stalls") if pair % 2 == 0 else ("stalls", "delay", "local"):
            with Devnet(home, accounts=ACCOUNTS, relayed=name != "local") as net:
                if name != "local":
                    net.relay.set_all(DELAY if name == "delay" else STALLS)
                result = loaded(home, "--seconds", str(seconds))
                tps[name].append(result["tps"])
                if name != "local":
                    relay_share.append(round(net.relay.use().cpu_s / (result["seconds"] or 1), 3))
            say(f"{name}: {result['tps']:.0f} tx/s, latency {result['latency_ms']}")
    local = statistics.mean(tps["local"])
    shares = {f"share_{name}": round(statistics.mean(tps[name]) / local, 3) for name in ("delay", "stalls")}
    say(f"shares of the local throughput: {shares}; the relay took {relay_share} of a core")
    return {"tps": tps, **shares, "relay_cpu_share": relay_share}


def _steady(net: Devnet, home: Path, conduct: Conduct, minutes: float, rate: int) -> dict[str, Any]:
    """Offers steady load and returns how many views were left meanwhile."""
    net.relay.set_all(conduct)
    views = _views(net)
    began = time.monotonic()
    result = loaded(home, "--rate", str(rate), "--seconds", str(round(60 * minutes)))
    changes = sum(after - before for before, after in zip(views, _views(net), strict=True))
    say(f"{(time.monotonic() - began) / 60:.1f} min of steady load: {changes} view changes, {result['latency_ms']} ms")
    return {"view_changes": changes, "latency_ms": result["latency_ms"], "committed": result["committed"]}


def _views(net: Devnet) -> list[int]:
    return [int(net.call(name, "qenex_status")["view"]) for name in net.names]


def _judge(figures: dict[str, Any]) -> None:
    failed = [
        text
        for text, holds in (
            (f"finality p50 above {FINALITY_MS_MAX} ms", figures["finality_ms"]["p50"] <= FINALITY_MS_MAX),
            (f"throughput below {DELAY_SHARE_MIN} of the local one", figures["share_delay"] >= DELAY_SHARE_MIN),
            (f"with stalls below {STALLS_SHARE_MIN} of it", figures["share_stalls"] >= STALLS_SHARE_MIN),
            ("a view change with delay", figures["steady_delay"]["view_changes"] == 0),
            ("a view change with stalls", figures["steady_stalls"]["view_changes"] == 0),
        )
        if not holds
    ]
    if failed:
        say(f"out of bounds: {'; '.join(failed)}")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
