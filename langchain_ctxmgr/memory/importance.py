"""How much a message will matter later, judged by rules when it is recorded.

People come back to facts about themselves, decisions, dates, commitments and
corrections; they hardly come back to greetings. The score decides what a summary keeps
first and what `preservation` weighs, so it is computed once and stored, and every
point of it has a reason that can be shown.
"""

from __future__ import annotations

from typing import NamedTuple

from langchain_core.messages import BaseMessage

from langchain_ctxmgr.analysis import Cue, cues, message_text

_BASE = {"system": 0.5, "human": 0.35, "ai": 0.2, "tool": 0.15, "function": 0.15, "chat": 0.3}
"""What a message weighs before anything is known of it: people state facts, assistants
mostly elaborate, tool output can usually be fetched again."""

_WEIGHTS: tuple[tuple[int, float, str], ...] = (
    (Cue.INSTRUCTION.value, 0.20, "tells the assistant what to keep to"),
    (Cue.IDENTITY.value, 0.15, "says who someone is"),
    (Cue.DECISION.value, 0.15, "decides"),
    (Cue.CORRECTION.value, 0.15, "corrects"),
    (Cue.COMMITMENT.value, 0.10, "commits to something"),
    (Cue.PREFERENCE.value, 0.10, "states a preference"),
    (Cue.DATE.value, 0.10, "names a date"),
    (Cue.NUMBER.value, 0.05, "holds a number"),
    (Cue.TIME.value, 0.05, "says when"),
    (Cue.ERROR.value, 0.05, "reports an error"),
    (Cue.QUESTION.value, -0.05, "asks"),
)
_MACHINE_SHARE = 0.4
"""Share of a cue's weight where a machine wrote the text: long answers hold every cue."""

_SMALL_TALK = 0.02
_SHORT_CHARS = 20
_SHORT = 0.10


class Importance(NamedTuple):
    """How much a message will matter later, and why."""

    score: float
    """0 to 1."""
    reasons: tuple[str, ...]


def importance(
    message: BaseMessage, text: str | None = None, seen: Cue | None = None
) -> Importance:
    """The importance of `message`; `text` and the cues `seen` in it spare reading it again.

    A message that says nothing weighs 0, small talk next to nothing.
    """
    said = message_text(message) if text is None else text
    if not said.strip():
        return Importance(0.0, ("says nothing",))
    found = (cues(said) if seen is None else seen).value
    if found & Cue.SMALL_TALK.value:
        return Importance(_SMALL_TALK, ("small talk",))
    role = message.type.removesuffix("MessageChunk").lower()
    score = _BASE.get(role, _BASE["chat"])
    reasons = [f"{role} message"]
    share = 1.0 if role in {"human", "system"} or _is_person(message) else _MACHINE_SHARE
    for cue, weight, reason in _WEIGHTS:
        if found & cue:
            score += weight * share
            reasons.append(reason)
    if len(said) < _SHORT_CHARS:
        score -= _SHORT
        reasons.append("short")
    return Importance(round(min(max(score, _SMALL_TALK), 1.0), 4), tuple(reasons))


def _is_person(message: BaseMessage) -> bool:
    """Whether an AI message stands for a person: it carries a name, as in a logged chat."""
    return message.type == "ai" and bool(message.name)
