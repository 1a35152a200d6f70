"""The message log in PostgreSQL: for many machines.

Row-level security holds each transaction to one tenant's rows in the database itself, for
any role but a superuser or one with BYPASSRLS. A role that may create tables runs `setup`
once; the role the workers connect as then needs no more than

    GRANT USAGE ON SCHEMA ctxmgr TO app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ctxmgr TO app;
    GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA ctxmgr TO app;

The search path and the statement time-out are set once a connection, so a pooler between
has to keep sessions (PgBouncer: `pool_mode = session`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, Self

import psycopg

from langchain_ctxmgr.closable import Closable
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Branch, Draft, LogRecord, Scope, Turn, Weighed
from langchain_ctxmgr.storage import postgres_audit as audit
from langchain_ctxmgr.storage import postgres_progress as progress
from langchain_ctxmgr.storage import postgres_reads as reads
from langchain_ctxmgr.storage.chain_check import Problems
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
from langchain_ctxmgr.storage.placement import entry_of, is_light
from langchain_ctxmgr.storage.postgres_append import append
from langchain_ctxmgr.storage.postgres_database import Database, Inspected
from langchain_ctxmgr.storage.postgres_search import search
from langchain_ctxmgr.storage.postgres_stated import put_stated, stated, stated_count
from langchain_ctxmgr.storage.postgres_weights import weigh, weighed
from langchain_ctxmgr.storage.postgres_withdrawal import withdraw
from langchain_ctxmgr.storage.postgres_work import Work
from langchain_ctxmgr.turns import NO_TURNS, Turns

_PAGE: Final = 256
_QUICK_ROWS: Final = 64
"""Drafts made ready in place on an event loop: about a millisecond."""
_QUICK_CHARS: Final = 65_536


class PostgresLog(Closable):
    """A `MessageLog` in the database at `url`; nothing is connected until first use.

    Threads, tasks of several event loops, forked children and other processes may all use
    it. Connections are pooled for threads, and for each event loop, which closes its own
    when it shuts down as `asyncio.run` does; `close` closes all.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters such
            as `?sslmode=verify-full`; what it leaves out comes from libpq's defaults.
        schema: Where the tables are; made by `setup` if the role may.
        max_connections: At once, for threads and for each event loop.
        timeout: How long a call waits for a connection, an answer, another writer of the
            thread, or for a server that restarts, before it raises `StorageError`.
            Verifying and erasing take as long as they need.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "ctxmgr",
        max_connections: int = 10,
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._database = Database(
            url, schema=schema, max_connections=max_connections, timeout=timeout
        )
        self._schema = schema

    def __repr__(self) -> str:
        return f"PostgresLog({self._database.server.name!r})"

    def __enter__(self) -> Self:
        self.setup()
        return self

    async def __aenter__(self) -> Self:
        await self.asetup()
        return self

    def setup(self) -> None:
        """Create or update the tables; also done on first use."""
        self._database.setup()

    def inspect(self) -> Inspected:
        """What is there, without making anything.

        Raises:
            LogError: If the server cannot be reached, or its tables are newer than this release.
        """
        return self._database.inspect()

    async def asetup(self) -> None:
        """`setup` without blocking the event loop."""
        await asyncio.to_thread(self.setup)

    def close(self) -> None:
        """Give back connections. May be called again; other methods then raise StorageError."""
        self._database.close()

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        self.close()

    def append(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """Add `drafts` to a thread, all or none; the records that are new."""
        work = self._appending(scope, drafts)
        return [] if work is None else self._database.run(work)

    async def aappend(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """`append` without blocking the event loop."""
        if len(drafts) > _QUICK_ROWS or not is_light(drafts, chars=_QUICK_CHARS):
            work = await asyncio.to_thread(self._appending, scope, drafts)
        else:
            work = self._appending(scope, drafts)
        return [] if work is None else await self._database.arun(work)

    def _appending(self, scope: Scope, drafts: Sequence[Draft]) -> Work[list[LogRecord]] | None:
        thread_of(scope)
        entries = [entry_of(draft) for draft in drafts]
        return append(scope, entries, self._schema) if entries else None

    def branch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """The line of the thread written to last, or the one that ends at message id `head`."""
        return self._database.run(reads.branch(scope, head))

    async def abranch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """`branch` without blocking the event loop."""
        return await self._database.arun(reads.branch(scope, head))

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
        return self._database.run(
            reads.read(
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
        return await self._database.arun(
            reads.read(
                branch,
                from_slot=from_slot,
                before_slot=before_slot,
                limit=limit,
                newest_first=newest_first,
                roles=roles,
            )
        )

    def locate(self, branch: Branch, total_tokens: int) -> int | None:
        """The slot of the first message of `branch` with at least `total_tokens` before it."""
        return self._database.run(reads.locate(branch, total_tokens))

    async def alocate(self, branch: Branch, total_tokens: int) -> int | None:
        """`locate` without blocking the event loop."""
        return await self._database.arun(reads.locate(branch, total_tokens))

    def find(self, branch: Branch, message_id: str) -> LogRecord | None:
        """The newest revision of a message on `branch`; None if it is not there."""
        return self._database.run(reads.find(branch, message_id))

    async def afind(self, branch: Branch, message_id: str) -> LogRecord | None:
        """`find` without blocking the event loop."""
        return await self._database.arun(reads.find(branch, message_id))

    def revised(self, branch: Branch, *, before_slot: int) -> int | None:
        """The position of the newest revision of a message before `before_slot`."""
        return self._database.run(reads.revised(branch, before_slot))

    async def arevised(self, branch: Branch, *, before_slot: int) -> int | None:
        """`revised` without blocking the event loop."""
        return await self._database.arun(reads.revised(branch, before_slot))

    def fetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """The records with these `seq`s, in the order asked for; others' are absent."""
        return self._database.run(reads.fetch(scope, seqs))

    async def afetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """`fetch` without blocking the event loop."""
        return await self._database.arun(reads.fetch(scope, seqs))

    def turns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`fetch` without texts and without superseded revisions."""
        return self._database.run(reads.turns(scope, seqs, around, known))

    async def aturns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`turns` without blocking the event loop."""
        return await self._database.arun(reads.turns(scope, seqs, around, known))

    def top(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """The most important human, ai and tool messages with terms, ties by slot."""
        return self._database.run(reads.top(branch, before_slot, limit))

    async def atop(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """`top` without blocking the event loop."""
        return await self._database.arun(reads.top(branch, before_slot, limit))

    def search(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """Records after `after_seq` with any of `terms`, best BM25 score first, ties by `seq`."""
        return self._database.run(search(scope, terms, limit, after_seq))

    async def asearch(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """`search` without blocking the event loop."""
        return await self._database.arun(search(scope, terms, limit, after_seq))

    def tenants(self) -> list[str]:
        """Every tenant an index may have something of, in a fixed order."""
        return self._database.run(progress.tenants())

    async def atenants(self) -> list[str]:
        """`tenants` without blocking the event loop."""
        return await self._database.arun(progress.tenants())

    def pending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """The next `limit` records of a tenant after `after_seq`, for an index."""
        return self._database.run(progress.pending(tenant_id, after_seq, limit, self._schema))

    async def apending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """`pending` without blocking the event loop."""
        return await self._database.arun(
            progress.pending(tenant_id, after_seq, limit, self._schema)
        )

    def last_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """The `seq` of the tenant's newest record, up to `until_seq` if given; 0 for none."""
        return self._database.run(progress.last_seq(tenant_id, until_seq, self._schema))

    async def alast_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """`last_seq` without blocking the event loop."""
        return await self._database.arun(progress.last_seq(tenant_id, until_seq, self._schema))

    def marks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """How far an index has followed a tenant's log; zeros for an unknown one."""
        return self._database.run(progress.marks(tenant_id, index_id))

    async def amarks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """`marks` without blocking the event loop."""
        return await self._database.arun(progress.marks(tenant_id, index_id))

    def set_marks(self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int) -> None:
        """Note how far an index has taken in a tenant's records."""
        self._database.run(progress.set_marks(tenant_id, index_id, words_seq, dense_seq))

    async def aset_marks(
        self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int
    ) -> None:
        """`set_marks` without blocking the event loop."""
        await self._database.arun(progress.set_marks(tenant_id, index_id, words_seq, dense_seq))

    def erasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """What was erased of a tenant after the erasure `after_id`, oldest first."""
        return self._database.run(progress.erasures(tenant_id, after_id))

    async def aerasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """`erasures` without blocking the event loop."""
        return await self._database.arun(progress.erasures(tenant_id, after_id))

    def set_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """Note that an index has carried out a tenant's erasures up to `erasure_id`, at least."""
        self._database.run(progress.set_erased(tenant_id, index_id, erasure_id))

    async def aset_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """`set_erased` without blocking the event loop."""
        await self._database.arun(progress.set_erased(tenant_id, index_id, erasure_id))

    def unfollowed(self, index_id: str, limit: int) -> list[str]:
        """Up to `limit` tenants with an erasure that an index has not carried out."""
        return self._database.run(progress.unfollowed(index_id, limit))

    async def aunfollowed(self, index_id: str, limit: int) -> list[str]:
        """`unfollowed` without blocking the event loop."""
        return await self._database.arun(progress.unfollowed(index_id, limit))

    def claim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """Whether `holder` alone may do `task` for a tenant during the next `duration`."""
        return self._database.run(progress.claim(tenant_id, task, holder, duration))

    async def aclaim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """`claim` without blocking the event loop."""
        return await self._database.arun(progress.claim(tenant_id, task, holder, duration))

    def release(self, tenant_id: str, task: str, holder: str) -> None:
        """Give a claimed task back; nothing happens where `holder` does not hold it."""
        self._database.run(progress.release(tenant_id, task, holder))

    async def arelease(self, tenant_id: str, task: str, holder: str) -> None:
        """`release` without blocking the event loop."""
        await self._database.arun(progress.release(tenant_id, task, holder))

    def get_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """What `put_derived` stored for the thread, if it is still kept."""
        return self._database.run(reads.get_derived(scope, kind, key))

    async def aget_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """`get_derived` without blocking the event loop."""
        return await self._database.arun(reads.get_derived(scope, kind, key))

    def put_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """Store a choice made from what `branch` shows; the newest `keep` of its kind stay."""
        self._database.run(progress.put_derived(branch, kind, key, value, keep))

    async def aput_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """`put_derived` without blocking the event loop."""
        await self._database.arun(progress.put_derived(branch, kind, key, value, keep))

    def put_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """Keep what records state, by their `seq`s, for as long as they are recorded."""
        self._database.run(put_stated(tenant_id, values, after_seq, until_seq))

    async def aput_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """`put_stated` without blocking the event loop."""
        await self._database.arun(put_stated(tenant_id, values, after_seq, until_seq))

    def stated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """What the records that `scope` sees state, in the order recorded."""
        return self._database.run(stated(scope, after_seq))

    async def astated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """`stated` without blocking the event loop."""
        return await self._database.arun(stated(scope, after_seq))

    def stated_count(self, scope: Scope) -> int:
        """How many records `stated` gives."""
        return self._database.run(stated_count(scope))

    async def astated_count(self, scope: Scope) -> int:
        """`stated_count` without blocking the event loop."""
        return await self._database.arun(stated_count(scope))

    def weigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """Pin, boost or mute a message of a thread; whether the thread has it."""
        return self._database.run(weigh(scope, message_id, given))

    async def aweigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """`weigh` without blocking the event loop."""
        return await self._database.arun(weigh(scope, message_id, given))

    def weighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """What is pinned, boosted or muted of the records that `scope` sees, last marked last."""
        return self._database.run(weighed(scope, beside))

    async def aweighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """`weighed` without blocking the event loop."""
        return await self._database.arun(weighed(scope, beside))

    def threads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """The threads with records, or those that a user spoke in, by name."""
        return self._database.run(reads.threads(scope, prefix))

    async def athreads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """`threads` without blocking the event loop."""
        return await self._database.arun(reads.threads(scope, prefix))

    def history(self, scope: Scope) -> Iterator[LogRecord]:
        """Every record of a thread in the order recorded: all revisions, all branches."""
        thread_of(scope)
        return self._history(scope)

    def _history(self, scope: Scope) -> Iterator[LogRecord]:
        position = 0
        while page := self._database.run(reads.page(scope, position, _PAGE)):
            yield from page
            position = page[-1].position + 1

    def ahistory(self, scope: Scope) -> AsyncIterator[LogRecord]:
        """`history` without blocking the event loop."""
        thread_of(scope)
        return self._ahistory(scope)

    async def _ahistory(self, scope: Scope) -> AsyncIterator[LogRecord]:
        position = 0
        while page := await self._database.arun(reads.page(scope, position, _PAGE)):
            for record in page:
                yield record
            position = page[-1].position + 1

    def verify(self, scope: Scope | None = None) -> Verification:
        """Re-derive every hash and total of a thread, a tenant or the whole log.

        The whole log is gone through tenant by tenant, each in a snapshot of its own.
        """
        tenants = self.tenants() if scope is None else [tenant_of(scope)]
        thread_id = None if scope is None else scope.thread_id
        records, problems = 0, Problems()
        for tenant_id in tenants:
            records += self._database.run(audit.verify(tenant_id, thread_id, problems))
        return Verification(records=records, problems=problems.all())

    async def averify(self, scope: Scope | None = None) -> Verification:
        """`verify` without blocking the event loop."""
        return await asyncio.to_thread(self.verify, scope)

    def erase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """Remove a thread or a whole tenant: nothing of it can be read from the log again.

        What PostgreSQL keeps of deleted rows goes later. This runs VACUUM where the role
        owns the tables (else autovacuum does), after which their space is given to new
        rows; until those overwrite it, the bytes can still be found in the data files, as
        they can in WAL segments and replication slots until these are recycled, and in
        backups until they are deleted. While another transaction is open that began before
        the erasure, VACUUM leaves the rows. `VACUUM FULL` on the schema's tables, which
        locks them meanwhile, rewrites the data files without them at once.
        """
        require_whole(scope, "erase")
        erased = self._database.run(audit.erase(scope, also))
        if erased.threads:
            self._vacuum()
        return erased

    def withdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """Remove single messages. What PostgreSQL keeps of their rows goes as after `erase`."""
        erased = self._database.run(withdraw(scope, which))
        if erased.messages:
            self._vacuum()
        return erased

    async def awithdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """`withdraw` without blocking the event loop."""
        return await asyncio.to_thread(self.withdraw, scope, which)

    def _vacuum(self) -> None:
        try:
            with self._database.apart() as connection:
                connection.execute(audit.VACUUM, prepare=False)
        except psycopg.Error as error:
            explained = self._database.server.explain(error)
            raise StorageError(
                f"the rows are erased; their space is still to be vacuumed: {explained}"
            ) from None

    async def aerase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """`erase` without blocking the event loop."""
        return await asyncio.to_thread(self.erase, scope, also=also)

    def tenant_stats(self, scope: Scope) -> LogStats:
        """How much a tenant, or one of its threads, has recorded."""
        return self._database.run(reads.stats(scope))

    async def atenant_stats(self, scope: Scope) -> LogStats:
        """`tenant_stats` without blocking the event loop."""
        return await self._database.arun(reads.stats(scope))
