"""Erasing: from the log first, then from everything that was made of it.

The log notes the erasure in the same transaction, so what fails or dies after that is
carried out later, by whichever process writes the vectors next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, cast

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.folder import Folder
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.claims import moment
from langchain_ctxmgr.memory.episodic import is_episode_thread, stands_for
from langchain_ctxmgr.memory.facts.service import memories_beside, memory_scope
from langchain_ctxmgr.memory.index_runs import PATIENCE
from langchain_ctxmgr.memory.indexer import Indexer, Part
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import ErasureReceipt, Expiry, Scope
from langchain_ctxmgr.storage.message_log import Erased, MessageLog, Withdrawal, tenant_of
from langchain_ctxmgr.view.builder import ViewBuilder

_PAGE: Final = 256
"""Records read at once where a text is looked for."""


class _Gone(NamedTuple):
    """What was erased from the log."""

    erased: Erased
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Eraser:
    """Everything that may hold a text or what was made from it."""

    log: MessageLog
    recorder: Recorder
    indexer: Indexer
    views: ViewBuilder
    cached: Cached

    def erase(
        self, scope: Scope, *, memory: str | None, at: datetime, folder: Folder | None
    ) -> Plan[ErasureReceipt]:
        """Erase a thread, a user, a whole tenant, or one `memory` of a user or thread.

        Of a thread that the user shares with others, what they said stays.

        Raises:
            StorageError: If a part cannot be cleaned; the message says which.
        """
        tenant = Scope(tenant_id=tenant_of(scope))
        if memory is None and scope.user_id is not None:
            yield from self.recorder.erase(scope)
            return (yield from self._withdrawn(scope, Withdrawal(), at, folder))
        if memory is not None:
            whole, also = replace(memory_scope(scope, memory), user_id=None), []
        else:
            whole, also = scope, (yield from memories_beside(self.log, scope))
        threads = [whole, *(replace(tenant, thread_id=thread) for thread in also)]
        for thread in threads:
            yield from self.recorder.erase(thread)
        gone = yield from self._whole(whole, also)
        return (yield from self._followed(scope, gone, threads, at, folder))

    def withdraw(
        self,
        scope: Scope,
        which: Withdrawal,
        *,
        matching: str | None,
        at: datetime,
        folder: Folder | None,
    ) -> Plan[ErasureReceipt]:
        """Erase single messages of a scope; with `matching`, those that hold this text.

        Raises:
            StorageError: If a part cannot be cleaned, or messages wait for the log that may be
                meant; the message says which.
        """
        yield from self.recorder.hand_over()
        if matching is not None:
            which = replace(which, seqs=(yield from self._matching(scope, matching)))
        return (yield from self._withdrawn(scope, which, at, folder))

    def expire(
        self,
        tenant: Scope,
        *,
        keep: timedelta,
        at: datetime,
        is_dry_run: bool,
        folder: Folder | None,
    ) -> Plan[Expiry]:
        """Erase a tenant's threads in which nothing was said for longer than `keep`.

        What waits in a spool was said since, and stays.
        """
        found = yield from call(self.log.threads, tenant)
        due = [each.thread_id for each in found if at - each.newest_at > keep]
        if is_dry_run or not due:
            return Expiry(threads=tuple(due), receipt=None)
        gone = yield from self._whole(replace(tenant, thread_id=due[0]), due[1:])
        cached = [part.scope for part in gone.parts]
        receipt = yield from self._followed(tenant, gone, cached, at, folder)
        return Expiry(threads=tuple(due), receipt=receipt)

    def _withdrawn(
        self, scope: Scope, which: Withdrawal, at: datetime, folder: Folder | None
    ) -> Plan[ErasureReceipt]:
        """Erase single messages, in one transaction of the log.

        What is cached may be of a question without a thread: all of the tenant's goes.
        """
        tenant = Scope(tenant_id=tenant_of(scope))
        erased = yield from call(self.log.withdraw, scope, which)
        gone = _Gone(erased, (Part(tenant, erased.seqs),))
        stale = yield from self._episodes(scope, which, frozenset(erased.seqs))
        if stale:
            told = yield from self._whole(replace(tenant, thread_id=stale[0]), stale[1:])
            both = replace(
                erased,
                messages=erased.messages + told.erased.messages,
                derived=erased.derived + told.erased.derived,
            )
            gone = _Gone(both, (*gone.parts, *told.parts))
        return (yield from self._followed(scope, gone, [tenant], at, folder))

    def _episodes(self, scope: Scope, which: Withdrawal, seqs: frozenset[int]) -> Plan[list[str]]:
        """The threads of episodes that stand for what is withdrawn.

        Told by what each keeps of its turns, so that calling again finds what is left.
        """
        if scope.thread_id is not None:
            threads = yield from memories_beside(self.log, scope)
        else:
            threads = [each.thread_id for each in (yield from call(self.log.threads, scope))]
        stale: list[str] = []
        for name in filter(is_episode_thread, threads):
            thread = Scope(tenant_id=scope.tenant_id, thread_id=name)
            head = (yield from call(self.log.branch, thread)).head
            if head is not None and stands_for(head.message, which, seqs):
                stale.append(name)
        return stale

    def _whole(self, first: Scope, also: Sequence[str]) -> Plan[_Gone]:
        """Erase a thread or tenant, and further threads, from the log."""
        erased = yield from call(self.log.erase, first, also=also)
        further = (Scope(tenant_id=first.tenant_id, thread_id=thread) for thread in also)
        return _Gone(erased, tuple(map(Part, (first, *further))))

    def _matching(self, scope: Scope, text: str) -> Plan[tuple[int, ...]]:
        """The records of `scope` that hold `text` anywhere, whatever its case.

        Waits where appends under way hold back some that are recorded already.
        """
        wanted, tenant = text.casefold(), Scope(tenant_id=tenant_of(scope))
        due = (yield from call(self.log.tenant_stats, tenant)).records
        found: list[int] = []
        after_seq = seen = 0
        give_up_at = time.monotonic() + PATIENCE.total_seconds()
        while True:
            page = yield from call(self.log.pending, tenant_of(scope), after_seq, _PAGE)
            if page.damaged:
                raise StorageError(
                    f"records {list(page.damaged)} of {scope} cannot be read, and may be meant; "
                    "`verify` says more"
                )
            for record in (entry.record for entry in page.entries):
                is_meant = scope.thread_id in {None, record.thread_id} and scope.user_id in {
                    None,
                    record.user_id,
                }
                if is_meant and _holds(record.message.model_dump(), wanted):
                    found.append(record.seq)
            seen += len(page.entries)
            if page.until_seq > after_seq:
                after_seq = page.until_seq
                continue
            now = (yield from call(self.log.tenant_stats, tenant)).records
            if seen >= min(due, now):
                return tuple(found)
            if time.monotonic() > give_up_at:
                raise StorageError("messages that may be meant are being recorded: call again")
            yield from call(moment.sleep)

    def _followed(
        self,
        scope: Scope,
        gone: _Gone,
        cached: Sequence[Scope],
        at: datetime,
        folder: Folder | None,
    ) -> Plan[ErasureReceipt]:
        """The receipt, once everything has followed what the log erased."""
        self.views.forget(tenant_of(scope))
        vectors, left = 0, list[StorageError]()
        try:
            vectors = yield from self._from_vectors(tenant_of(scope), gone.parts, folder)
        except StorageError as error:
            left.append(error)
        try:
            for each in cached:
                yield from self.cached.erase(each)
        except StorageError as error:
            left.append(error)
        if left:
            raise StorageError(
                f"{scope} is erased from the log, and not everywhere yet: "
                f"{'; '.join(map(str, left))}. Vectors are removed by whoever writes them next; "
                "call again to finish and for a receipt"
            ) from left[0]
        return ErasureReceipt(
            scope=scope,
            at=at,
            messages=gone.erased.messages,
            vectors=vectors,
            derived=gone.erased.derived,
        )

    def _from_vectors(
        self, tenant_id: str, gone: Sequence[Part], folder: Folder | None
    ) -> Plan[int]:
        try:
            vectors = yield from self.indexer.erase(tenant_id, gone)
            if folder is not None:
                folder.drop_other_vectors()
        except ShardInUseError:
            if folder is None or not folder.have_followed(tenant_id):
                raise
            return 0
        return vectors


def _holds(value: object, wanted: str) -> bool:
    """Whether any text in a message's values does."""
    match value:
        case str():
            return wanted in value.casefold()
        case dict():
            entries = cast("dict[object, object]", value)
            return any(_holds(each, wanted) for pair in entries.items() for each in pair)
        case list() | tuple():
            return any(_holds(each, wanted) for each in cast("Sequence[object]", value))
        case _:
            return False
