"""Statements read from a text by patterns and grammar, without a model.

Each asserted clause is read as subject, verb and object: a known verb (`lexicon`), or a form of
`be` with a complement that says something lasting. What fits no pattern states nothing: it is
better to miss a fact than to make one up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Final

from langchain_ctxmgr.memory.dates import periods
from langchain_ctxmgr.memory.facts.clauses import Clause, clauses
from langchain_ctxmgr.memory.facts.complements import Assertion, being
from langchain_ctxmgr.memory.facts.deeds import doing
from langchain_ctxmgr.memory.facts.grammar import Kind, Sentence, Subject, coordinated, read
from langchain_ctxmgr.memory.facts.instructions import is_instruction
from langchain_ctxmgr.memory.facts.lexicon import KIN
from langchain_ctxmgr.memory.facts.values import USER, Authority, Category, Statement

_SURE, _FAIR, _BY_TOOL, _FLAGGED = 0.9, 0.7, 0.5, 0.1
"""How far a statement bears: of the speaker's own affairs, of others', by a tool, flagged."""
_KIN_NAMED: Final = re.compile(
    r"(?:an?|one|two|three|my) (?:[\w-]+ ){0,2}?(?P<kin>[\w-]+),? (?:named|called"
    r"|whose name is) (?P<name>[A-Z]\w+)\b"
)
_IN_APPOSITION: Final = re.compile(r"^[A-Z][^,]*, (?:an?|the) (?P<role>[^,]+)")
_MY_KIN: Final = re.compile(
    r"\b(?:[Mm]y|[Oo]ur) (?P<kin>(?:[a-z-]+ ){0,2}?[a-z-]+),? "
    r"(?P<name>[A-Z][\w-]+(?: [A-Z][\w-]+)?)(?![\w'\u2019])"
)
_WORK_AS: Final = re.compile(r"(?P<where>.+?) as (?:an?|the) (?P<role>.+)")
_CALLED: Final = re.compile(
    r"^(?:(?:[Yy]ou|[Ee]veryone|[Pp]eople|[Ff]riends|[Mm]y \w+) (?:can "
    r"|may )?)?(?:just )?[Cc]alls? me (?P<name>[A-Z]\w+)$"
)
_CHANGED: Final = re.compile(
    r"^(?:I|[Ww]e|[Tt]hey) (?:have )?(?:changed|moved|pushed|postponed|rescheduled"
    r"|shifted) (?:the|my|our) (?P<what>(?:[\w-]+ ){0,3}[\w-]+)"
    r" (?:back )?to (?P<to>.*(?:\d|day|January|February|March|April|May|June|July|August"
    r"|September|October|November|December).*)$"
)
_SINCE: Final = re.compile(
    r"\b(?:since|starting|as of|from|effective) (?P<when>[^,;]{3,30})", re.IGNORECASE
)


def statements(
    text: str,
    *,
    at: datetime,
    speaker: str | None = None,
    authority: Authority = Authority.USER,
) -> list[Statement]:
    """What `text` states, each claim once, in the order said.

    Args:
        text: A message. Quotations, pasted text and code in it are another's and left out.
        at: When it was said, which `last year` counts from.
        speaker: Whom `I` means; None: the user.
        authority: Who vouches for it. In a tool's output `I` is nobody.
    """
    found: dict[tuple[str, str, str], Statement] = {}
    antecedent: Subject | None = None
    for clause in clauses(text):
        if is_instruction(clause.sentence, authority):
            flagged = _flagged(clause, speaker, authority)
            found.setdefault((flagged.subject, flagged.relation, flagged.object), flagged)
            continue
        idiom = None if authority is Authority.TOOL else _idiomatic(clause.text)
        if idiom is not None:
            claim = _attributed(idiom, clause, at, speaker, authority)
            found.setdefault((claim.subject, claim.relation, claim.object), claim)
            continue
        for kin in _MY_KIN.finditer(clause.text):
            has = Assertion(USER, f"has {kin['kin'].lower()}", kin["name"], Category.PERSON)
            if authority is not Authority.TOOL and kin["kin"].split()[-1].lower() in KIN:
                claim = _attributed(has, clause, at, speaker, authority)
                found.setdefault((claim.subject, claim.relation, claim.object.casefold()), claim)
        sentence = read(clause.text, antecedent)
        if sentence is None:
            continue
        if sentence.subject.kind is not Kind.SPEAKER:
            antecedent = sentence.subject
        elif authority is Authority.TOOL:
            continue
        claims = list(_claims(sentence))
        antecedent = _owned(claims) or antecedent
        for said in claims:
            claim = _attributed(said, clause, at, speaker, authority)
            found.setdefault((claim.subject, claim.relation, claim.object.casefold()), claim)
    return list(found.values())


def _flagged(clause: Clause, speaker: str | None, authority: Authority) -> Statement:
    return Statement(
        subject=speaker or (USER if authority is Authority.USER else authority.value),
        relation="said",
        object=clause.sentence,
        text=clause.sentence,
        category=Category.OTHER,
        confidence=_FLAGGED,
        authority=authority,
        is_flagged=True,
    )


def _idiomatic(clause: str) -> Assertion | None:
    """What is said in a set phrase: `call me Sam`, `we moved the deadline to Friday`."""
    if called := _CALLED.search(clause):
        return Assertion(USER, "is named", called["name"], Category.PERSON, topic="name")
    if changed := _CHANGED.search(clause):
        return Assertion(changed["what"], "is", changed["to"], Category.EVENT, topic="date")
    return None


def _claims(sentence: Sentence) -> Iterator[Assertion]:
    """What the clause says, each predicate of it in turn."""
    subject, predicate = sentence.subject, sentence.predicate
    if subject.kin is not None:
        yield Assertion(USER, f"has {subject.kin}", subject.text, Category.PERSON)
    further = list(coordinated(predicate.rest, subject))
    if further:
        predicate = replace(predicate, rest=predicate.rest[: further[0][0]])
    for said in (predicate, *(each for _, each in further[:1])):
        claim = doing(subject, said, said.verb) if said.verb else being(subject, said)
        if claim is not None:
            yield from _told_apart(claim)
            role = _IN_APPOSITION.search(" ".join(said.rest))
            if claim.relation == "is named" and said.verb is None and role is not None:
                yield Assertion(claim.subject, "is", role["role"], Category.PERSON)


def _told_apart(claim: Assertion) -> Iterator[Assertion]:
    """`has a brother named Tom` as the brother's name, `works for Acme as a cook` as two."""
    named = _KIN_NAMED.search(f"a {claim.object}")
    job = _WORK_AS.match(claim.object)
    if claim.relation in {"has", "adopted", "got"} and named is not None:
        kin = f"has {named['kin'].lower()}"
        yield claim._replace(relation=kin, object=named["name"], category=Category.PERSON)
    elif claim.relation.startswith("works ") and job is not None:
        yield claim._replace(object=job["where"])
        yield claim._replace(relation="works as", object=job["role"])
    else:
        yield claim


