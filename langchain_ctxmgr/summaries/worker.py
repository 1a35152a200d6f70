"""A thread beside the turns that makes the summaries which are due.

A turn only says whose log has grown. A tenant that waits already is not queued again, so the
queue is as long as there are tenants at work, and what is made is made from the newest state.
While the model rests after a failure the queue stands still, and whose summaries failed comes
after all the others: a tenant that fails again and again takes no other's turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from langchain_ctxmgr._plans import Plan, run

_RETRY_SECONDS: Final = 5.0
"""How long what could not be finished waits, at least: the breaker knows when to ask again."""
_CLOSING_SECONDS: Final = 5.0
"""How long closing waits for the step under way."""


class Follower(Protocol):
    """What makes a tenant's summaries."""

    def follow(self, tenant_id: str, *, is_ending: Callable[[], bool]) -> Plan[bool]:
        """Make what is due; whether nothing is left."""
        ...

    @property
    def is_resting(self) -> bool:
        """Whether nothing is made for a while."""
        ...

    def failed(self, error: Exception) -> None:
        """Rest, and tell of `error`."""
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
        self._is_listed = False
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
        if os.getpid() != self._pid:
            self._start_process()  # a forked child has no thread, and nothing is due there
        with self._changed:
            return self._changed.wait_for(
                lambda: self._is_closed or not (self._is_busy or self._has_next()), timeout
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
        """Follow who is named; the boundary for a log that cannot be read, which is told of."""
        while (tenant_id := self._next()) is not None:
            try:
                if not self._is_listed:
                    self._list()
                is_done = run(self._follower.follow(tenant_id, is_ending=lambda: self._is_closed))
            except Exception as error:  # noqa: BLE001 - the boundary this docstring names
                self._follower.failed(error)
                is_done = False
            with self._changed:
                self._is_busy = False
                if not is_done:
                    self._later[tenant_id] = None
                self._changed.notify_all()

    def _list(self) -> None:
        """Have every tenant looked at that there is."""
        tenants = dict.fromkeys(self._tenants())
        with self._changed:
            self._is_listed = True
            self._waiting |= tenants

    def _has_next(self) -> bool:
        return bool(self._waiting) and not self._follower.is_resting

    def _next(self) -> str | None:
        """The next tenant to look at; None at the end."""
        with self._changed:
            while not self._is_closed:
                if self._has_next():
                    self._is_busy = True
                    tenant_id = next(iter(self._waiting))
                    del self._waiting[tenant_id]
                    self._later.pop(tenant_id, None)
                    return tenant_id
                is_left = bool(self._waiting or self._later)
                if not self._changed.wait(_RETRY_SECONDS if is_left else None):
                    self._waiting |= self._later
                    self._later = {}
                    self._changed.notify_all()
            return None
