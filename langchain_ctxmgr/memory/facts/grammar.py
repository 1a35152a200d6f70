"""A clause read as subject, verb and what follows.

The subject is the shortest run of words that may be one and is followed by a verb which agrees
with it: `my favourite drink is` is not read as `my favourite` that drinks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from langchain_ctxmgr.memory.facts.lexicon import (
    ABILITIES,
    BARE_KIN,
    FORMS,
    KIN,
    LASTING,
    Verb,
    past,
)
from langchain_ctxmgr.memory.facts.phrases import object_of
from langchain_ctxmgr.memory.facts.values import USER, listed

_MOST_SUBJECT_WORDS: Final = 7
_ADVERBS: Final = listed(
    "also always really just currently usually often still now actually recently already "
    "mostly generally absolutely truly only both all finally regularly sometimes normally "
    "typically officially especially particularly personally even simply definitely totally "
    "genuinely mainly primarily originally happily proudly each too strongly newly "
    "temporarily permanently first almost basically mostly kinda initially eventually soon "
    "tonight later then together"
)
_NEGATIONS: Final = frozenset(("not", "never"))
_BE: Final = {"am": "now", "is": "now", "are": "now", "was": "past", "were": "past"}
_NOT_NAMES: Final = listed(
    "The This That These Those It There Here He She They We You I My Our Your His Her Their "
    "What When Where Why How Who Yes No Not Ok Okay Thanks Please Today Tomorrow Yesterday "
    "Now Then Maybe Also And But So If For In On At By To From With As Of An A Some Any "
    "Every Each All Both Many Most Several One Two Three Nothing Everything Something "
    "Anyone Everyone Someone Nobody Monday Tuesday Wednesday Thursday Friday Saturday "
    "Sunday Let Just Good Great Nice Can Could Would Should Did Do Does Is Are Was Were "
    "Have Has Had Will People Sure Sorry Hello Hi Hey Its Whoever Whatever Another Other "
    "Others Kids Life Work Remember Being Having Getting Living Working Going Such Same "
    "Only Which Whose Home House"
)
_PLURAL_HEADS: Final = listed("people kids children parents men women police folks")
_GROUPS: Final = listed("family team company group band department class")
"""That one may speak of as one or as many."""
_ABLE: Final = frozenset(form.verb for word in ABILITIES for form in FORMS[word])
_CAPITAL: Final = re.compile(r"[A-Z\u00c0-\u00de\u0100-\u017f][\w'\u2019&.-]*$")


class Kind(Enum):
    """Who a subject is."""

    SPEAKER = auto()
    RELATED = auto()
    """The speaker's own: `my sister`, `my laptop`."""
    NAMED = auto()
    OTHER = auto()
    """`the meeting`, and what a pronoun stands for."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who or what a clause is about."""

    text: str
    kind: Kind
    is_plural: bool
    kin: str | None = None
    """`sister`, where the clause names the speaker's own: `my sister Ana`."""
    is_person: bool = False


@dataclass(frozen=True, slots=True)
class Predicate:
    """What a clause says of its subject."""

    verb: Verb | None
    """None: a form of `be`."""
    rest: tuple[str, ...]
    """Words behind it."""
    tense: str
    """`now`, `past`, `perfect`, `progressive` or `planned`."""
    is_negated: bool = False
    has_ended: bool = False
    """No longer so, by the wording."""
    was_once: bool = False
    """`used to`."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A clause that could be read."""

    subject: Subject
    predicate: Predicate


def read(clause: str, antecedent: Subject | None = None) -> Sentence | None:
    """`clause` as subject and predicate; `antecedent` is whom a pronoun means."""
    words = _with_subject(clause.split())
    for end in range(1, min(_MOST_SUBJECT_WORDS, len(words) - 1) + 1):
        subject = _subject(words[:end], antecedent)
        if subject is None:
            continue
        predicate = predicated(words[end:], subject)
        if predicate is not None:
            return Sentence(subject, predicate)
    return None


