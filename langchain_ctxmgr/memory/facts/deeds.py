"""What a verb and its object say that lasts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from langchain_ctxmgr.memory.facts.complements import Assertion
from langchain_ctxmgr.memory.facts.grammar import Kind, Predicate, Subject
from langchain_ctxmgr.memory.facts.lexicon import (
    DENIED,
    KIN,
    OPPOSITES,
    STATES,
    Verb,
    past,
    third_person,
)
from langchain_ctxmgr.memory.facts.phrases import is_abstract, object_of
from langchain_ctxmgr.memory.facts.values import Category, Effect, listed

_BETWEEN: Final = listed("also currently now mostly together really only just still")
_ADVERBIAL: Final = listed("up close back out away place")
_AUXILIARY: Final = listed("to been known seen gone got had done made")
_CHILD: Final = re.compile(r"\b(?:baby|child|twins|girl|boy)\b")
_AGE: Final = re.compile(r"\d+|[a-z]+ty\b|[a-z]+een\b")
_TAKEN: Final = re.compile(
    r"\b(?:class(?:es)?|lessons?|courses?|medication|medicine|pills?|tablets?|insulin|vitamins?"
    r"|supplements?|bus|train|metro|subway"
    r"|tram|ferry|\d+ ?mg|every|daily|antidepressants|statins)\b"
)
_GOT: Final = re.compile(
    r"(?:an?|the|my|our|two|three|married|engaged|divorced|promoted|accepted|hired|fired|laid"
    r"|pregnant|new)\b"
)
_TASTES: Final = listed("like love enjoy adore hate dislike prefer")
_EXERCISES: Final = listed(
    "yoga pilates karate judo crossfit gymnastics ballet pottery ceramics taekwondo"
)
_PARTICIPLES: Final = listed("married engaged divorced promoted accepted hired fired pregnant")
_SO_LONG: Final = re.compile(r"\b(?:for|since|all my|over the (?:past|last))\b")
_JUST_NOW: Final = re.compile(
    r"\b(?:right now|at the moment|today|tonight|this (?:morning|afternoon|evening))\b"
)
_OWN_OR_NEW: Final = listed(
    "pass open order meet finish start begin pick complete win break leave get choose"
)
"""Of these the past is worth keeping with an object of one's own, or a name: `finished my "
"thesis`."""
_LOST: Final = listed("job house home leg arm sight hearing ring wallet passport")
_ORDINAL: Final = listed(
    "first second third last other new old next same previous former latter one latest"
)
_BRIEF: Final = re.compile(
    r"^(?:(?:a )?few |an? |\d+ |five |ten )?(?:seconds?|minutes?|moments?|hours?)\b|\b(?:minutes"
    r"|seconds)$"
)
_PLACE_OR_TIME: Final = re.compile(
    r"(?:[A-Z]|every\b|the \w+ (?:every|on|in)|\w+ (?:every|each)|school|college|university"
    r"|church|gym|the (?:gym|beach|mountains|library|market|office)|therapy)"
)


class _Deed(NamedTuple):
    """A verb with its object, as a clause has them."""

    verb: Verb
    thing: str
    particle: str
    predicate: Predicate
    subject: Subject

    @property
    def first(self) -> str:
        """The word behind the verb."""
        return self.predicate.rest[0]

    @property
    def head(self) -> str:
        """The last word of the object."""
        return self.thing.rsplit(maxsplit=1)[-1].lower()

    @property
    def said(self) -> str:
        """All behind the verb."""
        return " ".join(self.predicate.rest)

    @property
    def is_done(self) -> bool:
        """Whether it is told as over: `adopted`, `has adopted`."""
        return self.predicate.tense in {"past", "perfect"}


def doing(subject: Subject, predicate: Predicate, verb: Verb) -> Assertion | None:
    """What `subject` is said to do; None where it is over with the day, or says nothing."""
    tense = predicate.tense
    goes_on = tense == "perfect" and _SO_LONG.search(" ".join(predicate.rest)) is not None
    was_once = predicate.was_once or (tense == "past" and verb.base in STATES)
    is_done = tense in {"past", "perfect"} and not (predicate.was_once or goes_on)
    if is_done and not (verb.is_event or was_once):
        return None
    rest, particle = _followed(verb, predicate.rest)
    keeps_time = verb.category is Category.EVENT or verb.base in _TASTES
    thing = object_of(rest, keeps_time=keeps_time)
    if thing is None or _says_nothing(_Deed(verb, thing, particle, predicate, subject)):
        return None
    if particle == "from" and (reached := re.split(r" to (?=[A-Z])", thing))[1:]:
        thing, particle = reached[1], "to"
    relation = f"{past(verb) if is_done else third_person(verb)} {particle}".rstrip()
    effect = Effect.HELD if was_once else Effect.ENDS if predicate.has_ended else Effect.HOLDS
    if predicate.is_negated and effect is Effect.HOLDS:
        denied = _denial(verb, thing)
        if denied is None:
            return None
        relation = denied
    topic = _topic(verb, particle, tense)
    return Assertion(subject.text, relation, _shorter(verb, thing), verb.category, effect, topic)


