"""How well each candidate turn answers a question: arms and cues in one score.

Scores of the arms are standardised over the candidates and added, which beats fusing
ranks; a turn also gains from what stands around it (neighbours, its session, the question
before it), from who spoke it and when, and loses by what it costs, since what is packed
is value for tokens. All of it is arithmetic over columns, so a thousand candidates take
about a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from langchain_ctxmgr.analysis import Cue
from langchain_ctxmgr.memory.candidates import Candidates, Column
from langchain_ctxmgr.memory.query import Question
from langchain_ctxmgr.records import Contribution, Explanation
from langchain_ctxmgr.turns import Turns

LATE = "late"
"""The arm of late interaction."""
FIRST = "first"
"""What late interaction finds in a turn and in none before it."""
_CLEAR_LEAD = 0.5
"""Of the rarity of a question's words that the best turn holds, at least so much is in no
other turn."""
BOOST = 2.0
"""What doubling the weight of a message counts, in standard deviations of an arm."""
ROW_TOKENS = 6
"""What a recalled turn costs beside its text: number, speaker, line end, share of the day."""


class Arms(NamedTuple):
    """What the index says of each candidate, in the order of the turns; NaN: not among its hits."""

    bm25: Column
    terms: Column
    dense: Column | None
    """None where there is no embedding: weights for keywords alone apply."""
    late: Column | None = None
    """Late interaction; None where the model gives no token vectors."""
    pairs: Column | None = None
    """Adjacent words of the question; None where they are not indexed."""
    first: Column | None = None
    """What late interaction finds first in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each part of the score counts, in standard deviations of an arm.

    Found by hand on two kinds of conversations, between two people and between a person
    and an assistant, with one setting for both: see `benchmarks/evidence_recall.py`. What
    mean evidence recall over both kinds and 500 to 4,000 tokens loses without each part,
    with token vectors and by keyword alone: cost .029 and .055, late .032, terms .002 and
    .040, machine .012 and .013, session .008 and .002, date .007 and .006, speaker .006 and
    .009, pairs .006 and .006, question .004 and .003, time .002 and .006, after_question
    .003 and nothing, bm25_around .013 (keywords), dense .001, asked_machine .001. Found later,
    with token vectors: before_match .002 and first .003, on each kind; by keyword near .010
    between people, on each of four conversations.

    Fitted weights do no better on what they were not fitted on. A listwise linear fit with
    token vectors, signs held, each conversation scored by a fit to all others: -.019 with an
    assistant and -.002 between people; by a fit to the other kind alone: -.026 and -.004; held
    close to these weights it changes nothing. Of 300 settings drawn around these, the 15 best
    on all other conversations: -.001 and -.003.

    Nothing is gained by a second hop over rare names that the best turns share with others (a
    change of .000 at best, -.002 where it weighs more) or, with an assistant, by filling the
    budget as a knapsack rather than greedily.
    """

    dense: float
    """Similarity of the turn's embedding."""
    dense_around: float
    """Mean similarity of the turn and its neighbours."""
    terms: float
    """Share of the question's words it holds, weighted by rarity."""
    bm25_around: float
    """BM25 of the turn and its neighbours, added up."""
    late: float = 0.0
    """How well its words meet those of the question."""
    session: float
    """How good the session's best turns are; 0 for questions that ask for many."""
    pairs: float = 0.1
    """Rarity of the question's adjacent words that stand together in it, added up."""
    alone: float = 6.0
    """Holds at least half of the question's rarity that no other turn holds: what was searched
    for by name comes first, whoever said it."""
    first: float = 0.0
    """Says of the question's words what no turn before it says."""
    after_question: float = 0.2
    """How well the question before the turn matches: its answer may say none of the words."""
    before_match: float = 0.0
    """How well the turn right after it matches, whatever it is: what was answered."""
    near: float = 0.0
    """How much better than itself a turn near it matches, between people: they take up what
    was said, in other words. An encoder reads turns in their context as it is."""
    speaker: float = 1.5
    """Spoken by the one participant the question names."""
    date: float = 2.5
    """Said about when the question says."""
    time: float = 1.5
    """Says when, and the question asks when."""
    question: float = -0.2
    """Asks rather than tells."""
    machine: float = -2.0
    """Written by an assistant or a tool, unless the conversation is between people."""
    asked_machine: float = 1.5
    """The same, where the question asks what the assistant said."""
    cost: float = -1.0
    """Natural logarithm of what it costs to show."""


