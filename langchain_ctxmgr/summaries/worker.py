"""A thread beside the turns that makes the summaries which are due.

A turn only says whose log has grown. A tenant that waits already is not queued again, so the
queue is as long as there are tenants at work, and what is made is made from the newest state.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from langchain_ctxmgr._plans import Plan, run
from langchain_ctxmgr.errors import StorageError

_RETRY_SECONDS: Final = 5.0
"""How long what could not be finished waits, at least: the breaker knows when to ask again."""
_CLOSING_SECONDS: Final = 5.0
"""How long closing waits for the step under way."""


class Follower(Protocol):
    """What makes a tenant's summaries."""

    def follow(self, tenant_id: str, *, is_ending: Callable[[], bool]) -> Plan[bool]:
        """Make what is due; whether nothing is left."""
        ...


class SummaryWorker:
    """Has `follower` follow the tenants that are named, one after the other, off the hot path.

    Args:
        follower: What makes their summaries.
        tenants: Names all there are: what an earlier process left undone is found by it.
    """

    def __init__(self, follower: Follower, tenants: Callable[[], list[str]]) -> None:
        self._follower = follower
        self._tenants = tenants
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: dict[str, None] = {}
        self._later: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_busy = False

    def wake(self, tenant_id: str) -> None:
        """Look at a tenant's threads soon; returns at once."""
        if os.getpid() != self._pid:
            self._start_process()  # a forked child has no thread
        with self._changed:
            if self._is_closed:
                return
            self._waiting[tenant_id] = None
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="ctxmgr-summaries", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is waiting; whether that is so. What failed waits for later."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_closed or not (self._waiting or self._is_busy), timeout
            )

    def close(self) -> None:
        """End after the step under way: what is left is found by the next process."""
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSING_SECONDS)

    def _work(self) -> None:
        try:
            for tenant_id in self._tenants():
                self._later[tenant_id] = None
        except StorageError:
            pass  # those that speak are followed all the same
        with self._changed:
            self._waiting |= self._later
            self._later = {}
        while (tenant_id := self._next()) is not None:
            try:
                is_done = run(self._follower.follow(tenant_id, is_ending=lambda: self._is_closed))
            except StorageError:
                is_done = False
            with self._changed:
                self._is_busy = False
                if not is_done:
                    self._later[tenant_id] = None
                self._changed.notify_all()

    def _next(self) -> str | None:
        """The next tenant to look at; None at the end."""
        with self._changed:
            while not self._is_closed:
                if self._waiting:
                    self._is_busy = True
                    tenant_id = next(iter(self._waiting))
                    del self._waiting[tenant_id]
                    self._later.pop(tenant_id, None)
                    return tenant_id
                if not self._changed.wait(_RETRY_SECONDS if self._later else None):
                    self._waiting, self._later = self._later, {}
            return None