def _topic(verb: Verb, particle: str, tense: str) -> str | None:
    if verb.base == "work":
        return "employer" if particle in {"at", "for"} else None
    is_to_come = verb.is_event and tense in {"planned", "progressive"}
    return None if is_to_come or particle in {"from", "out"} else verb.topic


def _shorter(verb: Verb, thing: str) -> str:
    """The object without what it is compared with, or who lives there too."""
    if verb.base == "prefer":
        return re.split(r" (?:over|to) (?=\w)", thing)[0]
    if verb.category is Category.PLACE:
        return re.split(r" with (?=my|his|her|our|their|two|three|a )", thing)[0]
    return thing


def _denial(verb: Verb, thing: str) -> str | None:
    """The relation that not doing it comes to; None where it says little."""
    head = thing.rsplit(maxsplit=1)[-1].removesuffix("s")
    is_known = verb.base in DENIED or (verb.base == "have" and head in {*KIN, "children"})
    return OPPOSITES.get(third_person(verb)) or (f"does not {verb.base}" if is_known else None)


def _followed(verb: Verb, rest: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The words of the object, and the preposition ahead of it."""
    while rest and rest[0].lower() in _BETWEEN:
        rest = rest[1:]
    if not rest or rest[0].lower() not in verb.follows:
        return rest, ""
    particle, after = rest[0].lower(), rest[1:]
    if particle in _ADVERBIAL and after and after[0] in {"in", "at", "on", "to", "for", "with"}:
        return after[1:], f"{particle} {after[0]}"
    is_infinitive = verb.category is Category.PREFERENCE and particle == "to"
    return after, "" if is_infinitive and verb.base != "listen" else particle


def _says_nothing(deed: _Deed) -> bool:
    """Whether the verb with this object is idle talk: `I have a question`."""
    verb, tense = deed.verb, deed.predicate.tense
    is_now = _JUST_NOW.search(deed.said) is not None
    if tense == "planned" and (
        is_now or not (verb.category is Category.EVENT or verb.base == "move")
    ):
        return True
    if tense == "progressive" and is_now and verb.base != "have":
        return True
    is_idle = _IDLE.get(verb.base)
    if is_idle is not None:
        return is_idle(deed)
    if verb.category is Category.PREFERENCE and deed.first == "the":
        words = deed.thing.split()
        return len(words) > 1 and (deed.thing.islower() or words[0] in _ORDINAL)
    return is_abstract(deed.thing) or (verb.category is Category.EVENT and _is_of_the_day(deed))


def _is_of_the_day(deed: _Deed) -> bool:
    """Whether a past event is soon forgotten: `I opened the file`."""
    if _BRIEF.search(deed.thing):
        return True
    if not deed.is_done or deed.particle or not deed.said.islower():
        return False
    first = deed.first.lower()
    is_any = deed.verb.base in _OWN_OR_NEW and first not in {"a", "an", "my", "our"}
    return is_any or first in {"the", "this", "that", "someone"}


def _had_nothing(deed: _Deed) -> bool:
    is_verbal = deed.first in _AUXILIARY or deed.first.endswith("ed")
    return is_verbal or deed.predicate.tense == "perfect" or is_abstract(deed.thing)


def _got_nothing(deed: _Deed) -> bool:
    if deed.predicate.tense == "progressive":
        return deed.first not in _PARTICIPLES
    return not deed.is_done or _GOT.match(deed.first) is None or is_abstract(deed.thing)


_IDLE: Final[Mapping[str, Callable[[_Deed], bool]]] = {
    "have": _had_nothing,
    "get": _got_nothing,
    "read": lambda deed: deed.predicate.tense != "progressive",
    "watch": lambda deed: deed.predicate.tense != "progressive",
    "mean": lambda deed: deed.subject.kind is Kind.SPEAKER,
    "do": lambda deed: deed.thing.split(maxsplit=1)[0].lower() not in _EXERCISES,
    "expect": lambda deed: _CHILD.search(deed.thing) is None,
    "take": lambda deed: not deed.particle and _TAKEN.search(deed.thing) is None,
    "go": lambda deed: _PLACE_OR_TIME.match(deed.thing) is None,
    "turn": lambda deed: _AGE.match(deed.thing) is None,
    "lose": lambda deed: deed.head not in {*KIN, *_LOST},
    "use": lambda deed: deed.first in {"the", "this"} or is_abstract(deed.thing),
}
"""What each verb's object must be not to be idle talk. Of `read` and `watch` the present tense of
`I` looks like the past: `I read the article`."""
