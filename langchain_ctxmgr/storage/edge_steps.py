"""Work on a shard in slices, written once for blocking callers and for event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import TypeVar, cast

T = TypeVar("T")
Steps = Generator[float | Callable[[], object], None, T]
"""Each yield is a place to let others run, for at least so many seconds, or while a function
runs that waits for the disk."""


def finish(steps: Steps[T]) -> T:
    """The result of `steps`, all in place."""
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                return cast("T", stop.value)
            if callable(step):
                step()
            elif step:
                time.sleep(step)
    finally:
        steps.close()


async def afinish(steps: Steps[T]) -> T:
    """The result of `steps` on an event loop; functions run in threads, one after the other."""
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as stop:
                return cast("T", stop.value)
            if callable(step):
                await _in_thread(step)
            else:
                await asyncio.sleep(step)
    finally:
        steps.close()


async def _in_thread(work: Callable[[], object]) -> None:
    """Run `work` in a thread; when cancelled, end only after it has."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise
