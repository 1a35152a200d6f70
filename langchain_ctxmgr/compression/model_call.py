"""One call of a chat model beside the turns: given up in time, and in no stream of the host."""

from __future__ import annotations

import asyncio
import queue
import threading
from datetime import timedelta
from typing import Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_ctxmgr.errors import NoAnswerError

_CONFIG: Final[RunnableConfig] = {
    "tags": ["nostream", "langsmith:nostream"],
    "metadata": {"lc_source": "summarization"},
    "run_name": "ctxmgr_summary",
}
"""So that no stream of the host shows the call: LangGraph's `TAG_NOSTREAM`, new and old."""


class ModelCall:
    """One call of the model, given up when its time is over."""

    def __init__(self, model: BaseChatModel, timeout: timedelta) -> None:
        self._model = model
        self._seconds = timeout.total_seconds()

    def invoke(self, messages: list[BaseMessage]) -> AIMessage:
        """Its reply. A call that hangs is left to a thread that holds up nobody's exit."""
        replies = queue.SimpleQueue[AIMessage | BaseException]()

        def ask() -> None:
            try:
                replies.put(self._asked(messages))
            except BaseException as error:  # noqa: BLE001 - raised by the caller below
                replies.put(error)

        threading.Thread(target=ask, name="ctxmgr-summary-call", daemon=True).start()
        try:
            reply = replies.get(timeout=self._seconds)
        except queue.Empty:
            raise NoAnswerError(f"the model did not answer in {self._seconds:g} s") from None
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, BaseException):  # a cancelled call, or one that ends its thread
            raise NoAnswerError(f"the model ended with {reply!r}") from reply
        return reply

    async def ainvoke(self, messages: list[BaseMessage]) -> AIMessage:
        """`invoke` on an event loop."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._model.ainvoke(messages, config=_CONFIG)
        except TimeoutError:
            raise NoAnswerError(f"the model did not answer in {self._seconds:g} s") from None

    def _asked(self, messages: list[BaseMessage]) -> AIMessage:
        """Its reply, from a loop of its own where the model answers on loops alone."""
        try:
            return self._model.invoke(messages, config=_CONFIG)
        except NotImplementedError:
            return asyncio.run(self._model.ainvoke(messages, config=_CONFIG))
