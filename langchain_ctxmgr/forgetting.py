"""A manager's methods for forgetting: what is named, and what is old."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.folder import Folder
from langchain_ctxmgr.intake import text_of, withdrawal_of
from langchain_ctxmgr.records import ErasureReceipt, Expiry, Scope
from langchain_ctxmgr.retention import Eraser
from langchain_ctxmgr.settings import require
from langchain_ctxmgr.storage.message_log import Withdrawal


class Forgets(ABC):
    """A manager's methods for forgetting."""

    _eraser: Eraser
    _folder: Folder | None

    @abstractmethod
    def _scope(self, scope: object) -> Scope: ...

    @abstractmethod
    def _moment(self) -> datetime: ...

    def forget(
        self,
        *,
        scope: Scope,
        memory: str | None = None,
        message_ids: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        matching: str | None = None,
    ) -> ErasureReceipt:
        """Erase a thread, a user in all their threads, or a whole tenant; or single messages.

        Nothing of the text is left in the log, its files, the vectors, facts or stored choices.
        The tenant's and the threads' ids stay noted with the log, so that an index which
        is put back from a copy follows the erasure too. Of a message that was erased by itself
        its id, time and hashes stay: `verify` holds, and a host that records it again does not
        bring it back.

        Args:
            scope: What is erased; with what follows, where it is. A user in a thread: what was
                recorded for them there.
            memory: The id of a memory that `remember` or `learn` saved: it alone is erased.
            message_ids: Of the scope's thread, these.
            since: What was said at this time or later.
            until: What was said before this time.
            matching: What holds this text anywhere, whatever its case. Reads all that the tenant
                has recorded.

        Raises:
            ValueError: If `message_ids` come without a thread, a time has no zone, a text is
                empty, or `memory` comes with another.
            StorageError: If a store cannot be cleaned; the message says what is left. It is
                noted in the log, and whoever writes the vectors next removes it there; call
                again for a receipt.
        """
        which = partial(withdrawal_of, message_ids=message_ids, since=since, until=until)
        return run(self._forgotten(scope, memory, which, matching))

    async def aforget(
        self,
        *,
        scope: Scope,
        memory: str | None = None,
        message_ids: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        matching: str | None = None,
    ) -> ErasureReceipt:
        """`forget` on an event loop."""
        which = partial(withdrawal_of, message_ids=message_ids, since=since, until=until)
        return await arun(self._forgotten(scope, memory, which, matching))

    def _forgotten(
        self,
        scope: Scope,
        memory: str | None,
        chosen: Callable[[Scope], Withdrawal],
        matching: str | None,
    ) -> Plan[ErasureReceipt]:
        where, at, folder = self._scope(scope), self._moment(), self._folder
        which = chosen(where)
        text = None if matching is None else text_of("matching", matching)
        is_part = text is not None or which != Withdrawal()
        if memory is not None:
            if is_part:
                raise ValueError(f"memory must come without other choices, got {memory!r}")
            memory = text_of("memory", memory)
        elif is_part or (where.thread_id is not None and where.user_id is not None):
            erase = self._eraser.withdraw(where, which, matching=text, at=at, folder=folder)
            return (yield from erase)
        return (yield from self._eraser.erase(where, memory=memory, at=at, folder=folder))

    def expire(self, *, scope: Scope, keep: timedelta, dry_run: bool = False) -> Expiry:
        """`forget` a tenant's threads in which nothing was said for longer than `keep`.

        A thread goes as a whole, so nothing is lost from one that is still spoken in. Each
        memory is a thread of its own, as old as when it was saved.

        Args:
            scope: A tenant.
            keep: How long, such as `tiers.PRO.keep`.
            dry_run: Only say which threads would go.

        Raises:
            ValueError: If the scope names more than a tenant, or `keep` is not positive.
            StorageError: As `forget`.
        """
        return run(self._expired(scope, keep, is_dry_run=dry_run))

    async def aexpire(self, *, scope: Scope, keep: timedelta, dry_run: bool = False) -> Expiry:
        """`expire` on an event loop."""
        return await arun(self._expired(scope, keep, is_dry_run=dry_run))

    def _expired(self, scope: Scope, keep: timedelta, *, is_dry_run: bool) -> Plan[Expiry]:
        where = self._scope(scope)
        if where.thread_id is not None or where.user_id is not None:
            raise ValueError(f"scope must name a tenant alone to expire, got {where}")
        require(keep=keep)
        return (
            yield from self._eraser.expire(
                where, keep=keep, at=self._moment(), is_dry_run=is_dry_run, folder=self._folder
            )
        )
