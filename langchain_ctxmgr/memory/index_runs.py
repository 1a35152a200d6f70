"""One run at a time writes a tenant's part of an index.

Two runs at once would embed the same messages twice, and one that had read a message
before it was erased could store it again after another has followed the erasure. Within a
process a set of names keeps them apart; where other processes write the same index, so
does a claim in the log, which ends by itself when its holder dies.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.claims import given_back, moment
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.vectors import VectorStore

T = TypeVar("T")

CLAIM: Final = timedelta(minutes=2)
"""How long a worker that died keeps others from a tenant's part of the index."""
PATIENCE: Final = timedelta(seconds=30)
"""How long an erasure or a rebuild waits for the run under way."""


class ClaimLostError(StorageError):
    """Another process took over a tenant's part of the index: this one was too slow."""


class IndexRuns:
    """Who writes which tenant's part of the index `vectors`."""

    def __init__(self, log: MessageLog, vectors: VectorStore) -> None:
        self._log = log
        self._vectors = vectors
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._holder = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._claimed_at: dict[str, float] = {}
        self._tasks: dict[str, str] = {}
        """What is claimed of a tenant: an index that is down cannot say its name again."""

    @contextmanager
    def entered(self, tenant_id: str) -> Generator[bool]:
        """Whether this run is the only one of the process for the tenant."""
        if os.getpid() != self._pid:
            self._start_process()
        with self._lock:
            is_only = tenant_id not in self._running
            if is_only:
                self._running.add(tenant_id)
        try:
            yield is_only
        finally:
            if is_only:
                self._running.discard(tenant_id)

    def alone(self, tenant_id: str, work: Callable[[], Plan[T]]) -> Plan[T | None]:
        """What `work` gives, holding the tenant's claim; None where it cannot be had.

        The claim is given back whatever becomes of `work`.
        """
        with self.entered(tenant_id) as is_only:
            if not is_only or not (yield from self._claim(tenant_id)):
                return None
            release = partial(self._release, tenant_id)
            release_now = partial(self._release_now, tenant_id)
            return (yield from given_back(work(), release, release_now))

    def prolong(self, tenant_id: str) -> Plan[None]:
        """Hold the claim for longer, if much of it is over.

        Raises:
            ClaimLostError: If another process has it.
        """
        claimed_at = self._claimed_at.get(tenant_id)
        if claimed_at is None or time.monotonic() - claimed_at < CLAIM.total_seconds() / 4:
            return
        if not (yield from self._claim(tenant_id)):
            raise ClaimLostError(f"another process indexes {tenant_id!r} by now")

    def _claim(self, tenant_id: str) -> Plan[bool]:
        if not self._vectors.is_shared:
            return True
        task = f"index {(yield from index_of(self._vectors))}"
        asked_at = time.monotonic()
        is_ours = yield from call(self._log.claim, tenant_id, task, self._holder, CLAIM)
        if is_ours:
            self._claimed_at[tenant_id], self._tasks[tenant_id] = asked_at, task
        return is_ours

    def _release(self, tenant_id: str) -> Plan[None]:
        if self._claimed_at.pop(tenant_id, None) is not None:
            yield from call(self._log.release, tenant_id, self._tasks[tenant_id], self._holder)

    def _release_now(self, tenant_id: str) -> None:
        if self._claimed_at.pop(tenant_id, None) is not None:
            with suppress(StorageError):  # it ends by itself
                self._log.release(tenant_id, self._tasks[tenant_id], self._holder)

    def pause(self, until: float) -> Plan[None]:
        """Wait a moment for another run.

        Raises:
            StorageError: If the monotonic clock is past `until`.
        """
        if time.monotonic() > until:
            raise StorageError("the vectors are being written by another run; call again")
        yield from call(moment.sleep)


def index_of(vectors: VectorStore) -> Plan[str]:
    """The `index_id` of `vectors`; while a server is asked for it, no worker thread waits."""
    if vectors.is_shared:
        yield from call(vectors.setup)
    return vectors.index_id
