"""Appending to the log, or to a spool on this machine while the log is down.

What waits in the spool goes to the log first, each thread in the order it was said. One run at
a time hands it over, for a bounded time in each turn; until it is done, what is recorded
meanwhile waits behind it. Without a spool an append that fails is an error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeVar

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import LogError, ReadOnlyLogError, StorageError
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.claims import moment
from langchain_ctxmgr.records import Draft, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.spool import Spool, named

T = TypeVar("T")

REPLAY_SECONDS: Final = 0.25
"""How long a call begins to hand over what waits, so that a long outage never holds one turn up."""


class Recorder:
    """Writes to `log`, through `spool` while the log cannot be reached.

    Args:
        log: Where messages belong.
        spool: Where they wait; None: an append that fails raises.
        breaker: The log's.
    """

    def __init__(self, log: MessageLog, spool: Spool | None, *, breaker: Breaker) -> None:
        self._log = log
        self._spool = spool
        self._breaker = breaker
        self._replaying = ForkableLock()

    @property
    def is_behind(self) -> bool:
        """Whether messages wait that the log does not have."""
        return self._spool is not None and not self._spool.is_empty

    def append(self, scope: Scope, drafts: Sequence[Draft]) -> Plan[list[LogRecord]]:
        """The records that are new; none where the drafts wait in the spool.

        Raises:
            ValueError: For a draft that cannot be recorded.
            LogError: If neither the log nor a spool can take them; nothing is kept then.
        """
        if self._spool is None:
            return (yield from self._asked(self._log_append(scope, drafts)))
        # With ids, since an append that seemed to fail may have reached the log.
        drafts = named(drafts)
        if self._breaker.is_closed:
            try:
                records = yield from self._asked(self._in_order(self._spool, scope, drafts))
            except LogError:
                records = None
            if records is not None:
                return records
        yield from call(self._spool.put, scope, drafts)
        return []

    def replay(self) -> Plan[None]:
        """Hand the log what waits, if it can be reached. The boundary for a log that is down."""
        if self._spool is None or self._spool.is_empty or not self._breaker.is_closed:
            return
        with suppress(LogError):
            yield from self._asked(self._replay(self._spool))

    def hand_over(self) -> Plan[None]:
        """Hand the log all that waits.

        Raises:
            StorageError: If something still waits, since the log is down or there is much of it.
        """
        if self._spool is not None and not (yield from self._asked(self._replay(self._spool))):
            raise StorageError("messages wait for the log that may be meant: call again")

    def erase(self, scope: Scope) -> Plan[int]:
        """Remove what waits for `scope`; how many messages.

        Waits for a run under way, which may be handing over what is to be erased.
        """
        if self._spool is None:
            return 0
        while not self._replaying.acquire(blocking=False):
            yield from call(moment.sleep)
        try:
            return (yield from call(self._spool.erase, scope))
        finally:
            self._replaying.release()

    def _asked(self, plan: Plan[T]) -> Plan[T]:
        """What `plan` gives of the log, noting whether the log is well."""
        with self._breaker.asking() as asked:
            try:
                given = yield from plan
            except ReadOnlyLogError:
                raise  # it can be read
            except LogError as error:
                self._breaker.failed(error)
                raise
            self._breaker.worked(asked)
            return given

    def _log_append(self, scope: Scope, drafts: Sequence[Draft]) -> Plan[list[LogRecord]]:
        return (yield from call(self._log.append, scope, drafts))

    def _in_order(
        self, spool: Spool, scope: Scope, drafts: Sequence[Draft]
    ) -> Plan[list[LogRecord] | None]:
        """The records that are new; None where others still wait before them."""
        if not (yield from self._replay(spool)):
            return None
        return (yield from self._log_append(scope, drafts))

    def _replay(self, spool: Spool) -> Plan[bool]:
        """Hand over what waits, for `REPLAY_SECONDS`; whether nothing is left."""
        if spool.is_empty:
            return True
        if not self._replaying.acquire(blocking=False):
            return False
        try:
            until = time.monotonic() + REPLAY_SECONDS
            while True:
                waiting = yield from call(spool.first)
                if waiting is None:
                    return True
                yield from self._log_append(waiting.scope, waiting.drafts)
                yield from call(spool.remove, waiting.entries)
                if time.monotonic() >= until:
                    return False
        finally:
            self._replaying.release()
