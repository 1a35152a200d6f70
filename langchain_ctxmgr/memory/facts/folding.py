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
class _Known:
    """A fact in the making."""

    first: Told
    said: Statement
    since: datetime | None
    until: datetime | None = None
    confidence: float = 0.0
    authority: Authority = Authority.TOOL
    sources: list[Source] = field(default_factory=list[Source])

    def take(self, told: Told, *, words: bool) -> None:
        """Count `told` in; with `words`, say it in its words from now on."""
        statement = told.statement
        doubt = (1 - self.confidence) * (1 - statement.confidence)
        self.confidence = min(1 - doubt, max(_MOST_CONFIDENT, statement.confidence))
        self.authority = max(self.authority, statement.authority, key=_RANK.__getitem__)
        self.sources.append(told.source)
        if words:
            self.said = statement

    def fact(self) -> Fact:
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
    memory = _Memory()
    for each in sorted(told, key=lambda t: (t.source.at, t.source.thread_id)):
        memory.hear(each)
    return [known.fact() for known in memory.all]


class _Memory:
    """What is known so far."""

    def __init__(self) -> None:
        self.all: list[_Known] = []
        self._open: dict[_Key, list[_Known]] = {}

    def hear(self, told: Told) -> None:
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
        ended = [known for known in self._on(told) if _is_same(known.said, told.statement)]
        for known in ended:
            self._close(known, told)
        if not ended:
            self._add(told, since=None, until=told.source.at)

    def _hold(self, told: Told) -> None:
        statement = told.statement
        self._close_contrary(told)
        for known in self._on(told):
            if _is_same(known.said, statement):
                known.take(told, words=_is_finer(statement, known.said))
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
                if _terms(known.said) & _terms(statement) or known.said.object == statement.object:
                    self._close(known, told)

    def _add(
        self, told: Told, *, since: datetime | None, until: datetime | None, is_open: bool = True
    ) -> None:
        known = _Known(told, told.statement, since, until)
        known.take(told, words=True)
        self.all.append(known)
        if until is None and is_open and not told.statement.is_flagged:
            self._open.setdefault(_key(told), []).append(known)

    def _close(self, known: _Known, told: Told) -> None:
        if _RANK[known.authority] > _RANK[told.statement.authority]:
            return
        is_end = told.statement.effect is not Effect.HOLDS
        ended = told.source.at if is_end else _began(told)
        known.until = ended if known.since is None else max(ended, known.since)
        self._open[_key(known.first)].remove(known)

    def _on(self, told: Told) -> list[_Known]:
        return [*self._open.get(_key(told), ())]


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


def _is_same(one: Statement, other: Statement) -> bool:
    """Whether both speak of one thing, one of them perhaps more precisely."""
    ours, theirs = _terms(one), _terms(other)
    if not ours or not theirs:
        return one.object.casefold() == other.object.casefold()
    return ours <= theirs or theirs <= ours


def _is_finer(one: Statement, other: Statement) -> bool:
    return _terms(one) >= _terms(other)
