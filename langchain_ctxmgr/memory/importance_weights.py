"""What each feature of a message counts for its importance, by who speaks to whom.

Log-odds per unit, printed by `benchmarks/importance.py --fit`: a logistic regression with a
ridge on whether a turn is evidence for a question. Between people it was fitted on four
conversations of two friends over months, to an assistant on eight long chats of a user; what
such weights reach on conversations that they were not fitted on stands in the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias


class Side(Enum):
    """Who speaks to whom."""

    BETWEEN_PEOPLE = "between people"
    TO_ASSISTANT = "to an assistant"
    MACHINE = "by a machine"


Fitted: TypeAlias = Mapping[Side, Mapping[str, float]]
"""By feature, `base` among them but for a machine, whose base goes by its role."""

FITTED: Final[Fitted] = {
    Side.BETWEEN_PEOPLE: {
        "base": -4.00,
        "date": 0.10,
        "number": 0.85,
        "lately": 1.86,
        "said": 0.72,
        "dense": 0.16,
        "past": 1.57,
        "urges": -5.75,
        "body": 0.90,
        "orders": 0.28,
        "prefers": 0.73,
        "never": 0.10,
        "news": 1.66,
        "names": 2.37,
        "opens": 1.11,
        "answers": 1.17,
        "again": 0.10,
        "early": 0.10,
    },
    Side.TO_ASSISTANT: {
        "base": -4.56,
        "date": 0.28,
        "number": 0.41,
        "lately": 0.22,
        "said": 0.01,
        "dense": 1.05,
        "past": 0.10,
        "urges": -0.10,
        "body": 0.10,
        "orders": 1.76,
        "prefers": 1.74,
        "never": 1.56,
        "news": 0.33,
        "names": 0.10,
        "opens": 0.10,
        "answers": 0.10,
        "again": 1.91,
        "early": 1.08,
    },
    Side.MACHINE: {
        "early": 1.18,
    },
}
