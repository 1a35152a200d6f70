"""A part that fails is left alone for a while, and its failure is told once.

Turns go on without a part that is down. Asking it again on every turn would cost its timeout
on every turn, and tell of the same failure each time. When it has rested, one asks it and the
others go on without until that one knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

from langchain_ctxmgr.events import Degraded, Listener, emit

REST_SECONDS = 30.0
"""How long a part that failed is left alone."""
LOG_REST_SECONDS = 5.0
"""The same for the log: without it a turn has no history."""


class Breaker:
    """Keeps count of one part's failures and says whether to ask it.

    Args:
        part: Its name in `Degraded` events.
        fallback: What is used in its place.
        listeners: Told once for each run of failures.
        clock: Seconds that never go back.
        rest_seconds: How long the part is left alone; None: `REST_SECONDS`.
        may_quote: Whether it is handed what was said, so that its errors may quote it.
    """

    def __init__(
        self,
        part: str,
        fallback: str,
        listeners: tuple[Listener, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        rest_seconds: float | None = None,
        *,
        may_quote: bool = False,
    ) -> None:
        self._part = part
        self._may_quote = may_quote
        self._fallback = fallback
        self._listeners = listeners
        self._clock = clock
        self._rest_seconds = rest_seconds
        self._asked_again_at: float | None = None
        self._asker: object | None = None
        self._failures = 0

    @property
    def _rest(self) -> float:
        return REST_SECONDS if self._rest_seconds is None else self._rest_seconds

    @property
    def is_closed(self) -> bool:
        """Whether the part may be asked."""
        return self._asked_again_at is None or self._clock() >= self._asked_again_at

    @contextmanager
    def asking(self) -> Generator[int]:
        """Ask the part meanwhile; where it has failed, the others go on without it as before.

        They do until `worked` or `failed` is told, or one more rest is over. What is given is
        for `worked`.
        """
        rested_at = self._asked_again_at
        if rested_at is None:
            yield self._failures
            return
        own = self._asker = object()
        self._asked_again_at = self._clock() + self._rest
        try:
            yield self._failures
        finally:
            if self._asker is own:  # nothing was told: the next may ask
                self._asked_again_at = rested_at

    def worked(self, asked: int | None = None) -> None:
        """The part answered: the next failure is a new one.

        With what `asking` gave, only if nobody told of a failure since: what was answered
        before it, or by another half of the part, says nothing of it.
        """
        if asked is not None and asked != self._failures:
            return
        self._asked_again_at = self._asker = None

    def refused(self, error: Exception) -> None:
        """The part works and would not do this: told of each time, and it is asked again."""
        self._tell(error)

    def failed(self, error: Exception) -> None:
        """The part failed: leave it alone, and tell of it if it was well before."""
        is_new = self._asked_again_at is None
        self._failures += 1
        self._asker = None
        self._asked_again_at = self._clock() + self._rest
        if is_new:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        event = Degraded(
            part=self._part, reason=reason, fallback=self._fallback, may_quote=self._may_quote
        )
        emit(self._listeners, event)


class Breakers(NamedTuple):
    """Those of the parts that a turn's steps share: what fails for one rests for all."""

    log: Breaker
    vectors: Breaker
    embeddings: Breaker

    @classmethod
    def of(cls, listeners: tuple[Listener, ...] = ()) -> Breakers:
        """Ones that tell `listeners`."""
        return cls(
            Breaker(
                "log",
                "what the caller holds, and the spool if there is one",
                listeners,
                rest_seconds=LOG_REST_SECONDS,
            ),
            Breaker("vectors", "keyword search in the log", listeners),
            Breaker("embeddings", "keyword recall", listeners, may_quote=True),
        )
