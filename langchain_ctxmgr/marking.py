"""What a user marks: pinned for every view, boosted or muted in recall.

A mark is a row of its own in the log: the message stays as it was said. It goes with the message
when that is forgotten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.intake import shown, text_of
from langchain_ctxmgr.memory.facts.service import memory_scope
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import Scope, Weighed
from langchain_ctxmgr.storage.message_log import MessageLog, Weighing

MAX_WEIGHT: Final = 16.0
"""Beyond, what was boosted would be recalled whatever is asked."""
_MOST_MEMORY_CHARS: Final = 64
"""A memory's id is shorter: a longer one is a message's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Where marks are kept."""

    log: MessageLog
    recorder: Recorder

    def weigh(self, scope: Scope, name: str, given: Weighing) -> Plan[None]:
        """Mark a message of the thread, else a memory of the user or beside the thread."""
        yield from self.recorder.replay()
        for where in _places(scope, name):
            if (yield from call(self.log.weigh, where, name, given)):
                return
        raise ValueError(
            f"message_id must be that of a recorded message or memory in {scope}, got {shown(name)}"
        )


def _places(scope: Scope, name: str) -> Iterator[Scope]:
    if scope.thread_id is not None:
        yield replace(scope, user_id=None)
    elif scope.user_id is None:
        raise ValueError(f"scope must name a thread or a user to mark something, got {scope}")
    if len(name) <= _MOST_MEMORY_CHARS:
        for whose in (scope, replace(scope, user_id=None)):
            if whose.user_id is not None or whose.thread_id is not None:
                yield memory_scope(whose, name)


class Marks(ABC):
    """A manager's methods for what a user marks."""

    _marker: Marker

    @abstractmethod
    def _scope(self, scope: object) -> Scope: ...

    @abstractmethod
    def _moment(self) -> datetime: ...

    def pin(self, message_id: str, *, scope: Scope) -> None:
        """Show a message in every view of its thread, a memory in every view of its user.

        It stands beside the question where the view does not show it anyway, within the budget's
        `working_share`; of more pins than fit there, those made last.

        Args:
            message_id: A recorded message's id, or a memory's.
            scope: The thread of the message; or whose memory it is: a user's, else a thread's.

        Raises:
            ValueError: If nothing of that id is recorded there.
            LogError: If the log cannot be written.
        """
        return run(self._marked(message_id, scope, is_pinned=True))

    async def apin(self, message_id: str, *, scope: Scope) -> None:
        """`pin` on an event loop."""
        return await arun(self._marked(message_id, scope, is_pinned=True))

    def unpin(self, message_id: str, *, scope: Scope) -> None:
        """Take a pin back. Arguments and errors are those of `pin`."""
        return run(self._marked(message_id, scope, is_pinned=False))

    async def aunpin(self, message_id: str, *, scope: Scope) -> None:
        """`unpin` on an event loop."""
        return await arun(self._marked(message_id, scope, is_pinned=False))

    def weigh(self, message_id: str, weight: float, *, scope: Scope) -> None:
        """Boost a message or memory in recall and in what is kept of it, hold it back, or mute it.

        A muted one is not recalled, nor does it count for summaries; it stays in the log and in
        the newest part of its thread, where the conversation needs it.

        Args:
            message_id: A recorded message's id, or a memory's.
            weight: 0 mutes, 1 is as if it was never weighed, above boosts; at most 16.
            scope: As for `pin`.

        Raises:
            ValueError: If `weight` is out of range, or nothing of that id is recorded there.
            LogError: If the log cannot be written.
        """
        return run(self._marked(message_id, scope, weight=_weight(weight)))

    async def aweigh(self, message_id: str, weight: float, *, scope: Scope) -> None:
        """`weigh` on an event loop."""
        return await arun(self._marked(message_id, scope, weight=_weight(weight)))

    def weighed(self, *, scope: Scope) -> list[Weighed]:
        """What is pinned, boosted or muted, last marked last.

        Args:
            scope: A tenant, narrowed to a user or a thread where these are given.
        """
        return run(self._weighed(scope))

    async def aweighed(self, *, scope: Scope) -> list[Weighed]:
        """`weighed` on an event loop."""
        return await arun(self._weighed(scope))

    def _marked(
        self,
        message_id: str,
        scope: Scope,
        *,
        is_pinned: bool | None = None,
        weight: float | None = None,
    ) -> Plan[None]:
        where, name = self._scope(scope), text_of("message_id", message_id)
        given = Weighing(self._moment(), is_pinned, weight)
        return (yield from self._marker.weigh(where, name, given))

    def _weighed(self, scope: Scope) -> Plan[list[Weighed]]:
        return (yield from call(self._marker.log.weighed, self._scope(scope)))


def _weight(weight: object) -> float:
    if (
        isinstance(weight, int | float)
        and not isinstance(weight, bool)
        and 0 <= weight <= MAX_WEIGHT
    ):
        return float(weight)
    raise ValueError(f"weight must be a number from 0 to {MAX_WEIGHT:g}, got {shown(weight)}")
