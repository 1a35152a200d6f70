"""Whether anything that was said bears on a question at all.

The best candidates for a question about something never spoken of look like any others once
scores are standardised. What tells is how much of the question they hold: the rarity of the
words that one of them has, as a share of the rarity of all, words nobody ever said included.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, log
from typing import Final

import numpy as np

from langchain_ctxmgr.memory.query import Question
from langchain_ctxmgr.memory.scoring import Arms, Column

SCORE_THRESHOLD: Final = 0.05
"""Below this chance nothing is recalled, unless told otherwise."""
NOTHING_RELEVANT: Final = "nothing relevant: the thread says too little of what is asked"
_CONSTANT, _COVERAGE = -3.0, 8.7
"""Logistic regression on questions asked of their own conversation and of others of two kinds,
as many of each, so that .5 is an even chance. Fitted on one kind it tells the other's apart
about as well: -2.8 and 6.9 between people, -3.3 and 10.4 with an assistant."""
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
    return 1.0 / (1.0 + exp(-(_CONSTANT + _COVERAGE * coverage)))
