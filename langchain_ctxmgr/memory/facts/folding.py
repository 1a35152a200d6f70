"""Facts folded from statements, in the order they were said.

A statement about something known strengthens it, says it more precisely, ends it, or
contradicts it: then what was known is closed on the day the new one began, never removed, so
that it can still be asked for as of a date. Folded anew from what is recorded, facts need no
clearing up after an erasure: what an erased message had closed holds again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from hashlib import sha256
from typing import Final, TypeAlias

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.facts.lexicon import ALIKE, CONTRARY, LEAVING
from langchain_ctxmgr.memory.facts.values import (
    USER,
    Authority,
    Category,
    Effect,
    Fact,
    Source,
    Statement,
    Told,
)

_MOST_CONFIDENT: Final = 0.99
_RANK: Final = {Authority.TOOL: 0, Authority.AGENT: 1, Authority.HOST: 2, Authority.USER: 3}
_ID_CHARS: Final = 16
_Key: TypeAlias = tuple[str, str, str]
"""Owner, subject, and topic or what the relation is compared as."""


@dataclass(slots=True)
class Known:
    """A fact in the making."""

    first: Told
    said: Statement
    since: datetime | None
    until: datetime | None = None
    confidence: float = 0.0
    authority: Authority = Authority.TOOL
    sources: list[Source] = field(default_factory=list[Source])
    seq: int = 0
    """Of the record of the newest of them."""
    objects: frozenset[int] = frozenset()
    """Terms of its object."""
    words: frozenset[int] = frozenset()
    """Terms of all it says, by which it is found."""

    def take(self, told: Told, *, words: bool) -> None:
        """Count `told` in; with `words`, say it in its words from now on."""
        statement = told.statement
        doubt = (1 - self.confidence) * (1 - statement.confidence)
        self.confidence = min(1 - doubt, max(_MOST_CONFIDENT, statement.confidence))
        self.authority = max(self.authority, statement.authority, key=_RANK.__getitem__)
        self.sources.append(told.source)
        self.seq = told.seq
        if words:
            self.said = statement
            self.objects = _terms(statement)
            told_of = (statement.subject, statement.relation, statement.object, statement.text)
            self.words = frozenset(terms(" ".join(told_of)))

    def fact(self) -> Fact:
        """As it stands."""
        said, first = self.said, self.first
        parts = (first.owner, first.source.message_id, first.statement.subject)
        named = "\0".join((*parts, first.statement.relation, first.statement.object))
        return Fact(
            id=sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:_ID_CHARS],
            user_id=first.user_id,
            subject=said.subject,
            relation=said.relation,
            object=said.object,
            text=said.text,
            category=Category(said.category),
            confidence=round(self.confidence, 4),
            authority=self.authority,
            valid_from=self.since,
            valid_until=self.until,
            recorded_at=self.sources[-1].at,
            sources=tuple(self.sources),
            is_flagged=said.is_flagged,
        )


def folded(told: Iterable[Told]) -> list[Fact]:
    """What `told` comes to: every fact that holds or held, oldest first."""
    memory = Folding()
    memory.hear_all(told)
    return [known.fact() for known in memory.all]


class Folding:
    """What is known so far."""

    def __init__(self) -> None:
        self.all: list[Known] = []
        self._open: dict[_Key, list[Known]] = {}

    def hear_all(self, told: Iterable[Told]) -> None:
        """Take in statements that were said after all that was heard before."""
        for each in sorted(told, key=order_of):
            self._hear(each)

    def _hear(self, told: Told) -> None:
        statement = told.statement
        if statement.is_flagged:
            self._flag(told)
        elif statement.effect is not Effect.HOLDS:
            self._end(told)
        else:
            self._hold(told)

    def _flag(self, told: Told) -> None:
        for known in self.all:
            if known.said.is_flagged and known.said.text == told.statement.text:
                known.sources.append(told.source)
                return
        self._add(told, since=_began(told), until=None)

    def _end(self, told: Told) -> None:
        """Close what is no longer so; a record that it was, where nothing was known of it."""
        said = _terms(told.statement)
        ended = [known for known in self._on(told) if _is_same(known, told.statement, said)]
        for known in ended:
            self._close(known, told)
        if not ended:
            self._add(told, since=None, until=told.source.at)

    def _hold(self, told: Told) -> None:
        statement = told.statement
        self._close_contrary(told)
        said = _terms(statement)
        for known in self._on(told):
            if _is_same(known, statement, said):
                known.take(told, words=said >= known.objects)
                return
        replaced = [] if statement.topic is None else self._on(told)
        if any(_RANK[known.authority] > _RANK[statement.authority] for known in replaced):
            # What a tool says beside what a person said stands beside it.
            self._add(told, since=_began(told), until=None, is_open=False)
            return
        for known in replaced:
            self._close(known, told)
        self._add(told, since=_began(told), until=None)

    def _close_contrary(self, told: Told) -> None:
        """Close that someone liked it, now that they do not; and a job that was left."""
        statement = told.statement
        meant = ALIKE.get(statement.relation, statement.relation)
        contrary = [CONTRARY[meant]] if meant in CONTRARY else []
        contrary += [each for each, other in CONTRARY.items() if other == meant]
        if statement.relation in LEAVING:
            contrary.append("employer")
        for other in dict.fromkeys(contrary):
            for known in [*self._open.get((*_key(told)[:2], other), ())]:
                if known.objects & _terms(statement) or known.said.object == statement.object:
                    self._close(known, told)

    def _add(
        self, told: Told, *, since: datetime | None, until: datetime | None, is_open: bool = True
    ) -> None:
        known = Known(told, told.statement, since, until)
        known.take(told, words=True)
        self.all.append(known)
        if until is None and is_open and not told.statement.is_flagged:
            self._open.setdefault(_key(told), []).append(known)

    def _close(self, known: Known, told: Told) -> None:
        if _RANK[known.authority] > _RANK[told.statement.authority]:
            return
        is_end = told.statement.effect is not Effect.HOLDS
        ended = told.source.at if is_end else _began(told)
        known.until = ended if known.since is None else max(ended, known.since)
        self._open[_key(known.first)].remove(known)

    def _on(self, told: Told) -> list[Known]:
        return [*self._open.get(_key(told), ())]


def order_of(told: Told) -> tuple[datetime, str]:
    """What statements are heard in the order of."""
    return told.source.at, told.source.thread_id


def _key(told: Told) -> _Key:
    statement = told.statement
    compared = statement.topic or ALIKE.get(statement.relation, statement.relation)
    # `my deadline` and `the deadline` are one.
    return told.owner, statement.subject.casefold().removeprefix(f"{USER}'s "), compared


def _began(told: Told) -> datetime:
    since = told.statement.since
    if since is None:
        return told.source.at
    return min(told.source.at, datetime.combine(since, time(), UTC))


def _terms(statement: Statement) -> frozenset[int]:
    return frozenset(terms(statement.object))


def _is_same(known: Known, other: Statement, said: frozenset[int]) -> bool:
    """Whether both speak of one thing, one of them perhaps more precisely."""
    if not known.objects or not said:
        return known.said.object.casefold() == other.object.casefold()
    return known.objects <= said or said <= known.objects
