"""Keeping the log in step with the messages that a host holds, and making views from it.

A host (an agent, a graph) owns its messages and may go back, fork, edit or drop them. What
the log lacks of them is recorded behind the message it follows in the host, so a fork there
is a branch in the log, and the view ends where the host's messages end. Messages are known
again by their ids; a host that sends a whole conversation with new ids, by what it says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import TypeAlias

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.events import Degraded, emit
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.records import PreparedContext, Scope
from langchain_ctxmgr.storage.codec import encode

_SEEN = 16_384
"""Messages of which this process knows that they are recorded as they are."""
Key: TypeAlias = tuple[str | None, str | None, str]


class Follower:
    """Records for a host and prepares for it; safe to share between threads and tasks."""

    def __init__(self, manager: ContextManager) -> None:
        self._manager = manager
        self._seen: OrderedDict[Key, bytes] = OrderedDict()
        self._lock = ForkableLock()

    def follow(
        self, scope: Scope, messages: Sequence[BaseMessage], *, recorded: str | None = None
    ) -> Plan[bool]:
        """Record what the log lacks of `messages`; whether it has them all.

        The current turn is compared message by message, for hosts edit it (a call that a
        human corrects); what stands before it is taken as recorded where its end is.

        The boundary for a log that cannot be written: the turn goes on, an event says so,
        and the next call records what is missing.

        Args:
            scope: The thread.
            messages: All that the host holds, oldest first, each with an id.
            recorded: The id of the last one the host knows to be recorded.

        Raises:
            ValueError: If a message cannot be recorded, or the scope names no tenant.
        """
        turn = turn_of(messages)
        start = min(turn, (yield from self._unknown(scope, messages, recorded)))
        lead: list[BaseMessage] = []
        if start == 0 and recorded is None:
            lead = yield from self._opening(scope, messages[:turn])
            start, lead = len(lead), lead[-1:]
        while start < len(messages) and self._is_seen(scope, messages[start]):
            start += 1
        if start == len(messages):
            return True
        if start > 0 and not lead:
            if (yield from self._has(scope, messages[start - 1])):
                lead = [messages[start - 1]]
            else:  # what the host holds was erased from the log, and is not put back
                start = max(start, turn)
        try:
            yield from call(self._manager.record, [*lead, *messages[start:]], scope=scope)
        except StorageError as error:
            fallback = "recording with the next step"
            event = Degraded(part="log", reason=str(error), fallback=fallback)
            emit(self._manager.listeners, event)
            return False
        self._note(scope, messages[start:])
        return True

    def view(
        self,
        scope: Scope,
        messages: Sequence[BaseMessage],
        *,
        system: BaseMessage | None = None,
        tools: Sequence[object] = (),
        max_tokens: int | None = None,
    ) -> Plan[PreparedContext]:
        """What the model should see next, given that the host holds `messages`."""
        turn = turn_of(messages)
        return (
            yield from call(
                self._manager.prepare,
                scope=scope,
                query=messages[turn] if turn < len(messages) else None,
                max_tokens=max_tokens,
                tools=tools,
                system=system,
                head=messages[-1].id if messages else None,
                held=messages,
            )
        )

    def is_safe(self, scope: Scope, message: BaseMessage) -> Plan[bool]:
        """Whether the log itself has a message: a spool on this machine does not count."""
        try:
            known = yield from call(self._manager.message, str(message.id), scope=scope)
        except StorageError:
            return False
        return known is not None

    def _has(self, scope: Scope, message: BaseMessage) -> Plan[bool]:
        """Whether the log has a message; while it is down, that is taken for granted."""
        try:
            known = yield from call(self._manager.message, str(message.id), scope=scope)
        except StorageError:
            return True
        return known is not None

    def _opening(self, scope: Scope, messages: Sequence[BaseMessage]) -> Plan[list[BaseMessage]]:
        """What of `messages` the log has under other ids: a host may give new ones each run.

        Without an answer among them it is a preamble, which comes anew with each question.
        """
        if not any(role_of(message) == "ai" for message in messages):
            return []
        try:
            found = yield from call(self._manager.recorded, messages, scope=scope)
        except StorageError:
            return []
        answered = messages[: len(found) + 1]  # a chain may not record its answers
        return found if any(role_of(message) == "ai" for message in answered) else []

    def _unknown(
        self, scope: Scope, messages: Sequence[BaseMessage], recorded: str | None
    ) -> Plan[int]:
        """The place of the first message that may not be recorded yet."""
        for place in range(len(messages) - 1, -1, -1):
            name = str(messages[place].id)
            if name == recorded or _key(scope, messages[place]) in self._seen:
                return place + 1
        low, high = 0, len(messages)
        while low < high:
            middle = (low + high) // 2
            known = yield from self.is_safe(scope, messages[middle])
            low, high = (middle + 1, high) if known else (low, middle)
        return low

    def _is_seen(self, scope: Scope, message: BaseMessage) -> bool:
        known = self._seen.get(_key(scope, message))
        return known is not None and known == _digest(message)

    def _note(self, scope: Scope, messages: Sequence[BaseMessage]) -> None:
        with self._lock:
            for message in messages:
                key = _key(scope, message)
                self._seen[key] = _digest(message)
                self._seen.move_to_end(key)
            while len(self._seen) > _SEEN:
                self._seen.popitem(last=False)


def turn_of(messages: Sequence[BaseMessage]) -> int:
    """Where the current turn begins: at the last user message, or after all without one."""
    for place in range(len(messages) - 1, -1, -1):
        if role_of(messages[place]) == "human":
            return place
    return len(messages)


def identified(messages: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The messages, those without an id under one that is the same whenever it is made."""
    if all(message.id for message in messages):
        return messages
    named: list[BaseMessage] = []
    before = ""
    for message in messages:
        given = message
        if not given.id:
            digest = sha256(before.encode("utf-8", "surrogatepass") + encode(message)).hexdigest()
            given = message.model_copy(update={"id": f"ctx-{digest[:32]}"})
        before = str(given.id)
        named.append(given)
    return named


def _key(scope: Scope, message: BaseMessage) -> Key:
    return scope.tenant_id, scope.thread_id, str(message.id)


def _digest(message: BaseMessage) -> bytes:
    return blake2b(encode(message), digest_size=16).digest()
