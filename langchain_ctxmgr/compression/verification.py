"""Whether a statement says what its sources say, found without a model.

Held against the sources are the things that a summary gets wrong and a reader cannot see:
numbers and identifiers, names, dates, negations and quoted text; and that it is about them at
all. What fails is replaced by the sentence it was about, in the words that were used. The check
errs on the side of the sources: a paraphrase that it cannot follow is replaced too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, NamedTuple

from langchain_ctxmgr import analysis

MIN_SHARED: Final = 0.5
"""Share of a statement's words that its sources must have, in any form of the word."""
_QUOTED_CHARS: Final = 3
"""A shorter quotation, such as an inch mark's, is none."""

_MEASURES: Final = re.compile(r"[\w./@\-]*\d[\w.,:/@%\-]*")
_CLAUSES: Final = re.compile(
    r"[,;:]\s|\b(?:and|but|or|und|aber|y|pero|et|mais)\b|[\uff0c\uff1b\u3001]", re.IGNORECASE
)
_CAPITALISED: Final = re.compile(r"(?<![\w'\u2019])[^\W\d_][\w\u2019'\-]*")
_WORDS: Final = re.compile(r"\w+")
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|nobody|nothing|nowhere|isnt|dont|wont|cant)\b"
    r"|n['\u2019]t\b|不|没|無|无|\b(?:nicht|kein\w*|nie|pas|jamais|nunca|niet|geen|non|não|нет|не)\b",
    re.IGNORECASE,
)
_QUOTED: Final = re.compile(r"[\"“«„]([^\"”»“„]+)[\"”»“]")
_COUNTED: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
_NUMBER_WORDS: Final = {word: str(number) for number, word in enumerate(_COUNTED.split())}
_OPENING: Final = (
    "the a an this that these those they he she it we i you user users assistant someone "
    "nobody everyone everybody people both each all some any there their his her its our my "
    "your in on at by from with for to of as if when while after before since until because "
    "although however also still now then yes no not open agreed decided chose chosen asked "
    "wants wanted needs needed plans planned prefers preferred likes dislikes uses used works "
    "worked said says mentioned reported confirmed goal goals task question questions answer "
    "result results tool tools file files decision decisions preference fact facts summary "
    "note notes current next previous using set added removed fixed failed found gave given"
)
_OPENERS: Final = frozenset(_OPENING.split())
"""Words that may open a statement with a capital though no source has them."""

