"""What a question asks for: its topic, whom it names, when, and how.

The topic is what is left when names of participants, talk about the conversation itself
("can you list", "throughout our chats") and sentences about the answer's form ("Answer in
one sentence.") are taken out: a name pulls up turns that
address a person, while the evidence is mostly spoken by that person, so names come back
as a boost for the speaker. Rules are English; a question in another language keeps all
its words and is matched on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher

from langchain_ctxmgr.analysis import pair_ids, terms
from langchain_ctxmgr.memory.dates import Period, periods

GENERIC_NAMES = frozenset(
    {"user", "human", "customer", "assistant", "ai", "bot", "chatbot", "agent", "model", "system"}
)
"""Names that say which side spoke, not who."""

READ_CHARS = 8_192
"""So much of a question is read, half of it at either end, where people put what they ask
when they paste a text along: some 10 ms of work."""
NAME_SIMILARITY = 0.7
"""How alike a word and a participant's name must be, with the same initial."""
_MIN_FUZZY_CHARS = 4

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['\u2019]s?$")
_TALK = re.compile(
    r"""
      \b(?:can|could|would|will)\s+you\s+(?:please\s+)?
        (?:list|tell|remind|walk|give|show|summari[sz]e|describe|explain|provide|help)
        (?:\s+(?:me|us))?(?:\s+(?:through|about|of|with))?
        (?:\s+an?\s+(?:\w+\s+){0,2}(?:summary|overview|recap|list)\s+of)?\b
    | \b(?:throughout|across|during|over|in|from|based\s+on|according\s+to)\s+
        (?:all\s+(?:of\s+)?)?(?:our|my|the|these)\s+(?:\w+\s+)?
        (?:conversations?|chats?|messages?|sessions?|discussions?)\b(?:,?\s+in\s+order\b)?
    | \b(?:(?P<order>(?:the|what)\s+(?:\w+\s+)?order\s+(?:(?:in\s+)?which\s+)?)|did\s+)?
        (?:i|we|you)(?:['\u2019]ve|\s+have|['\u2019]d|\s+had|\s+ever)?\s+
        (?:say|said|mention|mentioned|tell|told|discuss|discussed|talk|talked|raised
          |covered|brought\s+up)\b(?:\s+about)?(?:\s+so\s+far\b)?
        (?(order)(?:\s+(?:\w+\s+){0,2}(?:aspects|topics|points|parts|things)\s+(?:of|about))?)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FORMAT = re.compile(
    r"""
    (?<=[.!?;])\s+(?:please\s+)?
      (?:answer|reply|respond|mention|list|name|give|use|keep|limit|write|return|output|format
        |include|be|make\s+it)\b
      (?=[^.!?]*\b(?:only|just|at\s+most|no\s+more\s+than|up\s+to|exactly|brief|briefly|concise
        |concisely|short|words?|sentences?|items?|bullets?|paragraphs?|lines?|json|yes\s+or\s+no)\b)
      [^.!?]*[.!?]*
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""A sentence after the question that says how to answer it."""
_LOOSE = re.compile(r"[\s,;:]+(?=[.?!])|\s+(?=[,;:])")
"""What is left before a mark when the words ahead of it are taken out."""
_JOINT = re.compile(r"\s*(?:[;,]\s*(?:and|or|but|then)?|\b(?:and|or|but)\b)\s+", re.IGNORECASE)
"""What joins the parts of a compound question."""
_PART_TERMS = 2
"""A part has so many different words of its own; "salt and pepper" has no parts."""
_LIST = re.compile(
    r"""
      ^\W*(?:what|which)\s+(?:(?:kinds?|types?|sorts?)\s+of\s+)?
        (?!(?:is|was|does|did|do|has|have|this|his)\b)(?:[\w-]+\s+){0,2}?(?!\w*(?:ss|us|is)\b)\w+s
        \s+(?:has|have|does|do|did|are|were|was|is)\b
    | \b(?:list|enumerate|summari[sz]e|summary|overview|recap|walk\s+me\s+through)\b
    | \bhow\s+many\b | \bwhat\s+(?:are|were)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WHEN = re.compile(
    r"\b(?:when|how\s+long|how\s+many\s+(?:days|weeks|months|years|hours|minutes)|how\s+often"
    r"|what\s+(?:date|day|month|year|time)|which\s+(?:date|day|month|year)|since\s+when"
    r"|how\s+(?:old|recently))\b",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"\b(?:did|have|had|do|were|are)\s+you\s+(?:\w+\s+)?"
    r"(?:say|said|tell|told|recommend|suggest|advise|mention|propose|explain|give|given|gave"
    r"|provide|describe|write|wrote|answer|list|outline|show|help)"
    r"|\byou(?:['\u2019]ve|\s+have|\s+had)?\s+(?:said|told|recommended|suggested|advised|mentioned"
    r"|proposed|explained|gave|given|provided|described|wrote|written|answered|listed|outlined)"
    r"|\byour\s+(?:\w+\s+)?(?:suggestion|recommendation|advice|answer|explanation|proposal|list)s?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as recall reads it."""

    text: str
    """The topic, to be embedded: without names, talk about talk and the answer's form."""
    terms: tuple[int, ...]
    """The topic's words, each once."""
    pairs: tuple[int, ...]
    """Its adjacent words, each two once."""
    parts: tuple[tuple[int, int], ...]
    """Which characters of `text` are its parts, each asked for on its own; none where it is not
    compound."""
    speakers: frozenset[str]
    """Participants that are named."""
    periods: tuple[Period, ...]
    """The dates it names."""
    is_list: bool
    """Whether many turns may hold a part of the answer."""
    asks_when: bool
    asks_machine: bool
    """Whether it asks what the assistant said."""
    has_topic: bool = True
    """Whether it says anything of what it is about."""


def read_question(
    text: str,
    *,
    participants: Iterable[str],
    asked_at: datetime,
    said_until: datetime | None = None,
) -> Question:
    """Read `text`, asked about a conversation between `participants` up to `said_until`."""
    text = _read_part(text)
    topic = _TALK.sub(" ", _FORMAT.sub(" ", text))
    topic, named = _without_names(topic, participants)
    found = terms(topic)
    has_topic = bool(found)
    if not found:
        topic, found = text, terms(text)
    topic = _LOOSE.sub("", " ".join(topic.split()))
    return Question(
        text=topic,
        terms=tuple(dict.fromkeys(found)),
        pairs=tuple(pair_ids(found)),
        parts=_parts(topic),
        speakers=named,
        periods=periods(text, asked_at, said_until),
        is_list=_LIST.search(text) is not None,
        asks_when=_WHEN.search(text) is not None,
        asks_machine=_MACHINE.search(text) is not None,
        has_topic=has_topic,
    )


def _parts(topic: str) -> tuple[tuple[int, int], ...]:
    """Where the parts of a compound question begin and end; none of one that is not."""
    joints = [joint.span() for joint in _JOINT.finditer(topic)]
    starts = [0, *(end for _, end in joints)]
    ends = [*(start for start, _ in joints), len(topic)]
    parts = tuple(
        part
        for part in zip(starts, ends, strict=True)
        if len(set(terms(topic[slice(*part)]))) >= _PART_TERMS
    )
    return parts if len(parts) > 1 else ()


def _read_part(text: str) -> str:
    """All of a question, or the beginning and end of a long one, cut between words."""
    if len(text) <= READ_CHARS:
        return text
    half = READ_CHARS // 2
    head = text[:half].rpartition(" ")[0] or text[:half]
    tail = text[-half:].partition(" ")[2] or text[-half:]
    return f"{head} {tail}"


def _without_names(text: str, participants: Iterable[str]) -> tuple[str, frozenset[str]]:
    """`text` without the words that name a participant, and who was named."""
    parts = {
        part.casefold(): name
        for name in sorted(participants)
        for part in _WORD.findall(name)
        if name.casefold() not in GENERIC_NAMES and len(part) > 1
    }
    named: set[str] = set()
    if not parts:
        return text, frozenset()

    def replaced(word: re.Match[str]) -> str:
        name = _named(_POSSESSIVE.sub("", word.group()), parts)
        if name is None:
            return word.group()
        named.add(name)
        return " "

    return _WORD.sub(replaced, text), frozenset(named)


def _named(word: str, parts: dict[str, str]) -> str | None:
    folded = word.casefold()
    if folded in parts:
        return parts[folded]
    if len(word) < _MIN_FUZZY_CHARS or not word[0].isupper():
        return None
    alike = (
        (SequenceMatcher(None, folded, part).ratio(), name)
        for part, name in parts.items()
        if part[0] == folded[0]
    )
    ratio, name = max(alike, default=(0.0, ""))
    return name if ratio >= NAME_SIMILARITY else None
