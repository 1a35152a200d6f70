"""A manager's summaries by a chat model: kept, made and followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, Self

from langchain_core.language_models import BaseChatModel

from langchain_ctxmgr._plans import Plan
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.compression.statements import RunningSummary, summary_of
from langchain_ctxmgr.events import Listener
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.records import LogRecord, Scope, Summary
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.summaries.apart import notes_on
from langchain_ctxmgr.summaries.maker import SummaryMaker
from langchain_ctxmgr.summaries.store import SummaryStore
from langchain_ctxmgr.summaries.worker import SummaryWorker


class Summaries:
    """Makes summaries off the hot path, and hands out what is made.

    Args:
        summarizer: What makes them.
        log: What is summed up.
        cached: Where other processes find them sooner.
        counter: What sizes are counted with.
        trigger_tokens: A thread is summed up once it has so many.
        listeners: Told of summaries and failures.
        now: The present instant, aware.
    """

    def __init__(
        self,
        summarizer: ChatSummarizer,
        log: MessageLog,
        cached: Cached,
        counter: TokenCounter,
        *,
        trigger_tokens: int,
        listeners: tuple[Listener, ...],
        now: Callable[[], datetime],
    ) -> None:
        self.store = SummaryStore(
            log,
            cached,
            identity=summarizer.identity,
            section_tokens=summarizer.section_tokens,
        )
        self._maker = SummaryMaker(
            log,
            self.store,
            summarizer,
            counter,
            trigger_tokens=trigger_tokens,
            listeners=listeners,
            now=now,
        )
        self._worker = SummaryWorker(self._maker, log.tenants)
        self._summarizer = summarizer
        self._cached = cached
        self._counter = counter

    @classmethod
    def by(
        cls,
        summarizer: object,
        log: MessageLog,
        cached: Cached,
        counter: TokenCounter,
        *,
        window_tokens: int | None,
        listeners: tuple[Listener, ...],
        now: Callable[[], datetime],
    ) -> Self | None:
        """Those that a chat model or a `ChatSummarizer` makes; None for any other summarizer.

        A thread is summed up once it fills half of `window_tokens`, or one section where that
        is not known, unless the `ChatSummarizer` says when.
        """
        if isinstance(summarizer, BaseChatModel):
            summarizer = ChatSummarizer(model=summarizer)
        if not isinstance(summarizer, ChatSummarizer):
            return None
        trigger = summarizer.section_tokens if window_tokens is None else window_tokens // 2
        return cls(
            summarizer,
            log,
            cached,
            counter,
            trigger_tokens=summarizer.trigger_tokens or trigger,
            listeners=listeners,
            now=now,
        )

    def recorded(self, tenant_id: str) -> None:
        """Have what is due of a tenant made soon; returns at once."""
        self._worker.wake(tenant_id)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until what was due is made or failed, up to `timeout` seconds; whether it is."""
        return self._worker.join(timeout)

    def running(self, scope: Scope) -> Plan[RunningSummary | None]:
        """What is noted of a thread, brought up to date now; None before its first section."""
        return (yield from self._maker.update(scope))

    def notes_on(
        self,
        records: Sequence[LogRecord],
        scope: Scope,
        *,
        prompt: str | None,
        max_tokens: int,
        timeout: timedelta,
        max_parallel: int,
    ) -> Plan[RunningSummary]:
        """What the model notes on `records` alone; see `notes_on` of `summaries.apart`.

        Told by `prompt`, or as the summarizer is where it is None.
        """
        own = self._summarizer
        told = replace(
            own,
            prompt=own.prompt if prompt is None else prompt,
            max_tokens=max_tokens,
            timeout=timeout,
        )
        return (
            yield from notes_on(
                records,
                scope,
                summarizer=told,
                spending=self._maker.spending,
                cached=self._cached,
                counter=self._counter,
                max_parallel=max_parallel,
            )
        )

    def update(self, scope: Scope) -> Plan[Summary]:
        """See `ContextManager.summarize`."""
        return self._shown((yield from self._maker.update(scope)))

    def remake(self, scope: Scope) -> Plan[Summary]:
        """See `ContextManager.resummarize`."""
        return self._shown((yield from self._maker.remake(scope)))

    def stats(self) -> dict[str, Any]:
        """Look-ups by where they ended, and what the model's calls took."""
        looked, spent = asdict(self.store.look_ups), asdict(self._maker.spent)
        del spent["by_day"]
        hits = looked["process"] + looked["cache"] + looked["log"]
        asked = hits + looked["missing"]
        ratio = hits / asked if asked else 0.0
        made = {"saved_usd": self.store.saved_usd, "drift": self._maker.drift}
        return {"look_ups": looked, "hit_ratio": ratio, **spent, **made}

    def close(self) -> None:
        """End the work beside the turns; what is left is found by the next process."""
        self._worker.close()

    def _shown(self, summary: RunningSummary | None) -> Summary:
        statements = () if summary is None else summary.statements
        shown = summary_of(statements, self._counter)
        return replace(shown, text=shown.text.rstrip("\n"))
