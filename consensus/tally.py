"""Counts PREPAREs and COMMITs of one height: which votes stand together, and which contradict each other.

Knows neither what a replica may vote nor what follows from a quorum. Memory is bounded: of each validator, the votes of
a few views at most, newest first, because a correct one votes in rising views and only a faulty one has more.
"""

from __future__ import annotations

from typing import Final

from consensus.messages import Kind, Vote
from consensus.rules import Rules, VoteGroup
from state.hashing import Hash
from state.types import View

VIEWS_KEPT_MAX: Final = 4


class Tally:
    """The votes of one height."""

    __slots__ = ("_first", "_groups", "_masks", "_rules", "_views")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._first: dict[tuple[int, int, int], Vote] = {}
        self._groups: dict[VoteGroup, dict[int, Vote]] = {}
        self._masks: dict[tuple[int, int], int] = {}
        self._views: dict[tuple[int, int], list[int]] = {}

    def add(self, vote: Vote) -> tuple[int, Vote | None]:
        """Takes a vote; returns how many now stand with it (0 if it brought nothing), and the one it contradicts."""
        key = (vote.kind, vote.view, vote.sender)
        earlier = self._first.get(key)
        if earlier is not None:
            return 0, None if earlier.block_hash == vote.block_hash else earlier
        if not self._make_room(vote):
            return 0, None
        self._first[key] = vote
        group = self._groups.setdefault(self._group(vote), {})
        group[vote.sender] = vote
        mask_key = (vote.kind, vote.view)
        self._masks[mask_key] = self._masks.get(mask_key, 0) | 1 << vote.sender
        return len(group), None

    def standing(self, kind: Kind, view: View, block_hash: Hash) -> list[Vote]:
        """Returns the votes that stand together for a block in a view, by sender."""
        votes = self._groups.get(self._rules.group(kind, view, block_hash))
        return [] if votes is None else [votes[sender] for sender in sorted(votes)]

    def count(self, kind: Kind, view: View, block_hash: Hash) -> int:
        """Returns how many validators' votes stand together for a block in a view."""
        votes = self._groups.get(self._rules.group(kind, view, block_hash))
        return 0 if votes is None else len(votes)

    def decided(self, quorum: int) -> list[Vote] | None:
        """Returns COMMITs that stand together and are at least `quorum`, by sender; None where there are none."""
        for group, votes in self._groups.items():
            if group[0] == Kind.COMMIT and len(votes) >= quorum:
                return [votes[sender] for sender in sorted(votes)]
        return None

    def mask(self, kind: Kind, view: int) -> int:
        """Returns whose votes of (kind, view) are held: bit i for validator i."""
        return self._masks.get((kind, view), 0)

    def _group(self, vote: Vote) -> VoteGroup:
        return self._rules.group(vote.kind, vote.view, vote.block_hash)

    def _make_room(self, vote: Vote) -> bool:
        """Keeps the newest views of a sender; returns whether this vote's view is among them."""
        views = self._views.setdefault((vote.kind, vote.sender), [])
        if len(views) < VIEWS_KEPT_MAX:
            views.append(vote.view)
            return True
        oldest = min(views)
        if vote.view < oldest:
            return False
        views[views.index(oldest)] = vote.view
        dropped = self._first.pop((vote.kind, oldest, vote.sender))
        group = self._groups[self._group(dropped)]
        if group[vote.sender] is dropped:
            del group[vote.sender]
        if not group:
            del self._groups[self._group(dropped)]
        mask = self._masks[(vote.kind, oldest)] & ~(1 << vote.sender)
        if mask:
            self._masks[(vote.kind, oldest)] = mask
        else:
            del self._masks[(vote.kind, oldest)]
        return True
