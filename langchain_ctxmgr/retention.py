"""Erasing: from the log first, then from everything that was made of it.

The log notes the erasure in the same transaction, so what fails or dies after that is
carried out later, by whichever process writes the vectors next.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.folder import Folder
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.facts.service import memories_of
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import ErasureReceipt, Scope
from langchain_ctxmgr.storage.message_log import MessageLog, tenant_of
from langchain_ctxmgr.view.builder import ViewBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class Eraser:
    """Everything that may hold a text or what was made from it."""

    log: MessageLog
    recorder: Recorder
    indexer: Indexer
    views: ViewBuilder
    cached: Cached

    def erase(self, scope: Scope, *, at: datetime, folder: Folder | None) -> Plan[ErasureReceipt]:
        """Erase a thread, or a whole tenant when the scope names no thread; it names no user.

        Raises:
            StorageError: If a part cannot be cleaned; the message says which.
        """
        # What was learned beside a thread goes with it; a tenant's goes with the tenant.
        also = () if scope.thread_id is None else (memories_of(scope),)
        messages = vectors = derived = 0
        left = list[StorageError]()
        for each in (scope, *also):
            yield from self.recorder.erase(each)
            erased = yield from call(self.log.erase, each)
            messages += erased.messages
            derived += erased.derived
        self.views.forget()
        for each in (scope, *also):
            try:
                vectors += yield from self._from_vectors(each, folder)
            except StorageError as error:
                left.append(error)
            try:
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
            messages=messages,
            vectors=vectors,
            derived=derived,
        )

    def _from_vectors(self, scope: Scope, folder: Folder | None) -> Plan[int]:
        try:
            vectors = yield from self.indexer.erase(scope)
            if folder is not None:
                folder.drop_other_vectors()
        except ShardInUseError:
            if folder is None or not folder.have_followed(tenant_of(scope)):
                raise
            return 0
        return vectors
