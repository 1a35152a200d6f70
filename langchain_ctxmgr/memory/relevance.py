"""Whether anything that was said bears on a question at all.

The best candidates for a question about something never spoken of look like any others once
scores are standardised. What tells is how much of the question they hold: the rarity of the
words that one of them has, as a share of the rarity of all, words nobody ever said included;
and, for a model that gives token vectors, how similar the most similar one is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from typing import Final

import numpy as np

from langchain_ctxmgr.memory.candidates import Column
from langchain_ctxmgr.memory.query import Question
from langchain_ctxmgr.memory.scoring import Arms

SCORE_THRESHOLD: Final = 0.005
"""Below this chance nothing is recalled, unless told otherwise: at .01 already evidence recall
between people falls by up to .003."""
NOTHING_RELEVANT: Final = "nothing relevant: the thread says too little of what is asked"
_BY_WORDS: Final = (-3.0, 8.7, 0.0)
_BY_BOTH: Final = (-8.2, 4.9, 16.4)
"""A constant, and what coverage and cosine count: logistic regressions on questions asked of
their own conversation and of others, of two kinds and as many of each, so that .5 is an even
chance. Fitted on one kind they tell the other's apart: below .05 stand .6 % of the questions
that have an answer and 62 % of those about something else with both (none and 8 % by words).
Cosines are those of all-MiniLM-L6-v2; a model whose cosines are higher recalls as without."""
LEAST_BY_WORDS: Final = 1.0 / (1.0 + exp(-_BY_WORDS[0]))
"""No chance is lower by words alone: up to here nobody needs to work it out."""
_BEST: Final = 5
"""The coverage of the best of so many of the first candidates counts."""


def relevance(
    question: Question,
    rarity: Mapping[int, float],
    arms: Arms,
    total: Column,
    *,
    records: int,
) -> float:
    """The chance that a question is about what was said, 0 to 1.

    Args:
        question: Its words.
        rarity: Of each of them that was ever said.
        arms: The candidates' scores.
        total: Their final scores.
        records: How many messages there are, for the rarity of what none says.

    Returns:
        1 for a question that names no topic, or a time: it is answered by whatever was said.
    """
    if not question.has_topic or question.periods or not len(total):
        return 1.0
    unsaid = log(2.0 + 2.0 * records)
    whole = sum(rarity.get(term, unsaid) for term in question.terms)
    first = np.argsort(-total, kind="stable")[:_BEST]
    held = float(np.nan_to_num(arms.terms[first]).max())
    coverage = min(held / whole, 1.0) if whole else 1.0
    cosine = 0.0
    if arms.late is not None and arms.dense is not None:
        cosine = float(np.nan_to_num(arms.dense).max())
    constant, by_coverage, by_cosine = _BY_WORDS if arms.late is None else _BY_BOTH
    return 1.0 / (1.0 + exp(-(constant + by_coverage * coverage + by_cosine * cosine)))