WITH_DENSE = Weights(dense=0.5, dense_around=0.2, terms=0.3, bm25_around=0.0, session=0.5)
WITH_TOKENS = Weights(
    dense=0.15,
    dense_around=0.15,
    terms=0.1,
    bm25_around=0.0,
    late=0.6,
    session=0.4,
    first=4.0,
    before_match=0.2,
)
KEYWORDS_ONLY = Weights(
    dense=0.0, dense_around=0.0, terms=0.5, bm25_around=0.1, session=0.3, near=0.3, speaker=1.2
)

ACROSS_TOKENS = Weights(
    dense=0.0, dense_around=0.0, terms=0.2, bm25_around=0.0, late=0.6, session=0.0
)
"""Across threads. Nothing stands around a turn that is about the same, what no turn before it says
means nothing, and the hits by embedding are too small a part of all to tell one without from one
that is unlike. Of 200 facts among 800 alike 145 came first with the weights above, and 186 with
these (`benchmarks/user_recall.py`)."""
ACROSS_DENSE = Weights(dense=0.5, dense_around=0.0, terms=0.3, bm25_around=0.0, session=0.0)
ACROSS_KEYWORDS = Weights(dense=0.0, dense_around=0.0, terms=0.5, bm25_around=0.0, session=0.0)


DESCRIPTIONS = {
    "dense": "similarity of the embedding",
    "dense_around": "mean similarity of the message and its neighbours",
    "terms": "words of the question in it, by rarity",
    "bm25_around": "BM25 of the message and its neighbours",
    "late": "how well its words meet those of the question",
    "session": "best messages of its session",
    "pairs": "adjacent words of the question that stand together",
    "alone": "the only one with most of the question's rarity",
    "first": "says of the question what none before it says",
    "after_question": "follows a question that matches",
    "before_match": "the message after it matches",
    "near": "a message near it matches better",
    "speaker": "spoken by the participant named",
    "date": "said about when the question says",
    "time": "says when, as the question asks",
    "question": "asks rather than tells",
    "machine": "written by an assistant or a tool",
    "cost": "tokens to show it",
    "weight": "boosted or held back by the user",
    "recency": "said lately",
    "access": "recalled before",
    "importance": "how much it matters",
}
"""Each part of a score in words."""


class Scored(NamedTuple):
    """The score of each candidate and the parts it is the sum of."""

    total: Column
    parts: Mapping[str, Column]
    raw: Mapping[str, Column | None]
    """The arms' own scores, by part; NaN where the arm did not find the candidate."""

    def of(self, row: int) -> tuple[float, dict[str, float]]:
        """The score of one candidate and its parts."""
        parts = {name: float(column[row]) for name, column in self.parts.items()}
        return float(self.total[row]), parts

    def weighed(self, weights: Sequence[float]) -> Scored:
        """The same with what users weighed the candidates: 1 changes nothing, 2 adds `BOOST`."""
        part = BOOST * np.log2(weights)
        return self._replace(total=self.total + part, parts={**self.parts, "weight": part})

    def explained(self, row: int) -> Explanation:
        """Why a candidate has its score."""
        score, parts = self.of(row)
        contributions = [
            Contribution(
                arm=name, value=value, raw=self._raw(name, row), description=DESCRIPTIONS[name]
            )
            for name, value in parts.items()
            if value
        ]
        contributions.sort(key=lambda each: (-abs(each.value), each.arm))
        return Explanation(
            score=score,
            rank=1 + int(np.count_nonzero(self.total > self.total[row])),
            candidates=len(self.total),
            contributions=tuple(contributions),
        )

    def _raw(self, name: str, row: int) -> float | None:
        column = self.raw.get(name)
        return None if column is None or np.isnan(column[row]) else float(column[row])


