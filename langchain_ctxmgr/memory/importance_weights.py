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
"""By feature, `base` among them; a machine has none."""

FITTED: Final[Fitted] = {
    Side.BETWEEN_PEOPLE: {
        "base": -4.05,
        "instruction": 0.36,
        "preference": 0.25,
        "date": 0.10,
        "number": 0.81,
        "lately": 1.87,
        "said": 0.69,
        "dense": 0.24,
        "past": 1.65,
        "urges": -5.92,
        "body": 1.02,
        "news": 1.71,
        "names": 2.34,
        "opens": 1.13,
        "answers": 1.18,
    },
    Side.TO_ASSISTANT: {
        "base": -3.20,
        "instruction": 0.42,
        "preference": 1.36,
        "date": 0.17,
        "number": 0.24,
        "lately": 0.59,
        "said": 0.00,
        "dense": 2.10,
        "past": 0.10,
        "urges": -0.10,
        "body": 0.10,
        "news": 1.04,
        "names": 0.10,
        "opens": 0.10,
        "answers": 0.10,
    },
}
