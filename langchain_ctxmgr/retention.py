"""Erasing: from the log first, then from everything that was made of it.

The log notes the erasure in the same transaction, so what fails or dies after that is
carried out later, by whichever process writes the vectors next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple, cast

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import ShardInUseError, StorageError
from langchain_ctxmgr.folder import Folder
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.facts.service import memories_beside, memory_scope
from langchain_ctxmgr.memory.indexer import Indexer, Part
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import ErasureReceipt, Expiry, Scope
from langchain_ctxmgr.storage.message_log import Erased, MessageLog, Withdrawal, tenant_of
from langchain_ctxmgr.view.builder import ViewBuilder

_PAGE: Final = 256
"""Records read at once where a text is looked for."""


class _Targets(NamedTuple):
    """What of a scope goes as a whole."""

    whole: Scope | None
    """A thread or tenant; None where a user has no thread of their own."""
    also: tuple[str, ...]
    """Further threads."""
    is_shared: bool = False
    """Whether single messages of other threads go too."""


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
        whole, also, is_shared = yield from self._targets(scope, memory)
        yield from self.recorder.erase(scope if memory is None else whole or scope)
        for thread in also:
            yield from self.recorder.erase(replace(tenant, thread_id=thread))
        gone = [] if whole is None else [(yield from self._whole(whole, also))]
        if is_shared:
            erased = yield from call(self.log.withdraw, scope, Withdrawal())
            gone.append(_Gone(erased, (Part(tenant, erased.seqs),)))
        # A user's questions may be kept without a thread.
        kept = tenant if scope.user_id is not None or whole is None else whole
        cached = [kept, *(replace(tenant, thread_id=thread) for thread in also)]
        return (yield from self._followed(scope, gone, cached, at, folder))

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
        tenant = Scope(tenant_id=tenant_of(scope))
        yield from self.recorder.hand_over()
        meant = [(scope, which)]
        if matching is not None:
            meant = yield from self._matching(scope, which, matching)
        gone: list[_Gone] = []
        for part, chosen in meant:
            erased = yield from call(self.log.withdraw, part, chosen)
            gone.append(_Gone(erased, (Part(tenant, erased.seqs),)))
        return (yield from self._followed(scope, gone, [tenant], at, folder))

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
        receipt = yield from self._followed(tenant, [gone], cached, at, folder)
        return Expiry(threads=tuple(due), receipt=receipt)

    def _whole(self, first: Scope, also: Sequence[str]) -> Plan[_Gone]:
        """Erase a thread or tenant, and further threads, from the log."""
        erased = yield from call(self.log.erase, first, also=also)
        further = (Scope(tenant_id=first.tenant_id, thread_id=thread) for thread in also)
        return _Gone(erased, tuple(map(Part, (first, *further))))

    def _matching(
        self, scope: Scope, which: Withdrawal, text: str
    ) -> Plan[list[tuple[Scope, Withdrawal]]]:
        """The messages of each thread that hold `text` anywhere, whatever its case."""
        wanted, after_seq = text.casefold(), 0
        found: dict[str, list[str]] = {}
        while True:
            page = yield from call(self.log.pending, tenant_of(scope), after_seq, _PAGE)
            for record in (entry.record for entry in page.entries):
                is_meant = scope.thread_id in {None, record.thread_id} and scope.user_id in {
                    None,
                    record.user_id,
                }
                if is_meant and _holds(record.message.model_dump(), wanted):
                    found.setdefault(record.thread_id, []).append(record.message_id)
            if page.until_seq == after_seq:
                return [
                    (replace(scope, thread_id=thread), replace(which, message_ids=tuple(ids)))
                    for thread, ids in found.items()
                ]
            after_seq = page.until_seq

    def _followed(
        self,
        scope: Scope,
        gone: Sequence[_Gone],
        cached: Sequence[Scope],
        at: datetime,
        folder: Folder | None,
    ) -> Plan[ErasureReceipt]:
        """The receipt, once everything has followed what the log erased."""
        self.views.forget()
        vectors, left = 0, list[StorageError]()
        try:
            parts = [part for each in gone for part in each.parts]
            vectors = yield from self._from_vectors(tenant_of(scope), parts, folder)
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
            messages=sum(each.erased.messages for each in gone),
            vectors=vectors,
            derived=sum(each.erased.derived for each in gone),
        )

    def _targets(self, scope: Scope, memory: str | None) -> Plan[_Targets]:
        if memory is not None:
            return _Targets(replace(memory_scope(scope, memory), user_id=None), ())
        if scope.user_id is None:
            return _Targets(scope, tuple((yield from memories_beside(self.log, scope))))
        spoken = yield from call(self.log.threads, scope)
        own = [each.thread_id for each in spoken if not each.is_shared]
        whole = Scope(tenant_id=scope.tenant_id, thread_id=own[0]) if own else None
        return _Targets(whole, tuple(own[1:]), is_shared=len(own) < len(spoken))

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
