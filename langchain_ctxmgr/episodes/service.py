"""A manager's episodes: made beside the turns, or when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.episodes.maker import EPISODE_THRESHOLD, EpisodeMaker
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.vectors import VectorStore
from langchain_ctxmgr.summaries.worker import SummaryWorker


class Episodes:
    """Makes episodes off the hot path.

    Args:
        log: What is read and written.
        vectors: Where the turns' embeddings are, if any.
        indexer: Takes in what is recorded.
        counter: Prices it.
        threshold: Least importance of an episode, 0 to 1; None: none is made unasked.
        listeners: Told of failures.
        now: The present instant, aware.
    """

    def __init__(
        self,
        log: MessageLog,
        vectors: VectorStore | None,
        indexer: Indexer,
        counter: TokenCounter,
        *,
        threshold: float | None,
        listeners: tuple[Listener, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._log = log
        self._maker = EpisodeMaker(
            log=log,
            vectors=vectors,
            indexer=indexer,
            counter=counter,
            breaker=Breaker("episodes", "making them later", listeners),
            threshold=EPISODE_THRESHOLD if threshold is None else threshold,
            now=now,
        )
        self._worker = None if threshold is None else SummaryWorker(self._maker, log.tenants)

    def recorded(self, tenant_id: str) -> None:
        """Have what is due of a tenant made soon; returns at once."""
        if self._worker is not None:
            self._worker.wake(tenant_id)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until what was due is made or failed, up to `timeout` seconds; whether it is."""
        return self._worker is None or self._worker.join(timeout)

    def make(self, scope: Scope) -> Plan[int]:
        """Make what is due of a thread, of a user's threads, or of a tenant's."""
        new = 0
        for each in (yield from call(self._log.threads, scope)):
            thread = Scope(tenant_id=scope.tenant_id, thread_id=each.thread_id)
            new += yield from self._maker.make(thread)
        return new

    def close(self) -> None:
        """End the work beside the turns; what is left is found by the next process."""
        if self._worker is not None:
            self._worker.close()


class HasEpisodes(ABC):
    """A manager's methods for episodes."""

    _episodes: Episodes

    @abstractmethod
    def _scope(self, scope: object) -> Scope: ...

    def make_episodes(self, *, scope: Scope) -> int:
        """Record the episodes that are over and not recorded yet; how many are new.

        An episode is a stretch of a thread on one subject, told in its own sentences: what was
        asked, done, and how it came out. It is over when nothing was said for 4 hours, or much
        since. Where `episodes` is set this is done beside the turns, by itself; again adds
        nothing. `recall(…, kinds=("episodic",))` finds them, `forget` of their turns erases them.

        Args:
            scope: A thread, a user for all their threads, or a tenant.

        Raises:
            ValueError: If the scope is not what it must be.
            LogError: If the log cannot be written.
        """
        return run(self._episodes.make(self._scope(scope)))

    async def amake_episodes(self, *, scope: Scope) -> int:
        """`make_episodes` on an event loop."""
        return await arun(self._episodes.make(self._scope(scope)))