def _with_subject(words: Sequence[str]) -> Sequence[str]:
    """The clause with the `I` that was left out: `sold the boat last week`."""
    first = words[0].strip(",!.").lower()
    if first == "been":
        return ["I", "have", *words]
    if first == "born":
        return ["I", "was", *words]
    if first in LASTING and (len(words) == 1 or words[0][-1] in ",!"):
        return ["I", "am", first]
    for form in FORMS.get(words[0].lower(), ()):
        if form.form == "past" and form.verb.is_event and words[0].lower() != form.verb.base:
            return ["I", words[0].lower(), *words[1:]]
    return words


def _subject(  # noqa: PLR0911 - a form of subject each
    words: Sequence[str], antecedent: Subject | None
) -> Subject | None:
    first = words[0]
    if first in {"I", "We", "we"}:
        return (
            Subject(USER, Kind.SPEAKER, is_plural=True, is_person=True) if len(words) == 1 else None
        )
    lowered = first.lower()
    if lowered in {"he", "she", "they", "it", "who"}:
        return _meant(lowered, antecedent) if len(words) == 1 else None
    if lowered in {"his", "her", "their", "its"}:
        if len(words) == 1 or antecedent is None or not _is_plain(words[1:]):
            return None
        return Subject(
            f"{antecedent.text}'s {' '.join(words[1:])}", Kind.OTHER, is_plural=_is_plural(words)
        )
    if lowered in {"my", "our"}:
        return _own(words[1:])
    if lowered in BARE_KIN and (len(words) == 1 or all(map(_is_name, words[1:]))):
        return _own([lowered, *words[1:]])
    if lowered == "the":
        return _thing(words[1:])
    return _named(words)


def _meant(pronoun: str, antecedent: Subject | None) -> Subject | None:
    if antecedent is None or (pronoun == "it") == antecedent.is_person:
        return None
    if pronoun == "they" and not antecedent.is_plural:
        return None
    return Subject(
        antecedent.text,
        antecedent.kind,
        is_plural=pronoun == "they",
        is_person=antecedent.is_person,
    )


def _own(words: Sequence[str]) -> Subject | None:
    """`my sister`, `my sister Ana`, `my old laptop`."""
    if not words or words[-1].endswith(":"):
        return None
    bare = [word.strip(",") for word in words]
    names = len(bare)
    while names > 1 and _is_name(bare[names - 1]):
        names -= 1
    kin, name = bare[:names], bare[names:]
    head = kin[-1].lower()
    if name and head in KIN:
        return Subject(
            " ".join(name), Kind.NAMED, is_plural=False, kin=" ".join(kin).lower(), is_person=True
        )
    if any(word.endswith(",") for word in words) or not _is_plain(bare):
        return None
    own = f"{USER}'s {' '.join(bare)}"
    return Subject(
        own, Kind.RELATED, is_plural=_is_plural(bare), is_person=head.removesuffix("s") in KIN
    )


def _thing(words: Sequence[str]) -> Subject | None:
    if not words or not _is_plain(words):
        return None
    return Subject(" ".join(words), Kind.OTHER, is_plural=_is_plural(words))


def _named(words: Sequence[str]) -> Subject | None:
    """`Ana`, `Ana's school`, `Ana and Tom`."""
    if words[0] in _NOT_NAMES or not _is_name(words[0]):
        return None
    owner = next(
        (i for i, word in enumerate(words) if re.search(r"(?:'s|\u2019s|s')$", word)), None
    )
    if owner is not None:
        named, rest = words[: owner + 1], words[owner + 1 :]
        if not rest or not all(map(_is_name, named)) or not _is_plain(rest):
            return None
        return Subject(
            " ".join(words),
            Kind.NAMED,
            is_plural=_is_plural(rest),
            is_person=rest[-1].lower() in KIN,
        )
    if not all(
        _is_name(word)
        or re.fullmatch(r"[\d.]+", word)
        or word in {"and", "of", "de", "van", "von", "del"}
        for word in words
    ) or not (_is_name(words[-1]) or re.fullmatch(r"[\d.]+", words[-1])):
        return None
    return Subject(" ".join(words), Kind.NAMED, is_plural="and" in words, is_person=True)


