"""`ContextChatMessageHistory`: a recorded thread as a LangChain chat message history.

`RunnableWithMessageHistory` reads a history when a run begins and again when it ends, and
takes what is beyond the first reading's length for new. So what is read stays as it is until
something is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, message_chunk_to_message

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.intake import messages_of, positive, with_ids
from langchain_ctxmgr.records import Scope


class Keeper(Protocol):
    """What a history asks: a `ContextManager`."""

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Who is told what happens."""
        ...

    def recent(self, *, scope: Scope, max_tokens: int | None) -> list[BaseMessage]:
        """The newest part of a thread."""
        ...

    async def arecent(self, *, scope: Scope, max_tokens: int | None) -> list[BaseMessage]:
        """`recent` on an event loop."""
        ...

    def record(self, messages: Any, *, scope: Scope) -> Any:
        """Add messages to a thread."""
        ...

    async def arecord(self, messages: Any, *, scope: Scope) -> Any:
        """`record` on an event loop."""
        ...

    def forget(self, *, scope: Scope) -> Any:
        """Erase a thread."""
        ...

    async def aforget(self, *, scope: Scope) -> Any:
        """`forget` on an event loop."""
        ...


class ContextChatMessageHistory(BaseChatMessageHistory):
    """The newest part of a thread as `messages`; what is added goes to the log.

    Make one for each run, as `manager.chat_history` does: `messages` stays the same from
    when it is first read until something is added or cleared through the same object, so
    two runs at a time must not share one.

    Args:
        manager: Shared with whatever else uses it; it is not closed here.
        scope: The thread, and the user who speaks in it when known.
        max_tokens: Most that `messages` may take; by default half of what the manager's
            budget gives a prompt.

    Raises:
        ValueError: If the scope names no thread, or `max_tokens` is no number of tokens.
    """

    def __init__(self, manager: Keeper, scope: Scope, *, max_tokens: int | None = None) -> None:
        super().__init__()
        if not isinstance(scope, Scope) or scope.thread_id is None:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"scope must be a Scope with a thread_id, got {scope!r}")
        self._manager = manager
        self._scope = scope
        self._max_tokens = None if max_tokens is None else positive("max_tokens", max_tokens)
        self._read: list[BaseMessage] | None = None

    @property
    def scope(self) -> Scope:
        """The thread."""
        return self._scope

    @property
    def messages(self) -> list[BaseMessage]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The newest part of the thread, oldest first, as it was when first read.

        None of it while the log cannot be read; a `Degraded` event says so.
        """
        return run(self._messages())

    async def aget_messages(self) -> list[BaseMessage]:
        """`messages` on an event loop."""
        return await arun(self._messages())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Record messages at the end of the thread: all of them or none.

        Raises:
            StorageError: If the log cannot be written and the manager has no spool.
            ValueError: If one is no message, or the manager knows no tenant for the thread.
        """
        run(self._add(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """`add_messages` on an event loop."""
        await arun(self._add(messages))

    def clear(self) -> None:
        """Erase the thread, for good: from the log, the index and what was made from them."""
        run(self._clear())

    async def aclear(self) -> None:
        """`clear` on an event loop."""
        await arun(self._clear())

    def _messages(self) -> Plan[list[BaseMessage]]:
        if self._read is None:
            self._read = yield from self._recent()
        return list(self._read)

    def _recent(self) -> Plan[list[BaseMessage]]:
        try:
            return (
                yield from call(
                    self._manager.recent, scope=self._scope, max_tokens=self._max_tokens
                )
            )
        except LogError as error:
            event = Degraded(part="log", reason=str(error), fallback="no history")
            emit(self._manager.listeners, event)
            return []

    def _add(self, messages: Sequence[BaseMessage]) -> Plan[None]:
        # A streamed answer comes as the sum of its chunks; what is kept is the message.
        whole = [message_chunk_to_message(cast("Any", each)) for each in messages_of(messages)]
        yield from call(self._manager.record, with_ids(whole), scope=self._scope)
        self._read = None

    def _clear(self) -> Plan[None]:
        thread = Scope(tenant_id=self._scope.tenant_id, thread_id=self._scope.thread_id)
        yield from call(self._manager.forget, scope=thread)
        self._read = None
