"""Preparing: what a model should see for a question, and what is learned from having made it.

The log and its index are caught up first; while the log is down the view is made from what
the caller holds. What a tokenizer only estimates is corrected by what the thread's answers
were told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.allocation import ContextBudget
from langchain_ctxmgr.budget.calibration import PromptSizes
from langchain_ctxmgr.budget.costs import cost
from langchain_ctxmgr.budget.prompt_cache import PromptCache
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.errors import ContextOverflowError, LogError
from langchain_ctxmgr.events import Degraded, Listener, emit
from langchain_ctxmgr.intake import head_of, limit_of, question_of, system_of, text_of, tools_of
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.indexer import Indexer
from langchain_ctxmgr.prompt.validity import role_of
from langchain_ctxmgr.recording import Recorder
from langchain_ctxmgr.records import Branch, PreparedContext, Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.builder import View, ViewBuilder
from langchain_ctxmgr.view.current_turn import question_before
from langchain_ctxmgr.view.outcome import announce, context_of
from langchain_ctxmgr.view.recent import recent
from langchain_ctxmgr.view.request import ViewRequest

T = TypeVar("T")

INDEX_STEP = 512
"""Records a turn indexes at most, so that a large backlog never holds one turn up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparer:
    """Everything a view is made from, and who is told of it."""

    log: MessageLog
    recorder: Recorder
    indexer: Indexer
    views: ViewBuilder
    counter: TokenCounter
    sizes: PromptSizes
    prompt_cache: PromptCache
    budget: ContextBudget | None
    """None: each call names its limit."""
    model: str | BaseChatModel | None
    listeners: tuple[Listener, ...]
    log_breaker: Breaker
    now: Callable[[], datetime]

    def prepare(
        self,
        *,
        scope: Scope,
        query: str | BaseMessage | None,
        max_tokens: int | None,
        tools: Sequence[object] | None,
        system: str | BaseMessage | None,
        head: str | None,
        held: Sequence[BaseMessage],
    ) -> Plan[PreparedContext]:
        """See `ContextManager.prepare`; `scope` names tenant and thread.

        Raises:
            ContextOverflowError: If system text, tools and question alone do not fit.
            ValueError: If an argument is not what it must be.
        """
        started = time.perf_counter()
        asked_at = self.now()
        question, lead, given_tools = question_of(query), system_of(system), tools_of(tools)
        head = head_of(head)
        limit = limit_of(max_tokens, self.budget)
        budget = self.budget or ContextBudget(max_input_tokens=limit, reserve_tokens=0)
        thread_key = (scope.tenant_id, scope.thread_id)
        room = limit
        if not self.counter.exact:
            turn = question and (question.id or str(question.content))
            room = self.sizes.room(thread_key, turn, limit)
        try:
            view = yield from self._viewed(
                ViewRequest(
                    scope=scope,
                    branch=Branch(
                        tenant_id=str(scope.tenant_id),
                        thread_id=str(scope.thread_id),
                        spans=(),
                        head=None,
                    ),
                    query=question,
                    system=lead,
                    tools=given_tools,
                    max_tokens=room,
                    asked_tokens=limit,
                    budget=budget,
                    asked_at=asked_at,
                ),
                head,
                held,
            )
        except ContextOverflowError as error:
            if self.counter.exact:
                raise
            needed = max(limit + 1, self.sizes.needed(error.needed_tokens))
            raise ContextOverflowError(
                needed_tokens=needed, max_tokens=limit, what=error.what
            ) from None
        self.sizes.sent(thread_key, view.tokens)
        self.prompt_cache.sent(
            thread_key,
            view.messages,
            tools=given_tools,
            tokens=view.tokens,
            count=self.counter.message,
        )
        elapsed = timedelta(seconds=time.perf_counter() - started)
        announce(view, scope, limit, elapsed, self.listeners)
        return context_of(
            view,
            max_tokens=limit,
            exact=self.counter.exact,
            budget=budget,
            cost=cost(view.tokens, self.model, at=asked_at),
            elapsed=elapsed,
        )

    def _viewed(
        self, request: ViewRequest, head: str | None, held: Sequence[BaseMessage]
    ) -> Plan[View]:
        """The view, or while the log is down one of what the caller holds."""
        yield from self.recorder.replay()
        yield from self.indexer.catch_up(str(request.scope.tenant_id), limit=INDEX_STEP)
        is_given = request.query is not None or bool(held)
        if is_given and not self.log_breaker.is_closed:
            return (yield from self.views.unrecorded(request, held))
        with self.log_breaker.asking() as asked:
            try:
                branch = yield from self._line(request.scope, head, is_held=bool(held))
                if branch is None:
                    view = yield from self.views.unrecorded(request, held)
                else:
                    view = yield from self.views.build(replace(request, branch=branch))
            except LogError as error:
                self.log_breaker.failed(error)
                if not is_given:
                    raise
                view = yield from self.views.unrecorded(request, held)
            else:
                self.log_breaker.worked(asked)
            return view

    def _line(self, scope: Scope, head: str | None, *, is_held: bool) -> Plan[Branch | None]:
        """The branch that ends at `head`; None, and told, where the caller holds more."""
        try:
            branch = yield from call(self.log.branch, scope, head=head)
        except ValueError:
            if not is_held:
                raise
            branch = None
        if is_held and self.recorder.is_behind:
            branch = None
        if branch is None:
            reason = "it lacks messages that the caller holds"
            event = Degraded(part="log", reason=reason, fallback="what the caller holds")
            emit(self.listeners, event)
        return branch

    def message(self, name: str | int, scope: Scope) -> Plan[BaseMessage | None]:
        """See `ContextManager.message`."""
        return (yield from self._asked(self._message(name, scope)))

    def recorded(
        self, messages: Sequence[BaseMessage], scope: Scope, *, newest_turn: bool
    ) -> Plan[list[BaseMessage]]:
        """See `ContextManager.recorded`."""
        return (yield from self._asked(self._recorded(messages, scope, newest_turn)))

    def recent(self, scope: Scope, max_tokens: int | None) -> Plan[list[BaseMessage]]:
        """See `ContextManager.recent`."""
        limit = limit_of(max_tokens, self.budget)
        if max_tokens is None:
            limit = max(1, limit // 2)
        yield from self.recorder.replay()
        return (yield from self._asked(recent(self.log, scope, limit, self.counter)))

    def _asked(self, plan: Plan[T]) -> Plan[T]:
        """What `plan` gives of the log, which is left alone for a while once it failed."""
        if not self.log_breaker.is_closed:
            plan.close()
            raise LogError("the log did not answer a moment ago; it is asked again soon")
        with self.log_breaker.asking() as asked:
            try:
                given = yield from plan
            except LogError as error:
                self.log_breaker.failed(error)
                raise
            self.log_breaker.worked(asked)
            return given

    def _recorded(
        self, messages: Sequence[BaseMessage], scope: Scope, newest_turn: bool
    ) -> Plan[list[BaseMessage]]:
        branch = yield from call(self.log.branch, scope)
        asked = None
        if newest_turn:
            asked = yield from question_before(self.log, branch, None)
        if branch.head is None or (newest_turn and asked is None):
            return []
        start = 0 if asked is None else asked.slot
        records = yield from call(self.log.read, branch, from_slot=start, limit=len(messages))
        pairs = zip(records, messages, strict=False)
        same = takewhile(lambda pair: _is_same(pair[0].message, pair[1]), pairs)
        return [record.message for record, _ in same]

    def _message(self, name: str | int, scope: Scope) -> Plan[BaseMessage | None]:
        if isinstance(name, str):
            try:
                branch = yield from call(self.log.branch, scope, head=text_of("name", name))
            except ValueError:
                return None
            return None if branch.head is None else branch.head.message
        branch = yield from call(self.log.branch, scope)
        found = yield from call(self.log.read, branch, from_slot=name, before_slot=name + 1)
        return found[0].message if found else None


def _is_same(recorded: BaseMessage, message: BaseMessage) -> bool:
    """Whether a recorded message that has an id says what another one does."""
    return bool(recorded.id) and _says(recorded) == _says(message)


def _says(message: BaseMessage) -> tuple[object, ...]:
    """What tells a message apart besides its id and what a provider notes beside it."""
    calls = [(call["name"], call["args"]) for call in getattr(message, "tool_calls", ())]
    return role_of(message), message.name, message.content, calls
