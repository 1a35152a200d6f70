"""What a manager is told to remember, and what it knows.

A memory is recorded in the log like anything said, in a thread of its own, so that
it is indexed, recalled, exported and erased by the same means. Facts are read from all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, TypeVar, get_args
from uuid import uuid4

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.intake import aware, drafts_of, positive, shown, text_of
from langchain_ctxmgr.memory.facts.service import Facts, matching, memory_message, memory_scope
from langchain_ctxmgr.memory.facts.standing import StandingFacts
from langchain_ctxmgr.memory.facts.values import Authority, Category, Fact
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog, tenant_of

MemoryKind: TypeAlias = Literal["semantic", "episodic"]
Triple: TypeAlias = tuple[str, str, str]
"""Subject, relation and object: `("user", "lives in", "Oslo")`."""
_ALL: Final = 1_000
"""Facts given where no number is asked for."""
_Kind = TypeVar("_Kind", Authority, Category)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memorizer:
    """Where memories go, and what is known of them."""

    log: MessageLog
    recorder: Recorder
    indexer: Indexer
    facts: Facts
    standing: StandingFacts
    counter: TokenCounter

    def remember(
        self,
        scope: Scope,
        text: str,
        *,
        kind: str,
        stated: Triple | None,
        category: str | None,
        authority: str,
        is_single: bool,
        at: datetime,
    ) -> Plan[str]:
        """Record a memory; its message id."""
        message = memory_message(
            text_of("text", text),
            authority=_one_of("authority", authority, Authority),
            category=None if category is None else _one_of("category", category, Category),
            stated=None if stated is None else _triple(stated),
            is_single=is_single,
            is_fact=_kind(kind) == "semantic",
        )
        message.id = str(uuid4())
        where = memory_scope(scope, message.id)
        drafts = drafts_of(message, at, now=at, counter=self.counter)
        yield from self.recorder.append(where, drafts)
        yield from self.indexer.catch_up(tenant_of(scope), limit=len(drafts))
        if scope.user_id is not None:
            yield from self.standing.catch_up(tenant_of(scope), limit=len(drafts))
        return message.id

    def known(
        self,
        scope: Scope,
        *,
        query: str | None,
        as_of: datetime | None,
        k: int | None,
    ) -> Plan[list[Fact]]:
        """What holds at `as_of`, or held at any time where that is None."""
        most = _ALL if k is None else positive("k", k)
        branch = None
        if scope.user_id is None and scope.thread_id is not None:
            branch = yield from call(self.log.branch, scope)
        if as_of is None:
            found = yield from self.facts.history(scope, branch=branch)
        else:
            found = yield from self.facts.known(scope, as_of=as_of, branch=branch)
        if query is not None:
            return matching(found, text_of("query", query), most)
        return found[-most:]


class Remembers(ABC):
    """A manager's methods for facts and memories."""

    _memorizer: Memorizer

    @abstractmethod
    def _scope(self, scope: object) -> Scope: ...

    @abstractmethod
    def _moment(self) -> datetime: ...

    def facts(
        self,
        query: str | None = None,
        *,
        scope: Scope,
        as_of: datetime | Literal["ever"] | None = None,
        k: int | None = None,
    ) -> list[Fact]:
        """What is known from what people said, `learn` and `remember`.

        Each fact names the messages that say so. One that reads like an instruction to the
        memory is flagged: it is data, to be shown to nobody as true.

        Args:
            query: Only the facts that share a word with it, the best first; else in the order
                first said.
            scope: A user, for what they said in any thread; else a thread, for what was said on
                its newest branch; else a tenant, each user's facts apart.
            as_of: What held then, as far as it was recorded by then; by default now. `"ever"`:
                also what no longer holds.
            k: Most facts.

        Raises:
            ValueError: If an argument is not what it must be.
            LogError: If the log cannot be read.
        """
        return run(self._known(query, scope, as_of, k))

    async def afacts(
        self,
        query: str | None = None,
        *,
        scope: Scope,
        as_of: datetime | Literal["ever"] | None = None,
        k: int | None = None,
    ) -> list[Fact]:
        """`facts` on an event loop."""
        return await arun(self._known(query, scope, as_of, k))

    def _known(
        self,
        query: str | None,
        scope: Scope,
        as_of: datetime | Literal["ever"] | None,
        k: int | None,
    ) -> Plan[list[Fact]]:
        where, now = self._scope(scope), self._moment()
        at = None if as_of == "ever" else now if as_of is None else aware("as_of", as_of)
        return (yield from self._memorizer.known(where, query=query, as_of=at, k=k))

    def learn(
        self,
        text: str,
        *,
        scope: Scope,
        stated: Triple | None = None,
        category: Category | str | None = None,
        is_single: bool = False,
        at: datetime | None = None,
    ) -> list[Fact]:
        """State a fact: `learn("Mia is allergic to hazelnuts.", scope=scope)`; what is now known.

        Recorded in a thread of its own, for the user, or beside the thread where no user is
        named, and kept until it, the user or that thread is forgotten.

        Args:
            text: A sentence.
            scope: Whose memory it is: a user's, else a thread's.
            stated: Subject, relation and object; by default as read from `text`, and where
                nothing can be, all of `text` is noted of the user.
            category: What it is about; by default as read.
            is_single: Whether only one such thing can be so at a time, so that an earlier
                one is closed; with `stated`.
            at: Since when it is known, aware; by default now.

        Returns:
            The facts that it says, merged with what was known.

        Raises:
            ValueError: If an argument is not what it must be.
            LogError: If the log cannot be written.
        """
        return run(self._learned(text, scope, stated, category, at, is_single=is_single))

    async def alearn(
        self,
        text: str,
        *,
        scope: Scope,
        stated: Triple | None = None,
        category: Category | str | None = None,
        is_single: bool = False,
        at: datetime | None = None,
    ) -> list[Fact]:
        """`learn` on an event loop."""
        return await arun(self._learned(text, scope, stated, category, at, is_single=is_single))

    def _learned(
        self,
        text: str,
        scope: Scope,
        stated: Triple | None,
        category: Category | str | None,
        at: datetime | None,
        *,
        is_single: bool,
    ) -> Plan[list[Fact]]:
        where, now = self._scope(scope), self._moment()
        said_at = now if at is None else aware("at", at)
        message_id = yield from self._memorizer.remember(
            where,
            text,
            kind="semantic",
            stated=stated,
            category=category,
            authority=Authority.HOST,
            is_single=is_single,
            at=said_at,
        )
        known = yield from self._memorizer.known(where, query=None, as_of=max(now, said_at), k=None)
        return [fact for fact in known if any(s.message_id == message_id for s in fact.sources)]

    def remember(
        self,
        text: str,
        *,
        scope: Scope,
        kind: MemoryKind = "semantic",
        category: Category | str | None = None,
        authority: Authority | str = Authority.HOST,
        at: datetime | None = None,
    ) -> str:
        """Save a memory across threads; its id, by which `forget(memory=…)` takes it back.

        Args:
            text: What to remember.
            scope: Whose memory it is: a user's, else a thread's.
            kind: `semantic`: a fact, found by `facts` and `recall`; `episodic`: something that
                happened, found by `recall` alone.
            category: What it is about; by default as read.
            authority: Who vouches for it; `agent` for what a model wants saved.
            at: When it was so, aware; by default now.

        Raises:
            ValueError: If an argument is not what it must be.
            LogError: If the log cannot be written.
        """
        return run(
            self._remembered(text, scope, at, kind=kind, category=category, authority=authority)
        )

    async def aremember(
        self,
        text: str,
        *,
        scope: Scope,
        kind: MemoryKind = "semantic",
        category: Category | str | None = None,
        authority: Authority | str = Authority.HOST,
        at: datetime | None = None,
    ) -> str:
        """`remember` on an event loop."""
        return await arun(
            self._remembered(text, scope, at, kind=kind, category=category, authority=authority)
        )

    def _remembered(
        self,
        text: str,
        scope: Scope,
        at: datetime | None,
        *,
        kind: MemoryKind,
        category: Category | str | None,
        authority: Authority | str,
    ) -> Plan[str]:
        return (
            yield from self._memorizer.remember(
                self._scope(scope),
                text,
                kind=kind,
                stated=None,
                category=category,
                authority=authority,
                is_single=False,
                at=self._moment() if at is None else aware("at", at),
            )
        )


def _kind(kind: object) -> str:
    if kind not in get_args(MemoryKind):
        raise ValueError(f"kind must be one of {get_args(MemoryKind)}, got {shown(kind)}")
    return str(kind)


def _one_of(name: str, value: object, kinds: type[_Kind]) -> _Kind:
    try:
        return kinds(value)
    except ValueError:
        known = ", ".join(kinds)
        raise ValueError(f"{name} must be one of {known}, got {shown(value)}") from None


def _triple(stated: object) -> Triple:
    match stated:
        case (str() as subject, str() as relation, str() as thing):
            parts = zip(("subject", "relation", "object"), (subject, relation, thing), strict=True)
            first, second, third = (text_of(f"stated's {name}", part) for name, part in parts)
            return first, second, third
        case _:
            raise ValueError(
                f"stated must be a subject, a relation and an object, got {shown(stated)}"
            )
