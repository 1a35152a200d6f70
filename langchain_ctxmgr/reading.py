"""Reading a thread back: one message, what is recorded, its newest part, all that was said."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import arun, run
from langchain_ctxmgr.preparing import Preparer
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog


class Reads(ABC):
    """A manager's methods for reading what is recorded."""

    _log: MessageLog
    _preparer: Preparer

    @abstractmethod
    def _thread(self, scope: object) -> Scope: ...

    def message(self, name: str | int, *, scope: Scope) -> BaseMessage | None:
        """One recorded message, verbatim in its newest revision; None if there is none.

        Args:
            name: Its id, or the number that stands ahead of it where it is recalled: its
                place in the newest branch of the thread.
            scope: The thread.

        Raises:
            LogError: If the log cannot be read, or could not a moment ago.
        """
        return run(self._preparer.message(name, self._thread(scope)))

    async def amessage(self, name: str | int, *, scope: Scope) -> BaseMessage | None:
        """`message` on an event loop."""
        return await arun(self._preparer.message(name, self._thread(scope)))

    def recorded(
        self, messages: Sequence[BaseMessage], *, scope: Scope, newest_turn: bool = False
    ) -> list[BaseMessage]:
        """What of `messages`, from their beginning on, a thread's newest branch says too.

        As recorded, under the ids it was recorded with, up to a message without one; those of
        `messages` do not count.

        Args:
            messages: What may be recorded, oldest first.
            scope: The thread.
            newest_turn: Compare with what is recorded from the newest user message on, rather
                than from the beginning of the branch.

        Raises:
            LogError: If the log cannot be read, or could not a moment ago.
        """
        return run(self._preparer.recorded(messages, self._thread(scope), newest_turn=newest_turn))

    async def arecorded(
        self, messages: Sequence[BaseMessage], *, scope: Scope, newest_turn: bool = False
    ) -> list[BaseMessage]:
        """`recorded` on an event loop."""
        return await arun(
            self._preparer.recorded(messages, self._thread(scope), newest_turn=newest_turn)
        )

    def recent(self, *, scope: Scope, max_tokens: int | None = None) -> list[BaseMessage]:
        """The newest part of a thread, verbatim, without its system messages; for a prompt.

        It opens with a user message and holds calls only with their results. Its start moves
        in steps of half its size, so that between two steps each reading extends the last.

        Args:
            scope: The thread.
            max_tokens: Most that it takes; by default half of what the budget gives a prompt.

        Raises:
            LogError: If the log cannot be read, or could not a moment ago.
            ValueError: If an argument is not what it must be.
        """
        return run(self._preparer.recent(self._thread(scope), max_tokens))

    async def arecent(self, *, scope: Scope, max_tokens: int | None = None) -> list[BaseMessage]:
        """`recent` on an event loop."""
        return await arun(self._preparer.recent(self._thread(scope), max_tokens))

    def history(self, *, scope: Scope) -> list[BaseMessage]:
        """Every message ever recorded in a thread, verbatim, in the order recorded.

        Revisions and all branches included.
        """
        return [record.message for record in self._log.history(self._thread(scope))]

    async def ahistory(self, *, scope: Scope) -> list[BaseMessage]:
        """`history` on an event loop."""
        return [record.message async for record in self._log.ahistory(self._thread(scope))]