def _is_name(word: str) -> bool:
    return bool(_CAPITAL.match(word)) and word not in _NOT_NAMES


def _is_plain(words: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[\w'\u2019&/.-]+", word) for word in words) and not any(
        word.lower() in {"i", "we", "you", "that", "which", "who", "and", "or"} for word in words
    )


def _is_plural(words: Sequence[str]) -> bool:
    head = words[-1].lower()
    return head in _PLURAL_HEADS or (
        head.endswith("s") and not head.endswith(("ss", "us", "is", "'s"))
    )


def predicated(  # noqa: C901, PLR0911, PLR0912 - an auxiliary each
    words: Sequence[str], subject: Subject
) -> Predicate | None:
    """The predicate that `words` begin with; None where they begin with no verb known."""
    at, is_negated = _skipped(words, 0)
    ended = [word.lower() for word in words[-2:]]
    has_ended = is_negated and ("anymore" in ended or ended == ["any", "more"])
    if words[at : at + 2] == ["no", "longer"]:
        at, is_negated = _skipped(words, at + 2)
        is_negated = has_ended = True
    if at >= len(words):
        return None
    word = words[at].lower()
    if word in _BE:
        return _being(words, at, subject, is_negated=is_negated, has_ended=has_ended)
    if word in {"do", "does", "did"}:
        after, denied = _skipped(words, at + 1)
        if not denied:
            return None if word == "did" else _verb(words, at, "now", {"base", "third"})
        ended_so = has_ended or "anymore" in ended or ended == ["any", "more"]
        return _verb(words, after, "now", {"base"}, is_negated=True, has_ended=ended_so)
    if word == "used" and words[at + 1 : at + 2] == ["to"]:
        return _verb(words, at + 2, "past", {"base"}, was_once=True)
    if words[at : at + 2] == ["will", "be"] and words[at + 2 : at + 3] in (
        ["held"],
        ["released"],
        ["hosted"],
    ):
        return Predicate(None, tuple(words[at + 2 :]), "now")
    if word == "will":
        after, denied = _skipped(words, at + 1)
        return None if denied else _verb(words, after, "planned", {"base"})
    if word == "can":
        if words[at + 1 : at + 2] == ["not"]:
            return _unable(words, at + 2)
        able = _verb(words, at + 1, "now", {"base"})
        return able if able is not None and able.verb in _ABLE else None
    if word in {"have", "has"} and (perfect := _perfect(words, at, is_negated=is_negated)):
        return perfect
    if word in {"stopped", "quit", "gave"}:
        after = at + 2 if words[at + 1 : at + 2] == ["up"] else at + 1
        stopped = _verb(words, after, "now", {"ing"}, is_negated=True, has_ended=True)
        if stopped is not None and object_of(stopped.rest) is not None:
            return stopped
        return Predicate(FORMS["quit"][0].verb, tuple(words[after:]), "past")
    if word in {"started", "began", "starts", "start"}:
        after = at + 2 if words[at + 1 : at + 2] == ["to"] else at + 1
        started = _verb(words, after, "now", {"ing", "base"})
        if started is not None:
            return started
    agreeing = {"base", "past"} if subject.is_plural else {"third", "past"}
    if subject.text.split()[-1].lower() in _GROUPS:
        agreeing = {"base", "third", "past"}
    return _verb(words, at, "now", agreeing, is_negated=is_negated, has_ended=has_ended)


def _skipped(words: Sequence[str], at: int) -> tuple[int, bool]:
    """Where `words` go on behind adverbs, and whether one of them denies."""
    is_negated = False
    while at < len(words) and (
        words[at].lower().strip(",") in _ADVERBS or words[at].lower() in _NEGATIONS
    ):
        is_negated |= words[at].lower() in _NEGATIONS
        at += 1
    return at, is_negated


def _being(
    words: Sequence[str], at: int, subject: Subject, *, is_negated: bool, has_ended: bool
) -> Predicate | None:
    word = words[at].lower()
    if (word == "am") != (subject.text == USER and subject.kind is Kind.SPEAKER and word == "am"):
        return None
    tense = _BE[word]
    after, denied = _skipped(words, at + 1)
    is_negated |= denied
    if words[after : after + 2] == ["no", "longer"]:
        after, is_negated, has_ended = after + 2, True, True
    if is_negated and words[-1].lower() == "anymore":
        has_ended = True
    if words[after : after + 2] == ["going", "to"] and words[after + 2 : after + 3]:
        following = words[after + 2]
        if following.lower() in FORMS and not following[0].isupper():
            return None if is_negated else _verb(words, after + 2, "planned", {"base"})
    if tense == "now":
        progressive = _verb(
            words, after, "progressive", {"ing"}, is_negated=is_negated, has_ended=has_ended
        )
        if progressive is not None:
            return progressive
    rest = tuple(words[after:])
    return (
        Predicate(None, rest, tense, is_negated=is_negated, has_ended=has_ended) if rest else None
    )


def _perfect(words: Sequence[str], at: int, *, is_negated: bool) -> Predicate | None:
    after, denied = _skipped(words, at + 1)
    is_negated |= denied
    if words[after : after + 1] == ["been"]:
        after, _ = _skipped(words, after + 1)
        progressive = _verb(words, after, "progressive", {"ing"}, is_negated=is_negated)
        rest = tuple(words[after:])
        return progressive or (
            Predicate(None, rest, "now", is_negated=is_negated) if rest else None
        )
    if words[after : after + 1] == ["got"]:
        return (
            None
            if is_negated
            else Predicate(FORMS["have"][0].verb, tuple(words[after + 1 :]), "now")
        )
    return _verb(words, after, "perfect", {"participle", "past"}, is_negated=is_negated)


def _unable(words: Sequence[str], at: int) -> Predicate | None:
    if words[at : at + 1] in (["stand"], ["bear"], ["tolerate"]):
        return Predicate(FORMS["hate"][0].verb, tuple(words[at + 1 :]), "now")
    if words[at : at + 1] in (["eat"], ["drink"], ["have"]):
        return Predicate(FORMS["avoid"][0].verb, tuple(words[at + 1 :]), "now")
    return None


def _verb(
    words: Sequence[str],
    at: int,
    tense: str,
    forms: set[str],
    *,
    is_negated: bool = False,
    has_ended: bool = False,
    was_once: bool = False,
) -> Predicate | None:
    """The verb at `at`, if it is known in one of `forms` and followed as it may be."""
    if at >= len(words):
        return None
    rest = tuple(words[at + 1 :])
    following = next((word.lower().strip(",") for word in rest if word.lower() not in _ADVERBS), "")
    known = [form for form in FORMS.get(words[at].lower(), ()) if form.form in forms]
    known.sort(key=lambda form: following not in form.verb.follows)
    for form in known:
        if not _may_follow(form.verb, following):
            continue
        is_past = tense == "now" and (form.form == "past" or words[at].lower() == past(form.verb))
        said = "past" if is_past else tense
        return Predicate(form.verb, rest, said, is_negated, has_ended, was_once)
    return None


def _may_follow(verb: Verb, following: str) -> bool:
    if following in verb.follows:
        return True
    return "-" in verb.follows and following not in _PREPOSITIONS and following != ""


_PREPOSITIONS: Final = listed(
    "in at on with by to from for of into up down out off about over under through around "
    "away back after before against along like as until till"
)


def coordinated(words: Sequence[str], subject: Subject) -> Iterator[tuple[int, Predicate]]:
    """Where further predicates of the same subject begin: `lives in Rome and teaches maths`."""
    for at, word in enumerate(words[:-1]):
        if word == "and":
            further = predicated(words[at + 1 :], subject)
            if further is not None:
                yield at, further
