"""What the trials share: their options, a place for their network, loads in a process of their own, and the results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from devnet.load.latency import percentiles

RESULTS_FILE: Final = "trials.json"
RUNS_MAX: Final = 10_000
LOAD_PATIENCE_SECONDS: Final = 300.0


def options(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that every trial has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, default=Path(RESULTS_FILE), help="where figures are added")
    parser.add_argument("--seed", type=int, default=None, help="what is drawn at random follows from it")
    return parser


def seed_of(given: int | None) -> int:
    """Returns the seed that was given, or a new one, and says which."""
    seed = int.from_bytes(os.urandom(4), "big") if given is None else given
    say(f"seed {seed}")
    return seed


@contextmanager
def own_home(name: str) -> Iterator[Path]:
    """A directory for a trial's network; it stays if the trial fails, for whoever looks into it."""
    home = Path(tempfile.mkdtemp(prefix=f"qenex-{name}-"))
    try:
        yield home / "net"
    except BaseException:
        say(f"the network is left in {home}")
        raise
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    home.rmdir()


def say(text: str) -> None:
    """Tells a person how it goes."""
    print(text, flush=True)


def add_result(file: Path, trial: str, figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds one run's figures to the file, whole or not at all; returns all runs of this trial that are in it."""
    document: dict[str, list[dict[str, Any]]] = json.loads(file.read_text()) if file.exists() else {}
    runs = document.setdefault(trial, [])
    runs.append({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": _machine(), **figures})
    del runs[:-RUNS_MAX]
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(file)
    return runs


def _machine() -> str:
    return f"{os.cpu_count()} cores, CPython {platform.python_version()}"


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Returns the percentiles of times, in ms."""
    return percentiles(seconds).to_json()


class Load:
    """`qenex devnet load` in a process of its own."""

    def __init__(self, home: Path, *arguments: str) -> None:
        """Starts it."""
        command = (sys.executable, "-P", "-m", "cli.main", "devnet", "load", "--home", str(home), "--json", *arguments)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self._process.poll() is None

    def result(self) -> dict[str, Any]:
        """Waits for its end and returns what it found, verified; raises SystemExit if it is not."""
        out, err = self._process.communicate(timeout=LOAD_PATIENCE_SECONDS)
        try:
            result: dict[str, Any] = json.loads(out)
        except ValueError:
            raise SystemExit(f"the load ended with code {self._process.returncode}: {err[-2000:]}") from None
        if not result.get("verified"):
            raise SystemExit(f"the load's audit failed: {result.get('problems', result)}")
        return result

    def end(self) -> None:
        """Ends it at once if it runs."""
        if self.running:
            self._process.kill()
            self._process.communicate()


def loaded(home: Path, *arguments: str) -> dict[str, Any]:
    """Runs a load to its end and returns its verified result."""
    load = Load(home, *arguments)
    try:
        return load.result()
    finally:
        load.end()