_LISTED: Final = (
    "january february march april may june july august september october november december"
)
_MONTHS: Final = tuple(_LISTED.split())
_WEEK: Final = "monday tuesday wednesday thursday friday saturday sunday"
_DAYS: Final = tuple(_WEEK.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A message that a statement may rest on."""

    text: str
    """What it says."""
    speaker: str
    """Who says it: a name, or the role."""
    at: datetime | None
    """When; None for what was not said on a day."""

    def sentences(self) -> list[str]:
        """What it says, one sentence each."""
        return [" ".join(part.split()) for part in analysis.sentences(self.text) if part.strip()]


class Evidence:
    """What a few sources say, ready to hold statements against."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._text = " ".join(_folded(source.text) for source in sources)
        days = [source.at.date() for source in sources if source.at is not None]
        dates = [word for day in days for word in _date_words(day)]
        known = [*dates, *(source.speaker for source in sources)]
        self._words = {
            word for text in (self._text, *known) for word in _WORDS.findall(_folded(text))
        }
        self._terms = {term for source in sources for term in analysis.terms(source.text)}
        self._terms.update(term for name in known for term in analysis.terms(name))
        self._measures = set(_measures(self._text)) | {_plain(each) for each in dates}
        self._measures |= {_NUMBER_WORDS[word] for word in self._words & _NUMBER_WORDS.keys()}
        self._sentences = [
            _Said.of(sentence, place)
            for place, source in enumerate(sources)
            for sentence in source.sentences()
        ]
        self._clauses = [
            _Said.of(clause, sentence.source)
            for sentence in self._sentences
            for clause in _clauses(sentence.text)
        ]

    def problem(self, statement: str) -> str | None:
        """What `statement` says that the sources do not; None where they bear it out."""
        for measure in _measures(statement):
            if measure not in self._measures and not self._has_parts(measure):
                return f"{measure!r} is in none of its sources"
        for name in _names(statement):
            if not self._has_name(name):
                return f"the name {name!r} is in none of its sources"
        for quoted in _QUOTED.findall(statement):
            if len(quoted) > _QUOTED_CHARS and _folded(quoted) not in self._text:
                return f"the quotation {quoted!r} is in none of its sources"
        said = set(analysis.terms(statement))
        if not said or len(said & self._terms) < MIN_SHARED * len(said):
            return "its sources are about something else"
        for clause in _clauses(statement):
            near = _nearest(clause, self._clauses)
            if near and all(each.is_negated != _is_negated(clause) for each in near):
                return "it is negated where its source is not, or the other way round"
        return None

    def nearest(self, statement: str) -> list[_Said]:
        """The sentences of the sources that share most words with `statement`; none for none."""
        return _nearest(statement, self._sentences)

    def _has_parts(self, measure: str) -> bool:
        """Whether a written date or the like is made of numbers the sources have."""
        parts = re.split(r"[./:\-]", measure)
        return len(parts) > 1 and all(
            part.lstrip("0") in {each.lstrip("0") for each in self._measures} for part in parts
        )

    def _has_name(self, name: str) -> bool:
        folded = _folded(name).removesuffix("'s").removesuffix("'")
        return all(
            word in self._words or set(analysis.terms(word)) <= self._terms
            for word in _WORDS.findall(folded)
        )


@dataclass(frozen=True, slots=True)
class _Said:
    """A sentence or a clause of a source."""

    text: str
    source: int
    """Which of the sources says it."""
    terms: frozenset[int] = field(repr=False)
    is_negated: bool

    @classmethod
    def of(cls, text: str, source: int) -> _Said:
        return cls(text, source, frozenset(analysis.terms(text)), _is_negated(text))


class Extracted(NamedTuple):
    """A sentence that stands in for a statement."""

    text: str
    source: int
    """Which of the sources says it."""


def extracted(statement: str, evidence: Evidence) -> Extracted | None:
    """The sentence `statement` is about, word for word; None if it is about none of them."""
    near = evidence.nearest(statement)
    return Extracted(near[0].text, near[0].source) if near else None


def _nearest(text: str, said: Sequence[_Said]) -> list[_Said]:
    """What of `said` shares most words with `text`; nothing where none does."""
    terms = set(analysis.terms(text))
    shared = [len(terms & each.terms) for each in said]
    most = max(shared, default=0)
    return [each for each, n in zip(said, shared, strict=True) if n == most] if most else []


def _clauses(sentence: str) -> list[str]:
    return [part for part in _CLAUSES.split(sentence) if part.strip()]


def _is_negated(text: str) -> bool:
    return _NEGATION.search(text) is not None


def _folded(text: str) -> str:
    return " ".join(text.replace("\u2019", "'").casefold().split())


def _plain(measure: str) -> str:
    return measure.casefold().replace(",", "").rstrip(".:/-%")


def _measures(text: str) -> list[str]:
    """Numbers and whatever has a digit in it, written one way."""
    return [_plain(found) for found in _MEASURES.findall(text) if found]


def _names(statement: str) -> Iterator[str]:
    """Capitalised words, but for one that opens a sentence as any word may."""
    for part in analysis.sentences(statement):
        for found in _CAPITALISED.finditer(part):
            word = found.group()
            if not word[0].isupper():
                continue
            opens = not _WORDS.search(part[: found.start()])
            if not (opens and _folded(word) in _OPENERS):
                yield word


def _date_words(day: date) -> Iterable[str]:
    """The ways a message's own day may be written."""
    month, name = _MONTHS[day.month - 1], _DAYS[day.weekday()]
    return (day.isoformat(), str(day.year), str(day.month), str(day.day), month, month[:3], name)
