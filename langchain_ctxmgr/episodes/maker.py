"""Making the episodes that are due: beside the turns, from the log alone.

A stretch is over once the session it is part of is: after a pause, or where it has become very
long. So the same log gives the same episodes, under the same ids, whoever reads it and however
often: making one again adds nothing. How far a thread is done is kept with it in the log; that
goes whenever something of it is erased, and then its episodes are made anew from what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.analysis import message_text, terms
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.episodes.stretches import Passage, stretches
from langchain_ctxmgr.episodes.telling import told, weight
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.intake import drafts_of
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.episodic import episode_message, is_episode_thread
from langchain_ctxmgr.memory.facts.service import (
    MOST_OWNER_CHARS,
    memories_beside,
    memory_id_of,
    memory_scope,
)
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.records import Branch, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import SESSION_GAP, MessageLog
from langchain_ctxmgr.storage.vectors import DENSE, VectorStore

EPISODE_THRESHOLD: Final = 0.6
"""From this importance on a stretch is recorded, unless told otherwise."""
_MOST_TURNS: Final = 128
"""Read at once: of a session that goes on, all but the last stretch of so many is over."""
_KIND: Final = "episodes"
_TASK: Final = "episodes 1"
_READ: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """Turns of one thread, and those of its stretches that are over."""

    records: list[LogRecord]
    done: list[range]

    @property
    def next_slot(self) -> int | None:
        """Where what is not over begins; None where nothing is over."""
        return self.records[self.done[-1][-1]].slot + 1 if self.done else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeMaker:
    """Makes what is due of a tenant's or a thread's episodes; a `summaries.worker.Follower`.

    Args:
        log: What is read and written.
        vectors: Where the turns' embeddings are, if any.
        indexer: Takes in what is recorded.
        counter: Prices it.
        breaker: Rests after a failure, and tells of it.
        threshold: Least importance of an episode, 0 to 1; 0: each is recorded.
        now: The present instant, aware.
    """

    log: MessageLog
    vectors: VectorStore | None
    indexer: Indexer
    counter: TokenCounter
    breaker: Breaker
    threshold: float
    now: Callable[[], datetime]
    _open: dict[str, dict[str, datetime]] = field(default_factory=dict[str, dict[str, datetime]])
    """When a tenant's threads had their last turn, of those that may have more to record."""

    @property
    def is_resting(self) -> bool:
        """Whether nothing is made for a while."""
        return not self.breaker.is_closed

    def failed(self, error: Exception) -> None:
        """Rest, and tell of `error`."""
        self.breaker.failed(error)

    def follow(self, tenant_id: str, *, is_ending: Callable[[], bool]) -> Plan[bool]:
        """Make what is due of a tenant; whether nothing is left to wait for."""
        waiting = self._open.get(tenant_id)
        fresh = yield from self._fresh(tenant_id)
        if waiting is None:
            waiting = self._open[tenant_id] = {}
        waiting |= fresh
        for thread_id, newest_at in list(waiting.items()):
            is_over = self.now() - newest_at > SESSION_GAP
            if is_ending():
                return True
            if is_over or thread_id in fresh:
                yield from self.make(Scope(tenant_id=tenant_id, thread_id=thread_id))
            if is_over:
                del waiting[thread_id]
        self.breaker.worked()
        return not waiting

    def make(self, scope: Scope) -> Plan[int]:
        """Make what is due of one thread; how many episodes are new."""
        line = yield from call(self.log.branch, scope)
        is_memory = memory_id_of(line.thread_id) is not None
        if line.head is None or is_memory or len(line.thread_id) > MOST_OWNER_CHARS:
            return 0
        slot = yield from self._done_until(line)
        is_anew = not slot
        marks = yield from call(self.log.weighed, scope)
        muted = {mark.seq for mark in marks if mark.weight == 0}
        made: list[Scope] = []
        new = 0
        while (chunk := (yield from self._chunk(line, slot))).next_slot is not None:
            for stretch in chunk.done:
                turns = chunk.records[stretch.start : stretch.stop]
                heard = [record for record in turns if record.seq not in muted]
                where = (yield from self._recorded(scope, heard)) if heard else None
                if where is not None:
                    made.append(where.scope)
                    new += where.is_new
            slot = chunk.next_slot
        stale: list[str] = []
        again = yield from call(self.log.branch, scope)
        head = yield from call(self.log.fetch, scope, [line.head.seq])
        if again.head is None or again.withdrawn != line.withdrawn or not head:
            # Something was erased meanwhile: what was made may hold it.
            stale = [str(each.thread_id) for each in made]
        elif is_anew:
            beside = yield from memories_beside(self.log, scope)
            kept = {each.thread_id for each in made}
            stale = [name for name in beside if is_episode_thread(name) and name not in kept]
        if stale:
            tenant = Scope(tenant_id=scope.tenant_id)
            yield from call(self.log.erase, replace(tenant, thread_id=stale[0]), also=stale[1:])
        elif slot:
            value = json.dumps([line.head.branch, slot]).encode()
            yield from call(self.log.put_derived, line, _KIND, "until", value, keep=1)
        if new or stale:
            yield from self.indexer.catch_up(str(scope.tenant_id))
        return new

    def _fresh(self, tenant_id: str) -> Plan[dict[str, datetime]]:
        """The threads with turns that no run has seen yet, and when they had their last.

        At first all threads there are: what an earlier process left undone is among them.
        """
        fresh: dict[str, datetime] = {}
        if tenant_id not in self._open:
            found = yield from call(self.log.threads, Scope(tenant_id=tenant_id))
            fresh = {each.thread_id: each.newest_at for each in found}
        seq = (yield from call(self.log.marks, tenant_id, _TASK)).words_seq
        while (
            pending := (yield from call(self.log.pending, tenant_id, seq, _READ))
        ).until_seq > seq:
            for record in (entry.record for entry in pending.entries):
                fresh[record.thread_id] = max(record.at, fresh.get(record.thread_id, record.at))
            seq = pending.until_seq
            yield from call(self.log.set_marks, tenant_id, _TASK, words_seq=seq, dense_seq=seq)
        return {name: at for name, at in fresh.items() if memory_id_of(name) is None}

    def _done_until(self, line: Branch) -> Plan[int]:
        """The slot up to which the thread's episodes are recorded on this branch."""
        scope = Scope(tenant_id=line.tenant_id, thread_id=line.thread_id)
        kept = yield from call(self.log.get_derived, scope, _KIND, "until")
        if kept is None:
            return 0
        branch, slot = json.loads(kept)
        return slot if line.holds(branch, slot - 1) else 0

    def _chunk(self, line: Branch, from_slot: int) -> Plan[_Chunk]:
        records = yield from call(
            self.log.read, line, from_slot=from_slot, limit=_MOST_TURNS, newest_first=False
        )
        if not records:
            return _Chunk(records=[], done=[])
        is_all = len(records) < _MOST_TURNS
        ends = [i + 1 for i, (a, b) in enumerate(pairwise(records)) if a.session != b.session]
        if is_all and self.now() - records[-1].at > SESSION_GAP:
            ends.append(len(records))
        passages = yield from self._passages(line, records)
        if ends:
            return _Chunk(records=records, done=stretches(passages[: ends[-1]]))
        if is_all:
            return _Chunk(records=records, done=[])
        found = stretches(passages)
        return _Chunk(records=records, done=found[:-1] or found)

    def _passages(self, line: Branch, records: Sequence[LogRecord]) -> Plan[list[Passage]]:
        vectors = yield from self._embeddings(line, records)
        return [
            Passage(
                terms=terms(message_text(record.message)),
                session=record.session,
                user_id=record.user_id,
                opens=record.role in {"human", "chat"},
                vector=vectors.get(record.seq),
            )
            for record in records
        ]

    def _embeddings(self, line: Branch, records: Sequence[LogRecord]) -> Plan[dict[int, Any]]:
        """The turns' embeddings as the index has them. The boundary for it: without, words."""
        if self.vectors is None:
            return {}
        scope = Scope(tenant_id=line.tenant_id, thread_id=line.thread_id)
        first = min(record.seq for record in records)
        try:
            points = yield from call(
                self.vectors.scroll, scope, after_id=first - 1, limit=2 * _MOST_TURNS
            )
        except StorageError:
            return {}
        return {point.id: point.dense[DENSE] for point in points if DENSE in point.dense}

    def _recorded(self, scope: Scope, turns: Sequence[LogRecord]) -> Plan[_Recorded | None]:
        """Where the episode of these turns is recorded; None for one that matters too little."""
        text = told(turns, self.counter) if weight(turns) >= self.threshold else ""
        if not text:
            return None
        message = episode_message(text, turns)
        thread = memory_scope(replace(scope, user_id=None), str(message.id))
        where = replace(thread, user_id=turns[0].user_id)
        at = max(record.at for record in turns)
        drafts = drafts_of(message, at, now=at, counter=self.counter)
        drafts = [draft._replace(importance=weight(turns)) for draft in drafts]
        new = yield from call(self.log.append, where, drafts)
        return _Recorded(scope=thread, is_new=bool(new))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    scope: Scope
    is_new: bool
