"""Holding what another run waits for, and waiting for what another one holds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from langchain_ctxmgr._plans import Plan

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.02


def given_back(
    work: Plan[T], release: Callable[[], Plan[None]], release_now: Callable[[], None]
) -> Plan[T]:
    """What `work` gives; what it holds is given back whatever becomes of it.

    By `release`, or where its task is cancelled by a thread that calls `release_now`, since a
    plan that is closed can wait for nothing.
    """
    try:
        done = yield from work
    except GeneratorExit:
        threading.Thread(target=release_now, daemon=True).start()
        raise
    except BaseException:
        yield from release()
        raise
    yield from release()
    return done


class _Moment:
    """Waiting for another run, blocking and on an event loop."""

    def sleep(self) -> None:
        time.sleep(_PAUSE_SECONDS)

    async def asleep(self) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)


moment: Final = _Moment()
