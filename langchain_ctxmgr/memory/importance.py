"""How much a message will matter later, judged from its text and what was said before it.

People come back to what happened and when, to decisions, dates, wishes and names, and to what
answers a question; they hardly come back to greetings. The score is the chance that a message
holds what is asked for later, by a logistic of few features (`memory.telling`), so every point
of it has a reason that can be shown. What people tell each other is weighed apart from what a
person tells an assistant (`memory.importance_weights`).

Stored with a message is the importance of its own text. Who holds the conversation weighs it
again in context: what is new, which names come first, what answers a question, what stands early
and what is taken up again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp
from typing import Final, NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr.analysis import Cue, cues, message_text
from langchain_ctxmgr.memory.importance_weights import FITTED, Fitted, Side
from langchain_ctxmgr.memory.query import GENERIC_NAMES
from langchain_ctxmgr.memory.telling import Fresh, Heard, Telling, alone, telling

_BASE: Final = {"system": 0.5, "ai": -2.7, "tool": -3.2, "function": -3.2}
"""Log-odds, set by hand, of what no person wrote: assistants mostly elaborate, tool output can
usually be fetched again."""
_FITTED_CUES: Final = {
    "date": Cue.DATE,
    "number": Cue.NUMBER,
}
_CUES: Final = {
    "identity": Cue.IDENTITY,
    "decision": Cue.DECISION,
    "correction": Cue.CORRECTION,
    "commitment": Cue.COMMITMENT,
    "error": Cue.ERROR,
}
_CUE_WEIGHT: Final = 0.1
"""Log-odds of each of `_CUES`, set by hand: the conversations fitted on hold too few of them, and
more than this lets their words outweigh what a message tells."""
_SMALL_TALK: Final = 0.01

_REASONS: Final = {
    "orders": "tells what to keep to",
    "prefers": "states a preference",
    "never": "says what never was or is no longer",
    "date": "names a date",
    "number": "holds a number",
    "identity": "says who someone is",
    "decision": "decides",
    "correction": "corrects",
    "commitment": "commits to something",
    "error": "reports an error",
    "lately": "says what happened lately",
    "said": "tells much",
    "dense": "tells it in few words",
    "past": "tells of the past",
    "urges": "less: encourages or advises",
    "body": "speaks of health",
    "news": "says what was not said before",
    "names": "names someone or something first",
    "opens": "opens a session",
    "answers": "answers a question",
    "again": "is taken up again",
    "early": "stands early in the conversation",
}
_LEAST_REASON: Final = 0.1
"""In log-odds; less is not worth telling."""


class Importance(NamedTuple):
    """How much a message will matter later, and why."""

    score: float
    """0 to 1."""
    reasons: tuple[str, ...]
    """Who wrote it, then what raised or lowered the score, what counts most first."""


def importance(
    message: BaseMessage, text: str | None = None, seen: Cue | None = None
) -> Importance:
    """The importance of `message` by its own text.

    `text` and the cues `seen` in it spare reading it again. A message that says nothing weighs
    0, small talk next to nothing. A named AI message is taken for a person's.
    """
    text = message_text(message) if text is None else text
    seen = cues(text) if seen is None else seen
    side = side_of(message, people=_is_named(message))
    told = telling("" if side is Side.MACHINE else text)
    return _weighed(message, text, Said(side, told, alone(told), seen), FITTED)


def in_context(
    messages: Sequence[BaseMessage], sessions: Sequence[int], *, fitted: Fitted = FITTED
) -> list[Importance]:
    """The importance of each of `messages`, given the others; oldest first, of one thread.

    Args:
        messages: As recorded.
        sessions: The session of each: what opens one is often what happened since the last.
        fitted: Other weights than the package's.

    Raises:
        ValueError: If there are not as many `sessions` as `messages`.
    """
    if len(sessions) != len(messages):
        raise ValueError(
            f"sessions must have one for each of {len(messages)} messages, got {len(sessions)}"
        )
    return [
        _weighed(message, message_text(message), said, fitted)
        for message, said in zip(messages, heard(messages, sessions), strict=True)
    ]


class Said(NamedTuple):
    """A message as it stands in its conversation."""

    side: Side
    told: Telling
    fresh: Fresh
    seen: Cue


def heard(messages: Sequence[BaseMessage], sessions: Sequence[int]) -> Iterator[Said]:
    """Each of `messages` as the one who listens hears it; see `in_context`."""
    people = any(message.type == "human" and _is_named(message) for message in messages)
    sides = [side_of(message, people=people) for message in messages]
    texts = [message_text(message) for message in messages]
    told = [telling(text) for text in texts]
    last = {
        term: place
        for place, side in enumerate(sides)
        if side is not Side.MACHINE
        for term in told[place].terms
    }
    listener = Heard({message.name for message in messages if message.name}, last)
    for side, each, text, session in zip(sides, told, texts, sessions, strict=True):
        yield Said(side, each, listener.fresh(each, session), cues(text))


def side_of(message: BaseMessage, *, people: bool) -> Side:
    """Who speaks to whom, where the human messages carry names (`people`) or not."""
    role = _role(message)
    if role in {"human", "chat"}:
        return Side.BETWEEN_PEOPLE if people else Side.TO_ASSISTANT
    is_person = people and role == "ai" and _is_named(message)
    return Side.BETWEEN_PEOPLE if is_person else Side.MACHINE


def features(said: Said) -> dict[str, float]:
    """What the fitted weights are multiplied with, by name."""
    told, fresh = said.told, said.fresh
    if said.side is Side.MACHINE:
        return {"early": fresh.early}
    return {
        **{name: float(bool(said.seen & cue)) for name, cue in _FITTED_CUES.items()},
        "lately": told.lately,
        "said": told.said,
        "dense": told.dense,
        "past": told.past,
        "urges": told.urges,
        "body": told.body,
        "orders": told.orders,
        "prefers": told.prefers,
        "never": told.never,
        **fresh._asdict(),
    }


def _parts(role: str, said: Said, fitted: Fitted) -> dict[str, float]:
    """The log-odds of a message, in parts."""
    weights = fitted[said.side]
    found = {name: weights[name] * value for name, value in features(said).items()}
    cued = {name: _CUE_WEIGHT for name, cue in _CUES.items() if said.seen & cue}
    is_machine = said.side is Side.MACHINE
    base = _BASE.get(role, _BASE["ai"]) if is_machine else weights["base"]
    return {"base": base, **found, **cued}


def _weighed(message: BaseMessage, text: str, said: Said, fitted: Fitted) -> Importance:
    if not text.strip():
        return Importance(0.0, ("says nothing",))
    if said.seen & Cue.SMALL_TALK:
        return Importance(_SMALL_TALK, ("small talk",))
    parts = _parts(_role(message), said, fitted)
    score = 1 / (1 + exp(-sum(parts.values())))
    told = sorted(
        (name for name, part in parts.items() if name != "base" and abs(part) >= _LEAST_REASON),
        key=lambda name: -abs(parts[name]),
    )
    reasons = (_REASONS[name] for name in told)
    return Importance(round(score, 4), (f"{_role(message)} message", *reasons))


def _role(message: BaseMessage) -> str:
    return message.type.removesuffix("MessageChunk").lower()


def _is_named(message: BaseMessage) -> bool:
    """Whether it carries a name of its own, as in a logged chat between people."""
    return message.name is not None and message.name.casefold() not in GENERIC_NAMES
