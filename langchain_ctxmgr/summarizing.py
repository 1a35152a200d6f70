"""A manager's methods for summaries: of a thread by the chat model, and on request."""

from __future__ import annotations

from abc import ABC, abstractmethod

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.condensing import Condensation, Condensed, Condenser, Summarize
from langchain_ctxmgr.intake import positive, text_of
from langchain_ctxmgr.records import Scope, Summary
from langchain_ctxmgr.summaries.service import Summaries


class Summarizes(ABC):
    """A manager's methods for summaries."""

    _summaries: Summaries | None
    _condenser: Condenser

    @abstractmethod
    def _thread(self, scope: object) -> Scope: ...

    def summarize(self, *, scope: Scope) -> Summary:
        """The overview of a thread by the chat model, brought up to date now.

        It covers whole sections (`ChatSummarizer.section_tokens`); empty before the first is
        complete. Otherwise it is made beside the turns, by itself. Where that is under way, here
        or in another process, it is waited for.

        Raises:
            ValueError: If the manager has no chat model for summaries.
            NoAnswerError: If the model does not answer; what it raises itself passes.
        """
        return run(self._by_model().update(self._thread(scope)))

    async def asummarize(self, *, scope: Scope) -> Summary:
        """`summarize` on an event loop."""
        return await arun(self._by_model().update(self._thread(scope)))

    def resummarize(self, *, scope: Scope) -> Summary:
        """`summarize` from the first message on, whatever was summed up before.

        `Resummarized` tells how far that had drifted.

        Raises:
            ValueError: If the manager has no chat model for summaries.
            NoAnswerError: If the model does not answer; what it raises itself passes.
        """
        return run(self._by_model().remake(self._thread(scope)))

    async def aresummarize(self, *, scope: Scope) -> Summary:
        """`resummarize` on an event loop."""
        return await arun(self._by_model().remake(self._thread(scope)))

    def condense(
        self,
        *,
        scope: Scope,
        strategy: str | Summarize | Condensation = "progressive",
        query: str | None = None,
        max_tokens: int | None = None,
    ) -> Condensed:
        """A thread as a summary, by a strategy; the thread stays as it is.

        By a chat model where the manager has one for summaries, else in the messages' own
        sentences; these also take the place of a strategy that fails or is too little borne out.

        Args:
            scope: The thread.
            strategy: `conversation_summary`, `key_points`, `progressive` (the running summary and
                what came since), `importance_extract`, `query_focused`, a callable of the caller's
                own (`condensing.Summarize`), or a `Condensation` with settings.
            query: What the summary is for; `query_focused` needs it.
            max_tokens: Of the summary, at most; by default half of what the messages take, or a
                fifth where the thread is near its limit.

        Raises:
            ValueError: If an argument is not what it must be.
        """
        return run(self._condensed(scope, strategy, query, max_tokens))

    async def acondense(
        self,
        *,
        scope: Scope,
        strategy: str | Summarize | Condensation = "progressive",
        query: str | None = None,
        max_tokens: int | None = None,
    ) -> Condensed:
        """`condense` on an event loop."""
        return await arun(self._condensed(scope, strategy, query, max_tokens))

    def _condensed(
        self,
        scope: Scope,
        strategy: str | Summarize | Condensation,
        query: str | None,
        max_tokens: int | None,
    ) -> Plan[Condensed]:
        thread = self._thread(scope)
        how = strategy if isinstance(strategy, Condensation) else Condensation(strategy=strategy)
        question = "" if query is None else text_of("query", query)
        limit = None if max_tokens is None else positive("max_tokens", max_tokens)
        return (yield from self._condenser.condense(thread, how, question, limit))

    def _by_model(self) -> Summaries:
        if self._summaries is None:
            raise ValueError("summarizer must be a chat model or a ChatSummarizer for this")
        return self._summaries
