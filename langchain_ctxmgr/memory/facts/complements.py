"""What a form of `be` and its complement say that lasts."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from langchain_ctxmgr.memory.facts.grammar import Kind, Predicate, Subject
from langchain_ctxmgr.memory.facts.lexicon import KIN, LASTING
from langchain_ctxmgr.memory.facts.phrases import is_vague, object_of
from langchain_ctxmgr.memory.facts.values import USER, Category, Effect, listed


class Assertion(NamedTuple):
    """What a clause says, in one relation."""

    subject: str
    relation: str
    object: str
    category: Category
    effect: Effect = Effect.HOLDS
    topic: str | None = None


_CAPITALS: Final = r"A-Z\u00c0-\u00de\u0100-\u017f"
_NAME: Final = re.compile(
    rf"(?:Dr\.? )?[{_CAPITALS}][\w'\u2019&.-]*"
    rf"(?: (?:[{_CAPITALS}\d][\w'\u2019&.-]*|de|van|von|del)){{0,3}}$"
)
_DAY_OR_TIME: Final = (
    r"(?:\d|January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?"
    r"|Oct|Nov|Dec|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|next|tomorrow|tonight"
    r"|noon|midnight|the (?:\d|first|last|end)|early|late|mid|end of)"
)
_PASSIVES: Final = (
    # wording; relation (None: as worded); category; topic
    (r"(?:originally |born and raised )?from (?=[A-Z])", "is from", "place", "origin"),
    (
        r"from (?!home|work|scratch|here|there|the|my|now|a\b|an\b|what)",
        "is from",
        "place",
        "origin",
    ),
    (r"born and raised in", "was born in", "place", "birthplace"),
    (r"born (?:in|at) (?=[A-Z])", "was born in", "place", "birthplace"),
    (r"born (?:on|in) ", "was born on", "event", "birthday"),
    (r"raised in", "grew up in", "place", ""),
    (r"(?:currently |now )?based (?:in|at|out of)", "is based in", "place", "home"),
    (r"(?:located|situated) (?:in|at|on|near)", "is located in", "place", "location"),
    (r"(?:headquartered) in", "is headquartered in", "place", "location"),
    (r"(?:called|named|nicknamed|known as)", "is named", "concept", "name"),
    (
        r"(?:severely |very |mildly |highly |deathly |extremely )?allergic to",
        "is allergic to",
        "person",
        "",
    ),
    (r"(?:lactose|gluten)[ -]intolerant", "", "person", ""),
    (r"(?:intolerant|sensitive) to", "is intolerant to", "person", ""),
    (r"(?:afraid|scared|terrified|frightened) of", "is afraid of", "person", ""),
    (r"(?:happily |now |already )?married to", "is married to", "person", "spouse"),
    (r"(?:happily )?engaged to", "is engaged to", "person", "spouse"),
    (r"(?:related|cousins?) to", "is related to", "person", ""),
    (r"diagnosed with", "was diagnosed with", "person", ""),
    (
        r"(?:recently |just )?(?:promoted|made|appointed|elected) (?:to|as)?",
        "was promoted to",
        "event",
        "",
    ),
    (r"(?:hired|employed) (?:as|by|at)", "works as", "person", ""),
    (r"(?:laid off|fired) (?:from|by)", "was laid off from", "event", ""),
    (r"(?:accepted|admitted) (?:to|into|by|at)", "was accepted to", "event", ""),
    (
        (
            r"(?:fluent|proficient|certified|trained|experienced|enrolled|interested|involved|good"
            r"|great|bad|terrible) (?:in|at)"
        ),
        "",
        "person",
        "",
    ),
    (r"responsible for", "is responsible for", "person", ""),
    (r"in charge of", "is in charge of", "person", ""),
    (
        r"(?:a |an )?(?:(?:big|huge|massive|lifelong|die-hard|avid|great|proud) )?fan of",
        "likes",
        "preference",
        "",
    ),
    (
        (
            r"(?:really |very |super |totally )?(?:fond of|crazy about|passionate about|keen on"
            r"|obsessed with|interested in|into|addicted to)"
        ),
        "likes",
        "preference",
        "",
    ),
    (
        r"(?:scheduled|set|planned|booked|slated) (?:for|on|at)",
        "is scheduled for",
        "event",
        "date",
    ),
    (rf"due (?:on |by |in |at )?(?={_DAY_OR_TIME})", "is due", "event", "date"),
    (
        r"(?:moved|pushed|postponed|rescheduled|delayed|brought forward) (?:to|until|back to)",
        "is scheduled for",
        "event",
        "date",
    ),
    (rf"(?:on|at|in|from) (?={_DAY_OR_TIME})", "is on", "event", "date"),
    (
        r"(?:made|built|written|implemented) (?:of|in|with|from|out of|on)",
        "is made of",
        "concept",
        "",
    ),
    (r"(?:hosted|deployed|stored|running) (?:on|in|at)", "is hosted on", "concept", ""),
    (
        r"(?:owned|managed|led|run|maintained|sponsored|headed|written|taught|hosted) by",
        "",
        "concept",
        "",
    ),
    (r"on (?=[A-Z])", "is on", "place", "location"),
    (
        r"(?:released|founded|published|established|built|invented|signed) (?:in|on)",
        "",
        "event",
        "date",
    ),
    (r"(?:held|hosted) (?:in|at|on)", "is held in", "event", "date"),
    (r"in (?=[A-Z])", "is in", "place", "location"),
    (r"at (?=[A-Z])", "is at", "place", "location"),
)


def _wording(wording: str) -> re.Pattern[str]:
    ends = "" if re.search(r"\(\?[=!][^()]*\)$|\(\?=\(.*\)\)$", wording) else r"(?:\s+|$)"
    return re.compile(f"(?P<worded>{wording.strip()}){ends}")


_WORDINGS: Final = tuple(
    (_wording(wording), relation or None, Category(category), topic or None)
    for wording, relation, category, topic in _PASSIVES
)
_AGE: Final = re.compile(
    r"(?:about |almost )?(?P<age>\d{1,3}|[a-z]+(?:-[a-z]+)?)(?: (?P<unit>years?|months?"
    r"|weeks?)[ -]old| years of age)?$"
)
_NUMBER_WORDS: Final = listed(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
    "eighty ninety"
)
_NATIONALITY: Final = re.compile(
    r"(?:half |part |originally )?[A-Z][a-z]+(?:ese|ian|ean|can|ish|ch|ani|eli|aqi|ine|ench|rman"
    r"|reek|wiss|utch|elsh|hai)(?:[ -][A-Z][a-z]+)?$"
)
_COLOURS: Final = listed(
    "red green blue yellow orange purple black white grey gray pink brown teal turquoise "
    "navy silver gold beige violet maroon"
)
_VALUE: Final = re.compile(r"[$\u20ac\u00a3]?\d|#|\S+@\S+$")
_VALUE_WORDS: Final = 4
_LASTING_WORDS: Final = 3
_COUNT: Final = re.compile(
    r"\d+(?:[.,]\d+)*(?: |$)"
    r"(?!\w+day|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))"
)
"""A number that is no day."""
_FAVOURITE: Final = re.compile(
    r"(?:[\w' ]+'s )?(?:all-time )?(?:favou?rite|preferred|go-to) (?P<what>.+)", re.IGNORECASE
)
_OWN_NAME: Final = re.compile(r"(?:full |first |last |middle |given |maiden )?name$")
_NOT_HEADS: Final = listed(
    "question point guess problem issue concern goal idea suggestion advice thought opinion "
    "bad understanding mistake turn take result output total value error difference winner "
    "truth plan hope wish fear answer request apologies pleasure feeling mind heart only "
    "way"
)
_SINGLE_HEADS: Final = listed(
    "birthday anniversary phone number email address name age job title role salary budget "
    "deadline size height weight password nickname username appointment flight meeting "
    "interview wedding exam blood type degree major manager boss surname hometown "
    "profession occupation"
)
_ENDS: Final = {True: Effect.ENDS, False: Effect.HOLDS}


class _Complement(NamedTuple):
    """What stands behind a form of `be`."""

    subject: Subject
    rest: str
    thing: str
    """`rest` as an object."""
    head: str
    """The noun of the subject: `size` of `my shoe size`."""


def being(subject: Subject, predicate: Predicate) -> Assertion | None:
    """What `subject` is said to be; None where it is an opinion, or how it is just now."""
    if predicate.is_negated and not predicate.has_ended:
        return _not_being(subject, predicate)
    rest = " ".join(predicate.rest)
    said = _favourite(subject, rest) or _passive(subject, rest, predicate.tense)
    if said is None and (predicate.tense == "now" or subject.is_person):
        said = _complement(subject, rest, predicate.tense)
    if said is None:
        return None
    return said._replace(effect=Effect.ENDS) if predicate.has_ended else said


def _not_being(subject: Subject, predicate: Predicate) -> Assertion | None:
    rest = " ".join(predicate.rest)
    disliked = re.match(
        r"(?:a |an )?(?:(?:big|huge) )?(?:fan of|into|fond of|keen on)\s+(.*)", rest
    )
    thing = object_of(disliked[1].split()) if disliked else None
    return Assertion(subject.text, "dislikes", thing, Category.PREFERENCE) if thing else None


def _favourite(subject: Subject, rest: str) -> Assertion | None:
    """`My favourite drink is tea`."""
    named = _FAVOURITE.match(subject.text)
    thing = object_of(rest.split())
    if named is None or thing is None:
        return None
    owner = (
        subject.text[: -len(named["what"])].rstrip().rsplit("'s", 1)[0]
        if "'s " in subject.text
        else USER
    )
    what = named["what"].removesuffix("s")
    relation = f"has favorite {what}"
    return Assertion(owner, relation, thing, Category.PREFERENCE, topic=relation)


def _passive(subject: Subject, rest: str, tense: str) -> Assertion | None:
    for wording, relation, category, topic in _WORDINGS:
        match = wording.match(rest)
        if match is None:
            continue
        thing = object_of(rest[match.end() :].split(), keeps_time=category is Category.EVENT)
        if thing is None:
            if rest[match.end() :].strip() or relation is not None:
                continue
            return Assertion(subject.text, "is", match["worded"], category)
        past = "was" if tense == "past" else "is"
        return Assertion(
            subject.text, relation or f"{past} {match['worded']}", thing, category, topic=topic
        )
    return None


def _complement(subject: Subject, rest: str, tense: str) -> Assertion | None:
    effect = Effect.HELD if tense == "past" else Effect.HOLDS
    thing = object_of(rest.split())
    if thing is None:
        return None
    bare = subject.text.split("'s ")[-1]
    head = re.split(r" (?:at|of|for|in|with|on|to|from) ", bare)[0].split()[-1].lower()
    if subject.kind in {Kind.RELATED, Kind.OTHER} and head in _NOT_HEADS:
        return None
    if "'s " in subject.text and _OWN_NAME.search(bare) and _NAME.match(thing):
        owner = subject.text.rsplit("'s ", 1)[0]
        return Assertion(owner, "is named", thing, Category.PERSON, topic="name")
    said_of = _Complement(subject, rest, thing, head)
    for reading in (_measure, _age, _lasting, _role, _value):
        said = reading(said_of)
        if said is not None:
            return said._replace(effect=effect)
    return None


def _measure(said: _Complement) -> Assertion | None:
    """`182 cm tall`."""
    if (
        re.match(
            r"\d[\d.,' ]*(?:cm|m|feet|foot|ft|kg|kilos|pounds|lbs|meters|metres|km|miles)\b",
            said.thing,
        )
        is None
    ):
        return None
    return Assertion(
        said.subject.text,
        "is",
        said.thing,
        Category.PERSON if said.subject.is_person else Category.CONCEPT,
        topic="size",
    )


def _age(said: _Complement) -> Assertion | None:
    aged = _AGE.match(said.thing)
    if aged is None or not (said.subject.is_person or aged["unit"]):
        return None
    if not aged["age"].isdigit() and aged["age"].split("-")[0] not in _NUMBER_WORDS:
        return None
    return Assertion(said.subject.text, "is aged", said.thing, Category.PERSON, topic="age")


def _lasting(said: _Complement) -> Assertion | None:
    """`vegetarian`, `Brazilian`."""
    if not said.subject.is_person:
        return None
    first = said.thing.split(maxsplit=1)[0].lower()
    if (first in LASTING and len(said.thing.split()) <= _LASTING_WORDS) or _NATIONALITY.match(
        said.thing
    ):
        return Assertion(said.subject.text, "is", said.thing, Category.PERSON)
    return None


def _role(said: _Complement) -> Assertion | None:
    """`a nurse`, `my brother`, `the captain of the team`."""
    subject, thing = said.subject, said.thing
    if re.match(r"more of an? ", said.rest):
        kind = re.sub(r"^more of an? ", "", thing)
        return Assertion(subject.text, "is", kind, Category.PREFERENCE)
    own = re.match(r"(?:my|our) (?P<what>.+)", thing)
    if own is not None and (found := _own(subject, own["what"])) is not None:
        return found
    opening = said.rest.split(maxsplit=1)[0].lower()
    if opening not in {"a", "an", "the"} or is_vague(thing):
        return None
    if subject.is_person:
        return Assertion(subject.text, "is", thing, Category.PERSON)
    is_known = subject.kind is Kind.RELATED or (subject.kind is Kind.NAMED and opening != "the")
    return Assertion(subject.text, "is", thing, Category.CONCEPT) if is_known else None


def _own(subject: Subject, what: str) -> Assertion | None:
    """`Jazz is my favourite genre`, `Tom is my boss`."""
    if liked := re.match(r"(?:all-time )?(?:favou?rite|preferred|go-to) (?P<what>.+)", what):
        relation = f"has favorite {liked['what']}"
        return Assertion(USER, relation, subject.text, Category.PREFERENCE, topic=relation)
    if subject.kind is Kind.NAMED and what.rsplit(maxsplit=1)[-1].lower() in KIN:
        return Assertion(USER, f"has {what.lower()}", subject.text, Category.PERSON)
    return None


def _value(said: _Complement) -> Assertion | None:
    """`Karen`, `8443`, `size 40`, of something one has one of."""
    subject, thing, head = said.subject, said.thing, said.head
    is_named = _NAME.match(thing) is not None
    if subject.kind is Kind.SPEAKER:
        name = Assertion(subject.text, "is named", thing, Category.PERSON, topic="name")
        return name if is_named else None
    if not is_named and not _is_value(thing) and not _is_word_for(head, thing):
        return None
    if head in KIN:
        own = f"has {subject.text.split(' ', 1)[-1].lower()}"
        is_own = subject.kind is Kind.RELATED and is_named
        return Assertion(USER, own, thing, Category.PERSON) if is_own else None
    if subject.kind is Kind.OTHER and subject.is_person:
        return None
    if re.match(_DAY_OR_TIME, thing) and not _COUNT.match(thing):
        return Assertion(subject.text, "is", thing, Category.EVENT, topic="date")
    return Assertion(subject.text, "is", thing, Category.CONCEPT, topic="value")


def _is_value(thing: str) -> bool:
    return _VALUE.match(thing) is not None or thing.lower() in _COLOURS


def _is_word_for(head: str, thing: str) -> bool:
    """Whether any word says it, of what one has one of: `my deadline is noon`."""
    is_short = len(thing.split()) <= _VALUE_WORDS
    is_said = not is_vague(thing) and not thing.endswith("ed")
    return head in _SINGLE_HEADS and is_short and is_said
