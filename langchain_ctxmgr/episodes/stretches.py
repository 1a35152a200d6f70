"""Where a conversation changes its subject.

Before each user message the turns on either side are compared: by the words they share, and by
their embeddings where there are any. Where the likeness dips far below what it is around, one
stretch ends and the next begins. A pause, and another user, end one in any case.

Source: Hearst 1997, "TextTiling: Segmenting Text into Multi-paragraph Subtopic Passages": block
comparison, depth scores and their cutoff.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import fmean, pstdev
from typing import Final, NamedTuple

import numpy as np

BLOCK: Final = 6
"""Turns on either side that are compared."""
LEAST_TURNS: Final = 4
"""A stretch has at least so many turns, unless a pause or another user ends it."""
_LEAST_DEPTH: Final = 0.1
"""A dip below that is no change of subject, however even the rest is."""


class Passage(NamedTuple):
    """A turn, as far as it tells where the subject changes."""

    terms: tuple[int, ...]
    session: int
    user_id: str | None
    opens: bool
    """Whether a user asks or tells something with it: a subject begins nowhere else."""
    vector: Sequence[float] | None = None
    """Its embedding, of length 1."""


def stretches(passages: Sequence[Passage]) -> list[range]:
    """The places of each stretch's turns, in order; together all of them."""
    found: list[range] = []
    start = 0
    for place in range(1, len(passages) + 1):
        if place == len(passages) or _is_apart(passages[place - 1], passages[place]):
            cuts = [start, *_changes(passages, range(start, place)), place]
            found += map(range, cuts, cuts[1:])
            start = place
    return found


def _is_apart(before: Passage, after: Passage) -> bool:
    return before.session != after.session or before.user_id != after.user_id


def _changes(passages: Sequence[Passage], within: range) -> list[int]:
    """Where the subject changes between turns that no pause divides."""
    first, last = within.start + LEAST_TURNS, within.stop - LEAST_TURNS
    gaps = [place for place in range(first, last + 1) if passages[place].opens]
    alike = [_likeness(passages, within, place) for place in gaps]
    depths = [_depth(alike, index) for index in range(len(alike))]
    if not depths:
        return []
    cutoff = max(_LEAST_DEPTH, fmean(depths) - pstdev(depths) / 2)
    cuts: list[int] = []
    for depth, place in sorted(
        zip(depths, gaps, strict=True), key=lambda each: (-each[0], each[1])
    ):
        if depth < cutoff:
            break
        if all(abs(place - cut) >= LEAST_TURNS for cut in cuts):
            cuts.append(place)
    return sorted(cuts)


def _depth(alike: Sequence[float], index: int) -> float:
    """How far the likeness at a gap lies below the nearest peaks to its left and right."""
    depth = 0.0
    for step in (-1, 1):
        peak, place = alike[index], index + step
        while 0 <= place < len(alike) and alike[place] >= peak:
            peak, place = alike[place], place + step
        depth += peak - alike[index]
    return depth


def _likeness(passages: Sequence[Passage], within: range, place: int) -> float:
    before = passages[max(within.start, place - BLOCK) : place]
    after = passages[place : min(within.stop, place + BLOCK)]
    shared = _by_words(before, after)
    similar = _by_vectors(before, after)
    return shared if similar is None else (shared + similar) / 2


def _by_words(before: Sequence[Passage], after: Sequence[Passage]) -> float:
    one, other = (Counter(t for each in side for t in each.terms) for side in (before, after))
    norm = sqrt(sum(n * n for n in one.values()) * sum(n * n for n in other.values()))
    return sum(n * other[term] for term, n in one.items()) / norm if norm else 0.0


def _by_vectors(before: Sequence[Passage], after: Sequence[Passage]) -> float | None:
    sides = [[each.vector for each in side if each.vector is not None] for side in (before, after)]
    if not all(sides):
        return None
    one, other = (np.mean(np.array(side), axis=0) for side in sides)
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm else 0.0
