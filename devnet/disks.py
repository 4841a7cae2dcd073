"""A small disk for one node: a tmpfs over its database that is full whenever a test wants it to be.

It is mounted in a mount namespace of its own, which a sleeping process holds and the node is started in. The kernel
takes it away with that process, so a test that dies leaves no mount behind; what the node wrote there goes with it.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

from devnet.namespaces import Holder, run
from state.errors import Rejected

_FILLER: Final = ".filler"


class SmallDisk:
    """A disk of `size_bytes` in the place of a stopped node's `data`, with what is in it copied; to be closed."""

    def __init__(self, data: Path, size_bytes: int) -> None:
        """Makes and mounts it; raises Rejected if this system does not let us."""
        self._data = data.absolute()
        here, aside = shlex.quote(str(self._data)), shlex.quote(f"{self._data}.copied")
        self._holder = Holder(
            "--mount",
            first=f"cp -a {here} {aside} && mount -t tmpfs -o size={size_bytes},mode=700 tmpfs {here}"
            f" && cp -a {aside}/. {here} && rm -r {aside}",
        )

    def close(self) -> None:
        """Takes the disk away, with all that is on it."""
        self._holder.close()

    def inside(self) -> tuple[str, ...]:
        """Returns what a command that is to see this disk begins with."""
        return ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")

    def fill(self) -> None:
        """Takes all that is free."""
        # dd ends in the error that is wanted.
        with suppress(Rejected):
            run(*self.inside(), "dd", "if=/dev/zero", f"of={self._data / _FILLER}", "bs=64K")

    def free(self) -> None:
        """Gives back what `fill` took."""
        run(*self.inside(), "rm", "-f", str(self._data / _FILLER))
