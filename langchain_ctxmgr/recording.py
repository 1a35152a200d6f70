"""Appending to the log, or to a spool on this machine while the log is down.

What waits in the spool goes to the log first, in the order it came in, so a thread is
recorded in the order it was said. Without a spool an append that fails is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.records import Draft, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.spool import Spool


class Recorder:
    """Writes to `log`, through `spool` while the log cannot be reached.

    Args:
        log: Where messages belong.
        spool: Where they wait; None: an append that fails raises.
        listeners: Told once when messages begin to wait.
    """

    def __init__(
        self, log: MessageLog, spool: Spool | None, *, listeners: tuple[Listener, ...] = ()
    ) -> None:
        self._log = log
        self._spool = spool
        self._breaker = Breaker("log", "a spool on this machine", listeners)

    def append(self, scope: Scope, drafts: Sequence[Draft]) -> Plan[list[LogRecord]]:
        """The records that are new; none where the drafts wait in the spool.

        Raises:
            ValueError: For a draft that cannot be recorded.
            LogError: If neither the log nor a spool can take them; nothing is kept then.
        """
        spool = self._spool
        if spool is None:
            return (yield from call(self._log.append, scope, drafts))
        if self._breaker.is_closed:
            try:
                yield from self._replay(spool)
                records = yield from call(self._log.append, scope, drafts)
            except LogError as error:
                self._breaker.failed(error)
            else:
                self._breaker.worked()
                return records
        yield from call(spool.put, scope, drafts)
        return []

    def replay(self) -> Plan[None]:
        """Hand the log what waits, if it can be reached. The boundary for a log that is down."""
        if self._spool is None or not self._breaker.is_closed:
            return
        try:
            yield from self._replay(self._spool)
        except LogError as error:
            self._breaker.failed(error)
        else:
            self._breaker.worked()

    def erase(self, scope: Scope) -> Plan[int]:
        """Remove what waits for `scope`; how many messages."""
        if self._spool is None:
            return 0
        return (yield from call(self._spool.erase, scope))

    def _replay(self, spool: Spool) -> Plan[None]:
        while not spool.is_empty:
            entry = yield from call(spool.first)
            if entry is None:
                return
            yield from call(self._log.append, entry.scope, entry.drafts)
            yield from call(spool.remove, entry.id)
