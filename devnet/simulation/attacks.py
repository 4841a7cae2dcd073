"""What an attacker and the twins of a run are told to do, as data: drawn from a seed, printed with the settings.

Who plays these values is said elsewhere: schemes in `schemes`, partitions of twins in `twins`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Fall(StrEnum):
    """When, in a step of a ladder, all that are not hidden lose power."""

    NEVER = "never"
    VOTED = "voted"
    PROMISED = "promised"
    ENTERED = "entered"


class Opening(StrEnum):
    """Of which VIEW-CHANGEs the attacker, as primary, makes its NEW-VIEW, if it has the choice.

    PLAIN: those that free the height. FLOOR: one of them from above the height attacked. OLD: the oldest there are.
    """

    PLAIN = "plain"
    FLOOR = "floor"
    OLD = "old"


@dataclass(frozen=True, slots=True)
class Step:
    """One view: `sight` correct validators see its PREPAREs, and the first of them, if `decide`, its COMMITs.

    With `late` nobody sees a vote before the promises of the next view are out. `hide` keeps the first that saw, and
    its prepared certificate, out of the next NEW-VIEW. Whoever decided stays hidden to the end.
    """

    sight: int
    decide: bool = False
    late: bool = False
    hide: bool = True
    fall: Fall = Fall.NEVER


@dataclass(frozen=True, slots=True)
class Ladder:
    """Views of one height, one after the other: the network shows each to a few, then lets the rest decide."""

    steps: tuple[Step, ...]
    opening: Opening = Opening.PLAIN


@dataclass(frozen=True, slots=True)
class OldPromise:
    """A validator promises a view, loses its records, is recovered and votes: its old promise then opens the view."""


@dataclass(frozen=True, slots=True)
class Border:
    """The last height of a validator set is certified twice, in views 0 and 1; who is in the next set is shown both.

    For four validators of which 1 is the puppet and one other is replaced by the first spare.
    """


@dataclass(frozen=True, slots=True)
class Starve:
    """For a while most COMMITs are lost, and one that would make a quorum is late."""

    for_us: int
    loss: float
    late_us: int


Scheme: TypeAlias = Ladder | OldPromise | Border | Starve


@dataclass(frozen=True, slots=True)
class Groups:
    """One view of twins: machines of different groups do not hear each other; a group of one hears nobody.

    If there are `witnesses`, COMMITs of the view reach no machine but these.
    """

    groups: tuple[tuple[int, ...], ...]
    witnesses: tuple[int, ...] = ()
