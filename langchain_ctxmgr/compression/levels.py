"""The levels of a running summary, between what is always shown and what was said.

Level 0 is the overview: the notes that matter most, always shown. Level 1 has the notes of each
section as they were made, of which those are shown that bear on the question. Level 2 is what
was said, of which the newest part stands in the view word for word. What grows beyond its bound
is folded upward: sections into the overview, where the notes that matter most stay. Nothing is
written anew for that, so nothing can be got wrong; and every note names its messages, so each
level can be made again from the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from math import log
from typing import Final, NamedTuple

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.statements import (
    NOTED,
    RunningSummary,
    Statement,
    fitting,
    line,
    noted_tokens,
)
from langchain_ctxmgr.compression.verification import Evidence, Source

_NEAR_BEST: Final = 0.5
"""Of the best note's score: what bears on a question less is left out."""


class Levels(NamedTuple):
    """The notes that stand for the beginning of a branch."""

    overview: tuple[Statement, ...]
    sections: tuple[tuple[Statement, ...], ...]
    """The notes of each section, the oldest first."""


def folded(
    overview: Sequence[Statement],
    sections: Sequence[Sequence[Statement]],
    *,
    max_tokens: int,
    max_section_tokens: int,
    counter: TokenCounter,
) -> Levels:
    """Both levels within their bounds, in tokens: the oldest sections go up into the overview.

    Of a newest section that is too long by itself the notes that matter most stay.
    """
    kept = [tuple(section) for section in sections]
    if kept:
        kept[-1] = tuple(fitting(kept[-1], max_section_tokens, counter))
    sizes = [noted_tokens(section, counter) for section in kept]
    first = 0
    while first < len(kept) and sum(sizes[first:]) > max_section_tokens:
        first += 1
    named = _named(overview)
    risen = [each for each in chain(*kept[:first]) if not named.issuperset(_ids(each))]
    return Levels(tuple(fitting([*risen, *overview], max_tokens, counter)), tuple(kept[first:]))


def bearing_on(
    question: str,
    sections: Sequence[Sequence[Statement]],
    *,
    beside: Sequence[Statement],
    max_tokens: int,
    counter: TokenCounter,
) -> tuple[Statement, ...]:
    """The sections' notes that bear on `question`, in the order they were made.

    By the words they share with it, rare ones more; a note of what the overview tells already
    (`beside`) is left out.

    Args:
        question: In words.
        sections: The notes to choose from.
        beside: The notes that are shown anyway.
        max_tokens: Of all that is chosen, heading included.
        counter: What sizes are counted with.
    """
    asked, room = set(terms(question)), max_tokens - counter.text(NOTED)
    named = _named(beside)
    notes = [each for each in chain(*sections) if not named.issuperset(_ids(each))]
    words = [asked.intersection(terms(note.text)) for note in notes]
    spread = Counter(chain(*words))
    rarity = {term: log(1 + len(notes) / seen) for term, seen in spread.items()}
    scores = [sum(rarity[term] for term in shared) for shared in words]
    least = _NEAR_BEST * max(scores, default=0.0)
    chosen: set[int] = set()
    for place in sorted(range(len(notes)), key=lambda place: (-scores[place], -place)):
        if scores[place] <= 0 or scores[place] < least:
            break
        cost = counter.text(line(notes[place]))
        if cost <= room:
            room -= cost
            chosen.add(place)
    return tuple(notes[place] for place in sorted(chosen))


def kept_share(before: RunningSummary, after: RunningSummary) -> float:
    """Share of the notes before that those after bear out, 0 to 1; 1 where there were none.

    A note is borne out by what is noted of the same messages: how far a summary has drifted
    from what is made of the log today.
    """
    notes, now = _all(before), _all(after)
    kept = 0
    for note in notes:
        ids = _ids(note)
        told = [
            Source(text=each.text, speaker="", at=None)
            for each in now
            if not ids.isdisjoint(_ids(each))
        ]
        kept += bool(told) and Evidence(told).problem(note.text) is None
    return kept / len(notes) if notes else 1.0


def _all(summary: RunningSummary) -> tuple[Statement, ...]:
    return tuple(dict.fromkeys(chain(summary.statements, *summary.sections)))


def _ids(statement: Statement) -> set[str]:
    return {source.message_id for source in statement.sources}


def _named(statements: Iterable[Statement]) -> set[str]:
    return {name for each in statements for name in _ids(each)}
