"""A part that fails is left alone for a while, and its failure is told once.

Recall and indexing go on without a part that is down. Asking it again on every turn
would cost its timeout on every turn, and tell of the same failure each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from langchain_ctxmgr.events import Degraded, Listener, emit

REST_SECONDS = 30.0
"""How long a part that failed is left alone."""


class Breaker:
    """Keeps count of one part's failures and says whether to ask it.

    Args:
        part: Its name in `Degraded` events.
        fallback: What is used in its place.
        listeners: Told once for each run of failures.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        part: str,
        fallback: str,
        listeners: tuple[Listener, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part = part
        self._fallback = fallback
        self._listeners = listeners
        self._clock = clock
        self._asked_again_at: float | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the part may be asked."""
        return self._asked_again_at is None or self._clock() >= self._asked_again_at

    def worked(self) -> None:
        """The part answered: the next failure is a new one."""
        self._asked_again_at = None

    def refused(self, error: Exception) -> None:
        """The part works and would not do this: told of each time, and it is asked again."""
        self._tell(error)

    def failed(self, error: Exception) -> None:
        """The part failed: leave it alone, and tell of it if it was well before."""
        is_new = self._asked_again_at is None
        self._asked_again_at = self._clock() + REST_SECONDS
        if is_new:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        event = Degraded(part=self._part, reason=reason, fallback=self._fallback)
        emit(self._listeners, event)


class Breakers(NamedTuple):
    """Those of the parts that recall and indexing share: what fails for one rests for both."""

    vectors: Breaker
    embeddings: Breaker

    @classmethod
    def of(cls, listeners: tuple[Listener, ...] = ()) -> Breakers:
        """A pair that tells `listeners`."""
        return cls(
            Breaker("vectors", "keyword search in the log", listeners),
            Breaker("embeddings", "keyword recall", listeners),
        )
