"""A lock that a forked child finds free.

A fork copies every lock as it is at that moment, and only the thread that forked lives on
in the child: a lock that another thread held would never be given back there.
"""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ForkableLock:
    """A `threading.Lock` that is a new one in each forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def renew(self) -> None:
        """Be free, whoever holds it; for a forked child, where the holder is gone."""
        self._lock = threading.Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; without `blocking`, only if it is free. Whether it was taken."""
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()


_locks: weakref.WeakSet[ForkableLock] = weakref.WeakSet()


def _renew_in_child() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