def score(
    question: Question,
    turns: Turns,
    arms: Arms,
    *,
    priced: bool = True,
    weights: Weights | None = None,
    lasting: Mapping[str, Column] | None = None,
) -> Scored:
    """Score `turns`, which stand in order of thread and slot; comparable within one call.

    Args:
        question: As read, with its participants.
        turns: The candidates.
        arms: Their scores from the index.
        priced: Whether what a turn costs counts against it.
        weights: Other than the default for the arms there are.
        lasting: Further parts (`memory.lasting`) for turns of many threads, which are weighed
            each by itself.
    """
    w = weights or _weights(arms, is_across=lasting is not None)
    table = Candidates(turns)
    parts, match, best = _matching(w, table, arms)
    if not question.is_list:
        parts["session"] = w.session * table.session_best(best)
    parts["after_question"] = w.after_question * table.after_question(match)
    if w.before_match:
        parts["before_match"] = w.before_match * table.following(match)
    if w.near and not table.machine.any():
        parts["near"] = w.near * table.better_near(match)
    parts.update(_cues(w, table, question))
    if priced:
        parts["cost"] = w.cost * np.log(table.tokens + ROW_TOKENS)
    parts.update(lasting or {})
    raw = {"terms": arms.terms, "dense": arms.dense, "late": arms.late, "pairs": arms.pairs}
    return Scored(np.sum(list(parts.values()), axis=0), parts, raw)


class _Matching(NamedTuple):
    parts: dict[str, Column]
    match: Column
    """By the arm that says most of a single turn."""
    best: Column
    """By all that say something of it."""


def _matching(w: Weights, table: Candidates, arms: Arms) -> _Matching:
    """What the arms say of each turn and of those around it."""
    bm25, terms = _z(_filled(arms.bm25, 0.0)), _z(_filled(arms.terms, 0.0))
    match, best = terms, bm25
    parts: dict[str, Column] = {"terms": w.terms * terms}
    if arms.dense is not None:
        similar = _filled(arms.dense, float(np.nanmin(arms.dense)))
        match = _z(similar)
        best = match + 0.5 * bm25
        parts["dense"] = w.dense * match
        parts["dense_around"] = w.dense_around * _z(table.mean_around(similar))
    if arms.late is not None:
        late = _z(_filled(arms.late, float(np.nanmin(arms.late))))
        parts["late"] = w.late * late
        match, best = late, late + 0.5 * best
    if arms.first is not None:
        parts["first"] = w.first * _filled(arms.first, 0.0)
    if w.bm25_around:
        parts["bm25_around"] = w.bm25_around * table.sum_around(bm25)
    if arms.pairs is not None:
        parts["pairs"] = w.pairs * _filled(arms.pairs, 0.0)
    parts["alone"] = w.alone * _alone(_filled(arms.terms, 0.0))
    return _Matching(parts, match, best)


def _cues(w: Weights, table: Candidates, question: Question) -> dict[str, Column]:
    """What counts besides the words: who spoke, when, and how."""
    parts: dict[str, Column] = {}
    if len(question.speakers) == 1:
        parts["speaker"] = w.speaker * table.spoken_by(*question.speakers)
    if question.periods:
        parts["date"] = w.date * table.dated(question.periods)
    if question.asks_when:
        parts["time"] = w.time * table.having(Cue.TIME)
    parts["question"] = w.question * table.having(Cue.QUESTION)
    parts["machine"] = (w.machine + w.asked_machine * question.asks_machine) * table.machine
    return parts


def _weights(arms: Arms, *, is_across: bool) -> Weights:
    if arms.late is not None:
        return ACROSS_TOKENS if is_across else WITH_TOKENS
    if arms.dense is not None:
        return ACROSS_DENSE if is_across else WITH_DENSE
    return ACROSS_KEYWORDS if is_across else KEYWORDS_ONLY


def _z(values: Column) -> Column:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _alone(values: Column) -> Column:
    """For the best value by how much it leads the next, as a share; 0 below `_CLEAR_LEAD`."""
    lead = np.zeros_like(values)
    place = int(values.argmax())
    best, rest = float(values[place]), np.delete(values, place)
    if best > 0 and len(rest):
        share = (best - float(rest.max())) / best
        lead[place] = share if share >= _CLEAR_LEAD else 0.0
    return lead


def _filled(values: Column, missing: float) -> Column:
    return np.where(np.isnan(values), missing, values)
