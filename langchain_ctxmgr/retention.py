"""Erasing: from the log first, then from everything that was made of it.

The log notes the erasure in the same transaction, so what fails or dies after that is
carried out later, by whichever process writes the vectors next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.folder import Folder
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.facts.service import memories_beside, memory_scope
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import ErasureReceipt, Expiry, Scope
from langchain_ctxmgr.storage.message_log import MessageLog, tenant_of
from langchain_ctxmgr.view.builder import ViewBuilder

_NAMED: Final = 5
"""Shared threads that an error names."""


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

        Raises:
            ValueError: If others spoke in a thread of the user.
            StorageError: If a part cannot be cleaned; the message says which.
        """
        first, also = yield from self._targets(scope, memory)
        yield from self.recorder.erase(scope if memory is None else first or scope)
        for thread in also:
            yield from self.recorder.erase(Scope(tenant_id=scope.tenant_id, thread_id=thread))
        return (yield from self._erased(scope, first, also, at=at, folder=folder))

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
        first = replace(tenant, thread_id=due[0])
        receipt = yield from self._erased(tenant, first, due[1:], at=at, folder=folder)
        return Expiry(threads=tuple(due), receipt=receipt)

    def _erased(
        self,
        scope: Scope,
        first: Scope | None,
        also: Sequence[str],
        *,
        at: datetime,
        folder: Folder | None,
    ) -> Plan[ErasureReceipt]:
        """Erase a thread or tenant and further threads, for the receipt of `scope`."""
        tenant = Scope(tenant_id=tenant_of(scope))
        messages = vectors = derived = 0
        left = list[StorageError]()
        if first is not None:
            erased = yield from call(self.log.erase, first, also=also)
            messages, derived = erased.messages, erased.derived
        self.views.forget()
        if first is not None:
            try:
                vectors = yield from self._from_vectors(first, also, folder)
            except StorageError as error:
                left.append(error)
        # A user's questions may be kept without a thread.
        kept = tenant if scope.user_id is not None or first is None else first
        try:
            for each in (kept, *(replace(tenant, thread_id=thread) for thread in also)):
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
            scope=scope, at=at, messages=messages, vectors=vectors, derived=derived
        )

    def _targets(self, scope: Scope, memory: str | None) -> Plan[tuple[Scope | None, list[str]]]:
        """What goes: a thread or tenant, and further threads; None where a user has none."""
        if memory is not None:
            return replace(memory_scope(scope, memory), user_id=None), []
        if scope.user_id is None:
            return scope, (yield from memories_beside(self.log, scope))
        spoken = yield from call(self.log.threads, scope)
        shared = [each.thread_id for each in spoken if each.is_shared]
        if shared:
            raise ValueError(
                f"user {scope.user_id!r} shares threads with others, who would lose them too: "
                f"{', '.join(map(repr, shared[:_NAMED]))}; forget those by thread_id first"
            )
        names = [each.thread_id for each in spoken]
        if not names:
            return None, []
        return Scope(tenant_id=scope.tenant_id, thread_id=names[0]), names[1:]

    def _from_vectors(self, scope: Scope, also: Sequence[str], folder: Folder | None) -> Plan[int]:
        try:
            vectors = yield from self.indexer.erase(scope, also=also)
            if folder is not None:
                folder.drop_other_vectors()
        except ShardInUseError:
            if folder is None or not folder.have_followed(tenant_of(scope)):
                raise
            return 0
        return vectors
