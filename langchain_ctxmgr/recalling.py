"""Recall: what was said, what happened, and what is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Final, NamedTuple, cast, get_args

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.intake import positive, shown, text_of
from langchain_ctxmgr.memory.facts.values import Fact
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.memory.lasting import Accesses
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.preparing import INDEX_STEP
from langchain_ctxmgr.records import Memories, Memory, Scope, Weighed
from langchain_ctxmgr.remembering import Memorizer, MemoryKind
from langchain_ctxmgr.settings import require
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.marked import marked

_FACT: Final = "memory"


class Asked(NamedTuple):
    """A question to what is remembered, checked."""

    scope: Scope
    query: str
    asked_at: datetime
    k: int
    max_tokens: int | None
    score_threshold: float
    explain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaller:
    """Where what is remembered is found."""

    log: MessageLog
    indexer: Indexer
    recall: Recall
    memorizer: Memorizer
    score_threshold: float
    accesses: Accesses = field(default_factory=Accesses)

    def said(self, asked: Asked) -> Plan[list[Memory]]:
        """The messages that answer best."""
        scope = asked.scope
        branch, is_users = None, scope.thread_id is None and scope.user_id is not None
        if scope.thread_id is not None:
            branch = yield from call(self.log.branch, scope)
        marks = yield from call(self.log.weighed, scope)
        found = yield from self.recall.find(
            scope,
            asked.query,
            asked_at=asked.asked_at,
            branch=branch,
            max_tokens=asked.max_tokens,
            k=asked.k,
            explain=asked.explain,
            score_threshold=asked.score_threshold,
            weights={mark.seq: mark.weight for mark in marks},
            accesses=self.accesses if is_users else None,
        )
        if is_users:
            seqs = [each.seq for each in found.considered if each.included]
            self.accesses.recalled(str(scope.tenant_id), seqs, asked.asked_at)
        return Memories(found.memories)

    def of_kinds(self, asked: Asked, kinds: frozenset[str]) -> Plan[list[Memory]]:
        """The best memories of these kinds; of two kinds, the best of each in turn."""
        marks = yield from self._marks(asked.scope)
        happened = (yield from self._happened(asked, marks)) if "episodic" in kinds else ()
        known = (yield from self._known(asked, marks)) if "semantic" in kinds else ()
        both = (each for pair in zip_longest(happened, known) for each in pair if each is not None)
        chosen, room = Memories(), asked.max_tokens
        for memory in both:
            if len(chosen) < asked.k and (room is None or memory.tokens <= room):
                chosen.append(memory)
                room = None if room is None else room - memory.tokens
        return chosen

    def _marks(self, scope: Scope) -> Plan[Sequence[Weighed]]:
        """What is marked of what `scope` recalls by kind: of a thread, also what is beside it."""
        if scope.thread_id is None:
            return (yield from call(self.log.weighed, scope))
        return (yield from marked(self.log, scope)).marks

    def _happened(self, asked: Asked, marks: Sequence[Weighed]) -> Plan[Sequence[Memory]]:
        found = yield from self.recall.find(
            asked.scope,
            asked.query,
            asked_at=asked.asked_at,
            k=asked.k,
            max_tokens=asked.max_tokens,
            explain=asked.explain,
            score_threshold=asked.score_threshold,
            weights={mark.seq: mark.weight for mark in marks},
            accesses=Accesses(),
            happenings=True,
        )
        return found.memories

    def _known(self, asked: Asked, marks: Sequence[Weighed]) -> Plan[Sequence[Memory]]:
        facts = yield from self.memorizer.known(
            asked.scope, query=asked.query, as_of=asked.asked_at, k=asked.k
        )
        muted = {mark.message_id for mark in marks if mark.weight == 0}
        heard = [fact for fact in facts if fact.sources[-1].message_id not in muted]
        counter = self.memorizer.counter
        return [_memory(fact, rank, counter) for rank, fact in enumerate(heard, 1)]


class Recalls(ABC):
    """A manager's methods for recall."""

    _recaller: Recaller

    @abstractmethod
    def _scope(self, scope: object) -> Scope: ...

    @abstractmethod
    def _moment(self) -> datetime: ...

    def recall(
        self,
        query: str,
        *,
        scope: Scope,
        k: int = 8,
        kinds: Sequence[MemoryKind] | None = None,
        max_tokens: int | None = None,
        explain: bool = False,
        score_threshold: float | None = None,
    ) -> list[Memory]:
        """The recorded messages that answer a question, best first.

        Across a user's threads what is recent or important comes first among what answers about
        as well, and what was recalled before in this process (`memory.lasting`).

        Args:
            query: The question, in words.
            scope: A tenant, narrowed to a user or a thread where these are given. In a
                thread only its newest branch is searched.
            k: Most messages.
            kinds: None: recorded messages. `episodic`: what happened instead, as episodes (see
                `make_episodes`), with the ids of their turns as `source_ids`, and memories of
                that kind; `semantic`: the facts that share words with the question, with
                those of the messages that say so.
            max_tokens: Most that they may cost together when shown.
            explain: Whether each comes with its `explanation`: its rank, and what each arm
                and cue adds to its score, with the arm's own score and in words.
            score_threshold: Nothing is recalled where the chance that what was said bears on
                the question is below, 0 to 1; None: the manager's.

        Raises:
            ValueError: If an argument is not what it must be.
        """
        plan = self._recalled(
            query, scope, k, kinds, max_tokens, explain=explain, score_threshold=score_threshold
        )
        return run(plan)

    async def arecall(
        self,
        query: str,
        *,
        scope: Scope,
        k: int = 8,
        kinds: Sequence[MemoryKind] | None = None,
        max_tokens: int | None = None,
        explain: bool = False,
        score_threshold: float | None = None,
    ) -> list[Memory]:
        """`recall` on an event loop."""
        plan = self._recalled(
            query, scope, k, kinds, max_tokens, explain=explain, score_threshold=score_threshold
        )
        return await arun(plan)

    def _recalled(
        self,
        query: str,
        scope: Scope,
        k: int,
        kinds: Sequence[MemoryKind] | None,
        max_tokens: int | None,
        *,
        explain: bool,
        score_threshold: float | None,
    ) -> Plan[list[Memory]]:
        if score_threshold is None:
            score_threshold = self._recaller.score_threshold
        require(score_threshold=score_threshold)
        asked = Asked(
            self._scope(scope),
            text_of("query", query),
            self._moment(),
            positive("k", k),
            None if max_tokens is None else positive("max_tokens", max_tokens),
            score_threshold,
            explain,
        )
        wanted = None if kinds is None else kinds_of(kinds)
        tenant_id = str(asked.scope.tenant_id)
        yield from self._recaller.indexer.catch_up(tenant_id, limit=INDEX_STEP)
        if wanted is None:
            return (yield from self._recaller.said(asked))
        return (yield from self._recaller.of_kinds(asked, wanted))


def kinds_of(kinds: object) -> frozenset[str]:
    """The kinds of memory asked for.

    Raises:
        ValueError: If it is no sequence of such, or empty.
    """
    known = get_args(MemoryKind)
    is_some = isinstance(kinds, Collection) and not isinstance(kinds, str)
    given = list(cast("Collection[object]", kinds)) if is_some else []
    if not given or not all(kind in known for kind in given):
        raise ValueError(f"kinds must name some of {known}, got {shown(cast('object', kinds))}")
    return frozenset(map(str, given))


def _memory(fact: Fact, rank: int, counter: TokenCounter) -> Memory:
    """A fact as recall gives it; facts are ranked, and their score is only that."""
    source = fact.sources[-1]
    return Memory(
        id=source.message_id,
        thread_id=source.thread_id,
        kind="semantic",
        text=fact.text,
        role=_FACT,
        speaker=None,
        at=source.at,
        score=1 / rank,
        tokens=counter.text(fact.text),
        slot=0,
        session=0,
        source_ids=tuple(each.message_id for each in fact.sources),
    )
