"""The message log in one SQLite file: the embedded default.

Several processes may use the file at once. A blocking call waits for its turn; an async
one runs in place when the file is free and the work small (SQLite answers in tens of
microseconds, a thread hop costs more), else in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from sqlite3 import Connection
from typing import Final, Self

from langchain_ctxmgr._plans import brief
from langchain_ctxmgr.closable import Closable
from langchain_ctxmgr.records import Branch, Draft, LogRecord, Scope, Turn, Weighed
from langchain_ctxmgr.storage import sqlite_progress as progress
from langchain_ctxmgr.storage import sqlite_reads as reads
from langchain_ctxmgr.storage.message_log import (
    Erased,
    Erasure,
    IndexMarks,
    LogStats,
    PendingRecords,
    Stated,
    TermHit,
    ThreadUse,
    Verification,
    Weighing,
    Withdrawal,
    require_whole,
    tenant_of,
    thread_of,
)
from langchain_ctxmgr.storage.placement import Entry, entry_of, is_light
from langchain_ctxmgr.storage.sqlite_append import append
from langchain_ctxmgr.storage.sqlite_audit import clean, delete, verify
from langchain_ctxmgr.storage.sqlite_database import Database, Work
from langchain_ctxmgr.storage.sqlite_search import search
from langchain_ctxmgr.storage.sqlite_stated import put_stated, stated, stated_count
from langchain_ctxmgr.storage.sqlite_threads import threads
from langchain_ctxmgr.storage.sqlite_weights import weigh, weighed
from langchain_ctxmgr.storage.sqlite_withdrawal import withdraw
from langchain_ctxmgr.turns import NO_TURNS, Turns

_QUICK_ROWS: Final = 64
"""Messages written or read in place on an event loop: about a millisecond."""
_QUICK_CHARS: Final = 16_384
"""Of the messages written in place: 1.5 ms, most of it the keyword index."""
_QUICK_TURNS: Final = 512
_PAGE: Final = 256


class SqliteLog(Closable):
    """A `MessageLog` in the file at `path`, made on first use with its folder.

    Threads, tasks, forked children and other processes may all use it. A writer waits up
    to `busy_timeout` for another's transaction, then a `StorageError` says so.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._database = Database(path, busy_timeout=busy_timeout)
        self._busy_timeout = busy_timeout

    def __enter__(self) -> Self:
        self.setup()
        return self

    def setup(self) -> None:
        """Create or update the tables; also done on first use."""
        self._database.setup()

    async def asetup(self) -> None:
        """`setup` without blocking the event loop."""
        await asyncio.to_thread(self.setup)

    def close(self) -> None:
        """Close the file. May be called again; other methods then raise StorageError."""
        self._database.close()

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def append(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """Add `drafts` to a thread, all or none; the records that are new."""
        entries = [entry_of(draft) for draft in drafts]
        return self._database.write(_appending(scope, entries)) if entries else _nothing(scope)

    async def aappend(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """`append` without blocking the event loop."""
        if len(drafts) > _QUICK_ROWS or not is_light(drafts, chars=_QUICK_CHARS):
            return await asyncio.to_thread(self.append, scope, drafts)
        entries = [entry_of(draft) for draft in drafts]
        if not entries:
            return _nothing(scope)
        return await self._database.awrite(_appending(scope, entries))

    @brief
    def branch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """The line of the thread written to last, or the one that ends at message id `head`."""
        return self._database.read(lambda c: reads.branch(c, scope, head))

    async def abranch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """`branch` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.branch(c, scope, head))

    @brief
    def read(
        self,
        branch: Branch,
        *,
        from_slot: int = 0,
        before_slot: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        roles: Collection[str] | None = None,
    ) -> list[LogRecord]:
        """Records of `branch` in slot order, the newest revision of each."""
        return self._database.read(
            lambda c: reads.read(
                c,
                branch,
                from_slot=from_slot,
                before_slot=before_slot,
                limit=limit,
                newest_first=newest_first,
                roles=roles,
            )
        )

    async def aread(
        self,
        branch: Branch,
        *,
        from_slot: int = 0,
        before_slot: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        roles: Collection[str] | None = None,
    ) -> list[LogRecord]:
        """`read` without blocking the event loop."""
        last = branch.spans[-1].last_slot if branch.spans else 0
        rows = (last + 1 if before_slot is None else before_slot) - from_slot
        return await self._database.aread(
            lambda c: reads.read(
                c,
                branch,
                from_slot=from_slot,
                before_slot=before_slot,
                limit=limit,
                newest_first=newest_first,
                roles=roles,
            ),
            quick=min(rows, rows if limit is None else limit) <= _QUICK_ROWS,
        )

    @brief
    def locate(self, branch: Branch, total_tokens: int) -> int | None:
        """The slot of the first message of `branch` with at least `total_tokens` before it."""
        return self._database.read(lambda c: reads.locate(c, branch, total_tokens))

    async def alocate(self, branch: Branch, total_tokens: int) -> int | None:
        """`locate` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.locate(c, branch, total_tokens))

    @brief
    def find(self, branch: Branch, message_id: str) -> LogRecord | None:
        """The newest revision of a message on `branch`; None if it is not there."""
        return self._database.read(lambda c: reads.find(c, branch, message_id))

    async def afind(self, branch: Branch, message_id: str) -> LogRecord | None:
        """`find` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.find(c, branch, message_id))

    @brief
    def revised(self, branch: Branch, *, before_slot: int) -> int | None:
        """The position of the newest revision of a message before `before_slot`."""
        return self._database.read(lambda c: reads.revised(c, branch, before_slot))

    async def arevised(self, branch: Branch, *, before_slot: int) -> int | None:
        """`revised` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.revised(c, branch, before_slot))

    @brief
    def fetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """The records with these `seq`s, in the order asked for; others' are absent."""
        return self._database.read(lambda c: reads.fetch(c, scope, seqs))

    async def afetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """`fetch` without blocking the event loop."""
        return await self._database.aread(
            lambda c: reads.fetch(c, scope, seqs), quick=len(seqs) <= _QUICK_ROWS
        )

    @brief
    def turns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`fetch` without texts and without superseded revisions, or what stands around it."""
        return self._database.read(lambda c: reads.turns(c, scope, seqs, around, known))

    async def aturns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`turns` without blocking the event loop."""
        return await self._database.aread(
            lambda c: reads.turns(c, scope, seqs, around, known),
            quick=len(seqs) * (1 + 2 * around) <= _QUICK_TURNS,
        )

    @brief
    def top(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """The most important human, ai and tool messages with terms, ties by slot."""
        return self._database.read(lambda c: reads.top(c, branch, before_slot, limit))

    async def atop(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """`top` without blocking the event loop."""
        return await self._database.aread(
            lambda c: reads.top(c, branch, before_slot, limit), quick=limit <= _QUICK_ROWS
        )

    def search(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """Records after `after_seq` with any of `terms`, best BM25 score first, ties by `seq`."""
        return self._database.read(lambda c: search(c, scope, terms, limit, after_seq))

    async def asearch(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """`search` without blocking the event loop."""
        newer = await self.alast_seq(tenant_of(scope)) - after_seq
        return await self._database.aread(
            lambda c: search(c, scope, terms, limit, after_seq), quick=newer <= _QUICK_TURNS
        )

    def tenants(self) -> list[str]:
        """Every tenant an index may have something of, in a fixed order."""
        return self._database.read(reads.tenants)

    async def atenants(self) -> list[str]:
        """`tenants` without blocking the event loop."""
        return await asyncio.to_thread(self.tenants)

    def pending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """The next `limit` records of a tenant after `after_seq`, for an index."""
        return self._database.read(lambda c: reads.pending(c, tenant_id, after_seq, limit))

    async def apending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """`pending` without blocking the event loop."""
        newer = await self.alast_seq(tenant_id) - after_seq
        return await self._database.aread(
            lambda c: reads.pending(c, tenant_id, after_seq, limit),
            quick=min(limit, newer) <= _QUICK_ROWS,
        )

    @brief
    def last_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """The `seq` of the tenant's newest record, up to `until_seq` if given; 0 for none."""
        return self._database.read(lambda c: reads.last_seq(c, tenant_id, until_seq))

    async def alast_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """`last_seq` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.last_seq(c, tenant_id, until_seq))

    @brief
    def marks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """How far an index has followed a tenant's log; zeros for an unknown one."""
        return self._database.read(lambda c: reads.marks(c, tenant_id, index_id))

    async def amarks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """`marks` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.marks(c, tenant_id, index_id))

    def set_marks(self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int) -> None:
        """Note how far an index has taken in a tenant's records."""
        self._database.write(
            lambda c: progress.set_marks(c, tenant_id, index_id, words_seq, dense_seq)
        )

    async def aset_marks(
        self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int
    ) -> None:
        """`set_marks` without blocking the event loop."""
        await self._database.awrite(
            lambda c: progress.set_marks(c, tenant_id, index_id, words_seq, dense_seq)
        )

    @brief
    def erasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """What was erased of a tenant after the erasure `after_id`, oldest first."""
        return self._database.read(lambda c: reads.erasures(c, tenant_id, after_id))

    async def aerasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """`erasures` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.erasures(c, tenant_id, after_id))

    def set_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """Note that an index has carried out a tenant's erasures up to `erasure_id`, at least."""
        self._database.write(lambda c: progress.set_erased(c, tenant_id, index_id, erasure_id))

    async def aset_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """`set_erased` without blocking the event loop."""
        await self._database.awrite(
            lambda c: progress.set_erased(c, tenant_id, index_id, erasure_id)
        )

    @brief
    def unfollowed(self, index_id: str, limit: int) -> list[str]:
        """Up to `limit` tenants with an erasure that an index has not carried out."""
        return self._database.read(lambda c: reads.unfollowed(c, index_id, limit))

    async def aunfollowed(self, index_id: str, limit: int) -> list[str]:
        """`unfollowed` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.unfollowed(c, index_id, limit))

    def claim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """Whether `holder` alone may do `task` for a tenant during the next `duration`."""
        return self._database.write(lambda c: progress.claim(c, tenant_id, task, holder, duration))

    async def aclaim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """`claim` without blocking the event loop."""
        return await self._database.awrite(
            lambda c: progress.claim(c, tenant_id, task, holder, duration)
        )

    def release(self, tenant_id: str, task: str, holder: str) -> None:
        """Give a claimed task back; nothing happens where `holder` does not hold it."""
        self._database.write(lambda c: progress.release(c, tenant_id, task, holder))

    async def arelease(self, tenant_id: str, task: str, holder: str) -> None:
        """`release` without blocking the event loop."""
        await self._database.awrite(lambda c: progress.release(c, tenant_id, task, holder))

    @brief
    def get_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """What `put_derived` stored for the thread, if it is still kept."""
        return self._database.read(lambda c: reads.get_derived(c, scope, kind, key))

    async def aget_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """`get_derived` without blocking the event loop."""
        return await self._database.aread(lambda c: reads.get_derived(c, scope, kind, key))

    def put_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """Store a choice made from what `branch` shows; the newest `keep` of its kind stay."""
        self._database.write(_putting(branch, kind, key, value, keep))

    async def aput_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """`put_derived` without blocking the event loop."""
        await self._database.awrite(_putting(branch, kind, key, value, keep))

    def put_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """Keep what records state, by their `seq`s, for as long as they are recorded."""
        self._database.write(lambda c: put_stated(c, tenant_id, values, after_seq, until_seq))

    async def aput_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """`put_stated` without blocking the event loop."""
        await self._database.awrite(
            lambda c: put_stated(c, tenant_id, values, after_seq, until_seq),
            quick=len(values) <= _QUICK_ROWS,
        )

    def stated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """What the records that `scope` sees state, in the order recorded."""
        return self._database.read(lambda c: stated(c, scope, after_seq))

    async def astated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """`stated` without blocking the event loop."""
        return await self._database.aread(
            lambda c: stated(c, scope, after_seq), quick=after_seq > 0
        )

    def stated_count(self, scope: Scope) -> int:
        """How many records `stated` gives."""
        return self._database.read(lambda c: stated_count(c, scope))

    async def astated_count(self, scope: Scope) -> int:
        """`stated_count` without blocking the event loop."""
        return await self._database.aread(lambda c: stated_count(c, scope))

    def weigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """Pin, boost or mute a message of a thread; whether the thread has it."""
        return self._database.write(lambda c: weigh(c, scope, message_id, given))

    async def aweigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """`weigh` without blocking the event loop."""
        return await self._database.awrite(lambda c: weigh(c, scope, message_id, given))

    @brief
    def weighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """What is pinned, boosted or muted of the records that `scope` sees, last marked last."""
        return self._database.read(lambda c: weighed(c, scope, beside))

    async def aweighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """`weighed` without blocking the event loop."""
        return await self._database.aread(lambda c: weighed(c, scope, beside))

    def threads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """The threads with records, or those that a user spoke in, by name."""
        return self._database.read(lambda c: threads(c, scope, prefix))

    async def athreads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """`threads` without blocking the event loop."""
        return await asyncio.to_thread(self.threads, scope, prefix=prefix)

    def history(self, scope: Scope) -> Iterator[LogRecord]:
        """Every record of a thread in the order recorded: all revisions, all branches."""
        tenant_id, thread_id = thread_of(scope)
        key = self._database.read(lambda c: reads.thread_key(c, tenant_id, thread_id))
        return iter(()) if key is None else self._history(key)

    def _history(self, key: int) -> Iterator[LogRecord]:
        position = 0
        while page := self._database.read(_paging(key, position)):
            yield from page
            position = page[-1].position + 1

    def ahistory(self, scope: Scope) -> AsyncIterator[LogRecord]:
        """`history` without blocking the event loop."""
        return self._ahistory(*thread_of(scope))

    async def _ahistory(self, tenant_id: str, thread_id: str) -> AsyncIterator[LogRecord]:
        key = await self._database.aread(lambda c: reads.thread_key(c, tenant_id, thread_id))
        position = 0
        while key is not None and (
            page := await self._database.aread(_paging(key, position), quick=False)
        ):
            for record in page:
                yield record
            position = page[-1].position + 1

    def verify(self, scope: Scope | None = None) -> Verification:
        """Re-derive every hash and total of a thread, a tenant or the whole log."""
        return self._database.read(lambda c: verify(c, scope))

    async def averify(self, scope: Scope | None = None) -> Verification:
        """`verify` without blocking the event loop."""
        return await asyncio.to_thread(self.verify, scope)

    def erase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """Remove a thread or a whole tenant: nothing of it is left in the file or its WAL."""
        require_whole(scope, "erase")
        erased = self._database.write(lambda c: delete(c, scope, also))
        self._database.exclusive(lambda c: clean(c, self._busy_timeout))
        return erased

    async def aerase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """`erase` without blocking the event loop."""
        return await asyncio.to_thread(self.erase, scope, also=also)

    def withdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """Remove single messages: nothing but their places is left in the file or its WAL."""
        erased = self._database.write(lambda c: withdraw(c, scope, which))
        self._database.exclusive(lambda c: clean(c, self._busy_timeout))
        return erased

    async def awithdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """`withdraw` without blocking the event loop."""
        return await asyncio.to_thread(self.withdraw, scope, which)

    def tenant_stats(self, scope: Scope) -> LogStats:
        """How much a tenant, or one of its threads, has recorded."""
        return self._database.read(lambda c: reads.stats(c, scope))

    async def atenant_stats(self, scope: Scope) -> LogStats:
        """`tenant_stats` without blocking the event loop."""
        return await asyncio.to_thread(self.tenant_stats, scope)


def _appending(scope: Scope, entries: Sequence[Entry]) -> Work[list[LogRecord]]:
    tenant_id, thread_id = thread_of(scope)
    return lambda c: append(c, tenant_id, thread_id, scope.user_id, entries)


def _nothing(scope: Scope) -> list[LogRecord]:
    thread_of(scope)
    return []


def _paging(key: int, position: int) -> Work[list[LogRecord]]:
    return lambda c: reads.page(c, key, position, _PAGE)


def _putting(branch: Branch, kind: str, key: str, value: bytes, keep: int) -> Work[None]:
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")

    def put(connection: Connection) -> None:
        thread = reads.standing_key(connection, branch)
        if thread is None:
            return
        connection.execute(
            "INSERT OR REPLACE INTO derived (thread, kind, key, value) VALUES (?, ?, ?, ?)",
            (thread, kind, key, value),
        )
        connection.execute(
            "DELETE FROM derived WHERE id IN (SELECT id FROM derived WHERE thread = ? "
            "AND kind = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (thread, kind, keep),
        )

    return put
