"""`ContextManager`: record what is said, prepare what a model should see.

Composition only. The log is the truth; the index and every choice made from it can be
rebuilt. Each method that waits is a plan, so it has an async twin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.budget.allocation import Analysis, ContextBudget, analyze
from langchain_ctxmgr.budget.calibration import Calibration, PromptSizes
from langchain_ctxmgr.budget.prompt_cache import PromptCache
from langchain_ctxmgr.budget.tokens import CACHE_SIZE, counter_for
from langchain_ctxmgr.closable import Closable
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.compression.extractive import ExtractiveSummarizer
from langchain_ctxmgr.condensing import Condenser
from langchain_ctxmgr.episodes.service import Episodes, HasEpisodes
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Listener, Recorded, emit
from langchain_ctxmgr.exporting import Exports
from langchain_ctxmgr.forgetting import Forgets
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.intake import (
    Messages,
    Moments,
    drafts_of,
    limit_of,
    messages_of,
    now_of,
    scope_of,
    thread_of,
    tools_of,
    whole_of,
)
from langchain_ctxmgr.marking import Marker
from langchain_ctxmgr.memory.breaker import Breakers
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.embeddings import Embedder, embeddings_from
from langchain_ctxmgr.memory.facts.service import Facts
from langchain_ctxmgr.memory.facts.standing import StandingFacts
from langchain_ctxmgr.memory.indexer import Indexer, Progress
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.memory.relevance import SCORE_THRESHOLD
from langchain_ctxmgr.parts import parts_from
from langchain_ctxmgr.preparing import INDEX_STEP, Preparer
from langchain_ctxmgr.prompt.layout import Order
from langchain_ctxmgr.prompt.window import Selector
from langchain_ctxmgr.reading import Reads
from langchain_ctxmgr.recalling import Recaller, Recalls
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import (
    LogRecord,
    PreparedContext,
    Scope,
    Stats,
)
from langchain_ctxmgr.remembering import Memorizer
from langchain_ctxmgr.retention import Eraser
from langchain_ctxmgr.settings import Settings, require
from langchain_ctxmgr.storage.cache import Cache
from langchain_ctxmgr.storage.message_log import MessageLog, Verification
from langchain_ctxmgr.storage.spool import Spool
from langchain_ctxmgr.storage.vectors import VectorStore
from langchain_ctxmgr.summaries.service import Summaries
from langchain_ctxmgr.summarizing import Summarizes
from langchain_ctxmgr.view.beside import Beside
from langchain_ctxmgr.view.builder import ViewBuilder
from langchain_ctxmgr.view.quotes import Summarizer
from langchain_ctxmgr.view.request import ViewParts

if TYPE_CHECKING:
    from langchain_ctxmgr.chat_history import ContextChatMessageHistory
    from langchain_ctxmgr.folder import Folder


class ContextManager(Closable, Reads, Recalls, Exports, Summarizes, HasEpisodes, Forgets):
    """Records conversations and prepares contexts from them.

    `open` is the usual way in: a folder with a SQLite log and a Qdrant Edge shard. Over
    servers the parts are named by URL; `close` closes those, and leaves open what was given
    as an object. One manager may be shared by threads and tasks.

    Args:
        log: The message log: a `MessageLog`, or the URL of a PostgreSQL database.
        vectors: The index over it: a `VectorStore`, the URL of a Qdrant server, or None for
            the log's own keyword search.
        model: A model name or a `BaseChatModel`: decides tokenizer, window and price.
        embeddings: A LangChain `Embeddings`, `sentence-transformers:<name or path>`,
            `openai:<name>`, or None for keyword recall only. One without a model's name goes
            by its class and plain settings; `Embedder(model, name)` names any.
        summarizer: Makes the summary of what lies before the window. A chat model, or a
            `ChatSummarizer` with settings of its own, does so beside the turns; until its
            summary is made, and with None, sentences are extracted. A `Summarizer` is asked
            within the turn.
        selection: Chooses what of the history is shown word for word (`prompt.window`:
            `LastTurns`, `SlidingWindow`, …) and reads all of it; None: the full history
            while it fits, then a window over the newest part that moves rarely.
        order: In which order recalled messages are shown; as they were said by default.
        budget: By default the model's window.
        tenant_id: Binds one tenant; without it every scope must name one.
        score_threshold: Nothing is recalled where the chance that what was said bears on the
            question is below, 0 to 1, as calibrated (`memory.relevance`); 0: always recall.
        episodes: Least importance, 0 to 1, of the episodes that are recorded beside the turns:
            .6 (`EPISODE_THRESHOLD`) leaves out small talk, 0 nothing; None: none is made, but by
            `make_episodes`, from .6 on.
        token_cache_size: Messages whose token count is remembered.
        cache: Where what is costly to make is kept for a while: a `Cache`, the URL of a
            Redis, or None for one inside this process.
        spool: A file on this machine where messages wait while the log cannot be written:
            `record` then gives no records, and they reach the log in order and once. None:
            `record` raises.
        listeners: Called with what happens (`events`).
        clock: The present instant, aware.
    """

    def __init__(
        self,
        *,
        log: MessageLog | str,
        vectors: VectorStore | str | None = None,
        model: str | BaseChatModel | None = None,
        embeddings: Embeddings | str | Embedder | None = None,
        summarizer: Summarizer | ChatSummarizer | BaseChatModel | None = None,
        selection: Selector | None = None,
        order: Order = Order.CACHE_STABLE,
        budget: ContextBudget | None = None,
        tenant_id: str | None = None,
        score_threshold: float = SCORE_THRESHOLD,
        episodes: float | None = None,
        token_cache_size: int = CACHE_SIZE,
        cache: Cache | str | None = None,
        spool: str | Path | None = None,
        listeners: Sequence[Listener] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        require(log=log, vectors=vectors, model=model, summarizer=summarizer, selection=selection)
        require(order=order, budget=budget, token_cache_size=token_cache_size, spool=spool)
        require(score_threshold=score_threshold, episodes=episodes)
        require(listeners=listeners, clock=clock, cache=cache, tenant_id=tenant_id)
        self._tenant_id = tenant_id
        self._listeners = tuple(listeners)
        self._now = partial(now_of, clock)
        self._budget = budget or (model and ContextBudget.for_model(model)) or None
        self._counter = counter_for(model, cache_size=token_cache_size)
        self._sizes = PromptSizes(Calibration(), model)
        self._prompt_cache = PromptCache(model)
        embedder = embeddings_from(embeddings)
        self._parts = parts_from(log, vectors, cache, embedder)
        self._log = log = self._parts.log
        vectors = self._parts.vectors
        self._cached = Cached(self._parts.cache, listeners=self._listeners)
        breakers = Breakers.of(self._listeners)
        self._indexer = Indexer(
            log, vectors, embedder, breakers=breakers, listeners=self._listeners
        )
        self._summaries = Summaries.by(
            summarizer,
            log,
            self._cached,
            self._counter,
            window_tokens=None if self._budget is None else self._budget.max_input_tokens,
            listeners=self._listeners,
            now=self._now,
        )
        self._recall = Recall(
            log,
            vectors,
            embedder,
            self._counter,
            cached=self._cached,
            order=Order(order),
            breakers=breakers,
        )
        facts = Facts(log)
        self._standing = StandingFacts(log, facts, listeners=self._listeners)
        self._views = ViewBuilder(
            ViewParts(
                log=log,
                recall=self._recall,
                summarizer=_within_turns(summarizer),
                summaries=None if self._summaries is None else self._summaries.store,
                counter=self._counter,
                selector=selection,
                score_threshold=score_threshold,
                beside=Beside(log, self._standing, self._counter, listeners=self._listeners),
                log_breaker=breakers.log,
                listeners=self._listeners,
            )
        )
        waiting = None if spool is None else Spool(spool)
        self._recorder = Recorder(log, waiting, breaker=breakers.log)
        self._preparer = Preparer(
            log=log,
            recorder=self._recorder,
            indexer=self._indexer,
            views=self._views,
            counter=self._counter,
            sizes=self._sizes,
            prompt_cache=self._prompt_cache,
            budget=self._budget,
            model=model,
            listeners=self._listeners,
            log_breaker=breakers.log,
            now=self._now,
        )
        self._condenser = Condenser(
            log=log,
            recall=self._recall,
            summaries=self._summaries,
            counter=self._counter,
            budget=self._budget,
            listeners=self._listeners,
            now=self._now,
        )
        self._memorizer = Memorizer(
            log=log,
            recorder=self._recorder,
            indexer=self._indexer,
            facts=facts,
            standing=self._standing,
            counter=self._counter,
        )
        self._recaller = Recaller(
            log=log,
            indexer=self._indexer,
            recall=self._recall,
            memorizer=self._memorizer,
            score_threshold=score_threshold,
        )
        self._marker = Marker(log=log, recorder=self._recorder)
        self._episodes = Episodes(
            log,
            vectors,
            self._indexer,
            self._counter,
            threshold=episodes,
            listeners=self._listeners,
            now=self._now,
        )
        self._eraser = Eraser(
            log=log,
            recorder=self._recorder,
            indexer=self._indexer,
            views=self._views,
            cached=self._cached,
        )
        self._folder: Folder | None = None
        self._is_closed = False
        self._closing = ForkableLock()

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        *,
        embeddings: Embeddings | str | Embedder | None = None,
        **settings: Unpack[Settings],
    ) -> Self:
        """A manager over the folder `path`, made when missing; None: a temporary one.

        Nothing is read or loaded before first use. Several processes may open one folder:
        one owns the vectors, the others record and recall by keyword.

        Raises:
            ValueError: If `path` is not a folder's name, or a setting is out of range.
            UnknownModelError: If `model` has no known window and no budget is given.
        """
        from langchain_ctxmgr.folder import open_folder

        require(**settings)
        embedder = embeddings_from(embeddings)
        folder = open_folder(path, embedder)
        try:
            manager = cls(log=folder.log, vectors=folder.vectors, embeddings=embedder, **settings)
        except BaseException:
            folder.close()
            raise
        manager._folder = folder
        return manager

    def record(self, messages: Messages, *, scope: Scope, at: Moments = None) -> list[LogRecord]:
        """Add messages to a thread; the records that are new.

        Recording again what is there already adds nothing; the same message id with other
        content adds a revision. All are recorded or none.

        Args:
            messages: One message or several, in any form LangChain takes.
            scope: The thread, and the user who speaks in it when known.
            at: When they were said, aware: one instant, or one for each; by default now.

        Raises:
            ValueError: If a message, an instant or the scope is not one.
            StorageError: If the log cannot be written; nothing is recorded then.
        """
        return run(self._record(messages, scope, at))

    async def arecord(
        self, messages: Messages, *, scope: Scope, at: Moments = None
    ) -> list[LogRecord]:
        """`record` on an event loop."""
        return await arun(self._record(messages, scope, at))

    def _record(self, messages: Messages, scope: Scope, at: Moments) -> Plan[list[LogRecord]]:
        thread = self._thread(scope)
        drafts = drafts_of(messages, at, now=self._now(), counter=self._counter)
        if not drafts:
            return []
        records = yield from self._recorder.append(thread, drafts)
        said = [record.message for record in records]
        thread_key = (thread.tenant_id, thread.thread_id)
        self._sizes.answered(thread_key, said)
        self._prompt_cache.answered(thread_key, said)
        yield from self._indexer.catch_up(
            str(thread.tenant_id), limit=max(INDEX_STEP, len(records))
        )
        if thread.user_id is not None and records:
            yield from self._standing.catch_up(str(thread.tenant_id), limit=len(records))
        event = Recorded(
            tenant_id=str(thread.tenant_id),
            thread_id=str(thread.thread_id),
            appended=len(records),
        )
        emit(self._listeners, event)
        if self._summaries is not None:
            self._summaries.recorded(str(thread.tenant_id))
        self._episodes.recorded(str(thread.tenant_id))
        return records

    def prepare(
        self,
        *,
        scope: Scope,
        query: str | BaseMessage | None = None,
        max_tokens: int | None = None,
        tools: Sequence[object] | None = None,
        system: str | BaseMessage | None = None,
        head: str | None = None,
        held: Sequence[BaseMessage] = (),
    ) -> PreparedContext:
        """The messages a model should see for a question, within a token budget.

        While the log cannot be read, the view is made from what is handed in. Nothing is
        recorded. The question may be recorded before or after; on each further step of a tool
        loop hand in the same question (by id) once the step is recorded.

        Args:
            scope: The thread.
            query: The question; None: the newest recorded user message.
            max_tokens: Most that is sent, tool schemas included; by default the budget's, and
                never above its window.
            tools: What the model may call, in any form LangChain binds.
            system: System text; by default the newest recorded system message.
            head: Id of the message the view ends at, for a fork; by default the newest.
            held: The thread's messages as the caller holds them, question and tool traffic
                included; read only while the log cannot be, or lacks `head`.

        Raises:
            ContextOverflowError: If system text, tools and question alone do not fit.
            ValueError: If an argument is not what it must be.
        """
        return run(
            self._preparer.prepare(
                scope=self._thread(scope),
                query=query,
                max_tokens=max_tokens,
                tools=tools,
                system=system,
                head=head,
                held=held,
            )
        )

    async def aprepare(
        self,
        *,
        scope: Scope,
        query: str | BaseMessage | None = None,
        max_tokens: int | None = None,
        tools: Sequence[object] | None = None,
        system: str | BaseMessage | None = None,
        head: str | None = None,
        held: Sequence[BaseMessage] = (),
    ) -> PreparedContext:
        """`prepare` on an event loop."""
        return await arun(
            self._preparer.prepare(
                scope=self._thread(scope),
                query=query,
                max_tokens=max_tokens,
                tools=tools,
                system=system,
                head=head,
                held=held,
            )
        )

    def chat_history(self, session_id: str) -> ContextChatMessageHistory:
        """The thread `session_id` as `RunnableWithMessageHistory` takes it, for one run.

        For a manager that is bound to a tenant; elsewhere make a `ContextChatMessageHistory`
        with a scope that names one.

        Raises:
            ValueError: If `session_id` is no id.
        """
        from langchain_ctxmgr.chat_history import ContextChatMessageHistory

        return ContextChatMessageHistory(self, self._thread(Scope(thread_id=session_id)))

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Who is told what happens; hosts tell them too."""
        return self._listeners

    def analyze(
        self,
        messages: Messages,
        *,
        max_tokens: int | None = None,
        tools: Sequence[object] | None = None,
    ) -> Analysis:
        """How full `messages` would make the window, and what to do about it; changes nothing."""
        budget = self._budget
        return analyze(
            messages_of(messages),
            counter=self._counter,
            limit_tokens=limit_of(max_tokens, self._budget),
            tools=tools_of(tools),
            thresholds=None if budget is None else budget.thresholds,
        )

    def verify(self, *, scope: Scope | None = None) -> Verification:
        """Re-derive every hash of the log, or of a tenant or thread, and say what is wrong.

        Raises:
            ValueError: If the scope names a user: their records are chained with the others'.
        """
        return self._log.verify(self._whole(scope, "verify"))

    async def averify(self, *, scope: Scope | None = None) -> Verification:
        """`verify` on an event loop."""
        return await self._log.averify(self._whole(scope, "verify"))

    def reindex(self, *, progress: Callable[[int, int], None] | None = None) -> Progress:
        """Rebuild the vectors from the log.

        Args:
            progress: Told `(done, total)` records as it goes.

        Raises:
            ValueError: If `progress` cannot be called.
            StorageError: If the vectors cannot be written, or another process owns them.
        """
        return run(self._reindexed(progress))

    async def areindex(self, *, progress: Callable[[int, int], None] | None = None) -> Progress:
        """`reindex` on an event loop."""
        return await arun(self._reindexed(progress))

    def _reindexed(self, progress: Callable[[int, int], None] | None) -> Plan[Progress]:
        self._require_open()
        require(progress=progress)
        return (yield from self._indexer.rebuild(progress=progress))

    def stats(self, *, scope: Scope | None = None) -> dict[str, Any]:
        """Figures of this manager, and of a tenant or thread when one is named or bound.

        `tokens`: hits and misses of the token count cache. `log`: records, revisions,
        threads and bytes. `cache`: hits and misses of what is kept there. `index`: how many
        records it is behind the log, None without one. `prompt_cache`: by model, what the
        provider's cache gave beside what was to be expected (`PromptCacheFigures`), of the
        answers recorded here that tell their usage. `summaries`, with a chat model for them:
        look-ups by where they were found; calls, tokens and USD of this process, and the USD
        of what others had made; the `drift` that `resummarize` found last.

        Raises:
            ValueError: If the scope names a user: a user's figures cannot be told apart yet.
        """
        return run(self._stats(scope))

    async def astats(self, *, scope: Scope | None = None) -> dict[str, Any]:
        """`stats` on an event loop."""
        return await arun(self._stats(scope))

    def _stats(self, scope: Scope | None) -> Plan[Stats]:
        if scope is None and self._tenant_id is not None:
            scope = Scope(tenant_id=self._tenant_id)
        where = self._whole(scope, "count")
        counts = self._counter.stats
        figures = Stats({"tokens": {**asdict(counts), "hit_ratio": counts.hit_ratio}})
        if where is not None:
            figures["log"] = asdict((yield from call(self._log.tenant_stats, where)))
        kept = self._cached.stats
        figures["cache"] = {**asdict(kept), "hit_ratio": kept.hit_ratio}
        behind = yield from self._indexer.behind(None if where is None else where.tenant_id)
        figures["index"] = {"behind": behind}
        if self._summaries is not None:
            figures["summaries"] = self._summaries.stats()
        figures["prompt_cache"] = self._prompt_cache.figures
        return figures

    def close(self) -> None:
        """Close what the manager opened and remove a temporary folder; again does nothing.

        Whatever needs the stores is a StorageError afterwards. A manager that was given its
        parts leaves them open, and works for as long as they do.
        """
        with self._closing:
            if self._summaries is not None:
                self._summaries.close()
            self._episodes.close()
            folder, self._folder = self._folder, None
            self._is_closed |= folder is not None or self._parts.owns_log
            self._parts.close()
            if folder is not None:
                folder.close()

    async def aclose(self) -> None:
        """`close` on an event loop."""
        if self._summaries is not None:
            await asyncio.to_thread(self._summaries.close)
        await asyncio.to_thread(self._episodes.close)
        await self._parts.aclose()
        await super().aclose()

    def _scope(self, scope: object) -> Scope:
        self._require_open()
        return scope_of(scope, self._tenant_id)

    def _moment(self) -> datetime:
        return self._now()

    def _thread(self, scope: object) -> Scope:
        self._require_open()
        return thread_of(scope, self._tenant_id)

    def _whole(self, scope: object, doing: str) -> Scope | None:
        self._require_open()
        return None if scope is None else whole_of(scope, self._tenant_id, doing)

    def _require_open(self) -> None:
        if self._is_closed:
            raise StorageError("the manager is closed; open the folder again to use it")


def _within_turns(summarizer: Summarizer | ChatSummarizer | BaseChatModel | None) -> Summarizer:
    """What makes a summary while a turn waits: never a chat model."""
    if summarizer is None or isinstance(summarizer, BaseChatModel | ChatSummarizer):
        return ExtractiveSummarizer()
    return summarizer
