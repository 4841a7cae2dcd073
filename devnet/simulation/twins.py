"""The network of twins: for each view a partition of the machines, as in Bano et al., Twins (OPODIS 2021).

A twin's two machines have one key and are each as honest as their half of the network lets them be. A message goes by
the view that it speaks of, so that the partition of a view holds for all that is said in it, whenever that is; what is
no consensus message goes by the greatest view that anybody has spoken of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from consensus.messages import Decided, Kind, Message
from devnet.simulation.attacks import Groups
from devnet.simulation.parcels import Spoken

Parted: TypeAlias = tuple[tuple[int, ...], ...]


class RoundGate:
    """Keeps messages from going between the groups of their view; views beyond the last begin with the first again."""

    def __init__(self, rounds: Sequence[Groups]) -> None:
        self._groups = [
            {number: place for place, group in enumerate(groups.groups) for number in group} for groups in rounds
        ]
        self._witnesses = [groups.witnesses for groups in rounds]
        self._view = 0

    def takes(self, source: int, target: int, message: Any, kind: Kind | None) -> bool:
        """Returns whether the partition of its view stops the message."""
        view = self._view
        if isinstance(message, Spoken):
            view = view_of(message.message)
            self._view = max(self._view, view)
        place = view % len(self._groups)
        groups, witnesses = self._groups[place], self._witnesses[place]
        if groups[source] != groups[target]:
            return True
        return bool(witnesses) and kind in (Kind.COMMIT, Kind.DECIDED) and target not in witnesses


def view_of(message: Message) -> int:
    """Returns the view that a message speaks of: one that asks for a view belongs to the view that it leaves."""
    if isinstance(message, Decided):
        return message.certificate.view
    if message.kind is Kind.VIEW_CHANGE:
        return message.view - 1
    return message.view


@lru_cache(maxsize=16)
def partitions(machines: int, groups_max: int) -> tuple[Parted, ...]:
    """Returns all ways to part the machines into at most so many groups, in a fixed order."""
    return tuple(_parted(list(range(machines)), groups_max))


def _parted(numbers: list[int], groups_max: int) -> Iterator[Parted]:
    if not numbers:
        yield ()
        return
    *rest, last = numbers
    for parted in _parted(rest, groups_max):
        for place, group in enumerate(parted):
            yield (*parted[:place], (*group, last), *parted[place + 1 :])
        if len(parted) < groups_max:
            yield (*parted, (last,))
