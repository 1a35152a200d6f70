"""What an episode says of its turns: what was asked, what was done, and how it came out.

All in the turns' own sentences, so that nothing in it stands without its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

from langchain_ctxmgr.analysis import Cue, cues, message_text, sentences
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.extractive import extract
from langchain_ctxmgr.records import LogRecord

_DONE_TOKENS: Final = 140
_READ_CHARS: Final = 4_000
"""Of one message, for what was asked and how it came out."""
_MOST_CHARS: Final = 300
"""Of one sentence."""
_LAST: Final = 4
"""Messages among which the outcome is looked for."""
_OUTCOMES: Final = Cue.DECISION | Cue.COMMITMENT | Cue.CORRECTION
_PEOPLE: Final = frozenset({"human", "chat"})


def weight(records: Sequence[LogRecord]) -> float:
    """How much an episode will matter later, 0 to 1: the chance that one of its turns will.

    Each turn's importance is such a chance (`memory.importance`), taken as independent.
    """
    return 1.0 - prod(1.0 - record.importance for record in records)


def told(records: Sequence[LogRecord], counter: TokenCounter) -> str:
    """What happened in these turns, oldest first; empty where nobody says a word."""
    asked, outcome = _asked(records), _outcome(records)
    done = [
        piece.text.replace(asked, "").replace(outcome, "").strip(" …")
        for piece in extract(records, _DONE_TOKENS, counter)
    ]
    lines = (("Asked", asked), ("Done", " ".join(filter(None, done))), ("Outcome", outcome))
    return "\n".join(f"{name}: {text}" for name, text in lines if text)


def _asked(records: Sequence[LogRecord]) -> str:
    """The first question of a person, or the first thing they say."""
    first = next((each for each in records if each.role in _PEOPLE), None)
    said = [] if first is None else _sentences(first)
    return next((each for each in said if cues(each) & Cue.QUESTION), said[0] if said else "")


def _outcome(records: Sequence[LogRecord]) -> str:
    """The last sentence that decides, commits or corrects, or how the last answer begins."""
    last = [each for each in records[1:] if each.role in _PEOPLE | {"ai"}][-_LAST:]
    for record in reversed(last):
        for sentence in reversed(_sentences(record)):
            if cues(sentence) & _OUTCOMES and not cues(sentence) & Cue.QUESTION:
                return sentence
    answers = [each for each in last if each.role == "ai"]
    said = _sentences(answers[-1]) if answers else []
    return said[0] if said else ""


def _sentences(record: LogRecord) -> list[str]:
    found = sentences(message_text(record.message)[:_READ_CHARS])
    return [" ".join(each.split())[:_MOST_CHARS] for each in found if each.strip()]