def _owned(claims: Sequence[Assertion]) -> Subject | None:
    """Whom a pronoun means after `I have a cat`."""
    for claim in claims:
        head = claim.object.split()[-1].lower()
        if claim.subject == USER and claim.relation in {"has", "adopted", "got"} and head in KIN:
            return Subject(f"{USER}'s {head}", Kind.RELATED, is_plural=False, is_person=True)
    return None


def _attributed(
    said: Assertion, clause: Clause, at: datetime, speaker: str | None, authority: Authority
) -> Statement:
    subject = said.subject
    if speaker is not None and (subject == USER or subject.startswith(f"{USER}'s ")):
        subject = speaker + subject.removeprefix(USER)
    own = said.subject == USER or said.subject.startswith(USER)
    confidence = _BY_TOOL if authority is Authority.TOOL else _SURE if own else _FAIR
    return Statement(
        subject=subject,
        relation=said.relation,
        object=said.object,
        text=clause.sentence,
        category=said.category,
        confidence=confidence,
        authority=authority,
        effect=said.effect,
        topic=said.topic,
        since=_began(clause.sentence, at),
    )


def _began(sentence: str, at: datetime) -> date | None:
    """The day a sentence says that it has been so since."""
    since = _SINCE.search(sentence)
    named = periods(f"since {since['when']}", at) if since is not None else ()
    return named[0].first if named and named[0].first <= at.date() else None
