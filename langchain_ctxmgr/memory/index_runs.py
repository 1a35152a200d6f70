"""One run at a time writes a tenant's part of an index.

Two runs at once would embed the same messages twice, and one that had read a message
before it was erased could store it again after another has followed the erasure. Within a
process a set of names keeps them apart; where other processes write the same index, so
does a claim in the log, which ends by itself when its holder dies.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.vectors import VectorStore

CLAIM: Final = timedelta(minutes=2)
"""How long a worker that died keeps others from a tenant's part of the index."""
PATIENCE: Final = timedelta(seconds=30)
"""How long an erasure waits for the run under way."""
_PAUSE_SECONDS: Final = 0.02


class IndexRuns:
    """Who writes which tenant's part of the index `vectors`."""

    def __init__(self, log: MessageLog, vectors: VectorStore) -> None:
        self._log = log
        self._vectors = vectors
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._holder = uuid.uuid4().hex
        self._tenants: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def entered(self, tenant_id: str) -> Generator[bool]:
        """Whether this run is the only one of the process for the tenant."""
        if os.getpid() != self._pid:
            self._start_process()
        with self._lock:
            is_first = tenant_id not in self._tenants
            if is_first:
                self._tenants.add(tenant_id)
        try:
            yield is_first
        finally:
            if is_first:
                self._tenants.discard(tenant_id)

    def claim(self, tenant_id: str) -> Plan[bool]:
        """Whether this process may write for the tenant; asked again, it may for longer."""
        if not self._vectors.is_shared:
            return True
        task = f"index {self._vectors.index_id}"
        return (yield from call(self._log.claim, tenant_id, task, self._holder, CLAIM))

    def release(self, tenant_id: str) -> Plan[None]:
        """Let other processes write for the tenant."""
        if self._vectors.is_shared:
            task = f"index {self._vectors.index_id}"
            yield from call(self._log.release, tenant_id, task, self._holder)

    def pause(self, until: float) -> Plan[None]:
        """Wait a moment for another run.

        Raises:
            StorageError: If the monotonic clock is past `until`.
        """
        if time.monotonic() > until:
            raise StorageError("the vectors are being written by another run; call again")
        yield from call(_pause.sleep)


class _Pause:
    """Waiting, blocking and on an event loop."""

    def sleep(self) -> None:
        time.sleep(_PAUSE_SECONDS)

    async def asleep(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)


_pause: Final = _Pause()
