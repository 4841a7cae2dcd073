"""Directions between nodes, (from, to) by their names: what the relay and the namespaces break."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

Way: TypeAlias = tuple[str, str]


def both(*ways: Way) -> list[Way]:
    """Returns these ways and the ways back."""
    return [*ways, *((sink, source) for source, sink in ways)]


def between(ways: Iterable[Way], groups: Iterable[Collection[str]]) -> list[Way]:
    """Returns those of these ways that lead out of a group of nodes or into one."""
    place = {name: number for number, group in enumerate(groups) for name in group}
    return [(source, sink) for source, sink in ways if place.get(source) != place.get(sink)]
