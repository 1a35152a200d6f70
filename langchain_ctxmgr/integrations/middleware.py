"""`ContextMiddleware`: the context manager in an agent of `langchain.agents.create_agent`.

What is said is recorded as it comes about, and each model call is given a view that is folded
from the log. The agent's own state keeps its messages as they are, so whatever reads it
(interrupts, streams, other middleware, a checkpointer) finds what it would find without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from itertools import takewhile
from typing import Annotated, Any, NamedTuple, NotRequired, cast

from langchain_core.messages import AnyMessage, BaseMessage, RemoveMessage, SystemMessage

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.errors import ContextOverflowError
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.intake import positive
from langchain_ctxmgr.integrations.cache_markers import takes_markers, with_cache_markers
from langchain_ctxmgr.integrations.following import Follower, turn_of
from langchain_ctxmgr.integrations.overflow import is_overflow, smaller
from langchain_ctxmgr.integrations.scopes import is_nested, scope_of_run
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.records import Scope

try:
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ModelRequest,
        ModelResponse,
        PrivateStateAttr,
    )
    from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
    from langgraph.config import get_config
    from langgraph.prebuilt import ToolRuntime
    from langgraph.runtime import Runtime
    from langgraph.types import TracePolicy, omit_payload

    from langchain_ctxmgr.integrations.long_term_tools import long_term_tools
    from langchain_ctxmgr.integrations.memory_tools import memory_tools
except ImportError as error:
    raise ImportError(
        "ContextMiddleware needs langchain 1.4 or newer: pip install 'langchain-ctxmgr[agents]'"
    ) from error

Handler = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
_LIMITS = 4_096
"""Threads whose provider's limit is remembered."""


def _merged(known: dict[str, str] | None, new: dict[str, str] | None) -> dict[str, str]:
    return {**(known or {}), **(new or {})}


class ContextState(AgentState[Any]):
    """The agent's state with what the middleware keeps in it."""

    ctxmgr_recorded: NotRequired[Annotated[dict[str, str], PrivateStateAttr, _merged]]
    """For each instance by name, the id of the last message it knows to be recorded."""


class _Shown(NamedTuple):
    """A model call's request with the view in it."""

    request: ModelRequest[Any]
    tokens: int


class ContextMiddleware(AgentMiddleware[ContextState, Any, Any]):
    """Gives each model call of an agent a view of the whole conversation within a budget.

    `create_agent(model, tools, middleware=[ContextMiddleware(manager)])`. Put it first: what
    middleware ahead of it makes of earlier messages for a model call is not shown, messages
    that it adds at the end are. The tenant, the user and the thread are those of the run's
    context, of the authenticated user or of `configurable` (`tenant_id`, `user_id`,
    `thread_id`), else the ones given here. A subagent's conversation is a thread of its own,
    `<thread_id>/<id of its first message>`.

    Where the provider refuses a prompt for its length, it is asked once more with a smaller
    one, and the thread keeps to that limit from then on. Claude models are told where what they
    are sent stays the same (`integrations.cache_markers`), unless the run sets `cache_control`.

    Args:
        manager: Shared with whatever else uses it; it is not closed here.
        max_tokens: Most that a prompt may take; by default what the manager's budget says.
        tenant_id: Where the run names none.
        user_id: Where the run names none.
        thread_id: Where the run names none.
        has_tools: Whether the agent is given `recall_conversation` and `read_message`.
        has_memory: Whether it is given `recall_memory`, `save_memory` and `forget_memory`, for
            what it remembers of the user across threads.
        compact_state: Whether, after each run, the state loses the messages before the last
            turn that are in the log, so that checkpoints stay small.
        name: Tells instances in one agent apart; by default from these settings, so that it
            is the same in every process.
    """

    state_schema = ContextState
    trace_policy = TracePolicy(process_inputs=omit_payload)

    def __init__(
        self,
        manager: ContextManager,
        *,
        max_tokens: int | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
        has_tools: bool = False,
        has_memory: bool = False,
        compact_state: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self._manager = manager
        self._max_tokens = None if max_tokens is None else positive("max_tokens", max_tokens)
        self._default = Scope(tenant_id=tenant_id, user_id=user_id, thread_id=thread_id)
        self._compacts = compact_state
        settings = (max_tokens, tenant_id, user_id, thread_id, has_tools, compact_state)
        settings += (True,) if has_memory else ()
        self._name = name or _name_of(settings)
        self._follower = Follower(manager)
        self._limits: OrderedDict[tuple[str | None, str | None], int] = OrderedDict()
        self._lock = ForkableLock()
        whose = self._scope_of_tool
        self.tools = [
            *(memory_tools(manager, whose) if has_tools else ()),
            *(long_term_tools(manager, whose) if has_memory else ()),
        ]

    @property
    def name(self) -> str:
        """The name of this instance, and of its nodes in the agent's graph."""
        return self._name

    def before_agent(self, state: ContextState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Record what the run begins with."""
        return run(self._recorded(state, runtime))

    async def abefore_agent(
        self, state: ContextState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """`before_agent` on an event loop."""
        return await arun(self._recorded(state, runtime))

    def after_model(self, state: ContextState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Record what the model said."""
        return run(self._recorded(state, runtime))

    async def aafter_model(
        self, state: ContextState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """`after_model` on an event loop."""
        return await arun(self._recorded(state, runtime))

    def after_agent(self, state: ContextState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Record what was edited since, let the index catch up, and compact the state if asked."""
        return run(self._finished(state, runtime))

    async def aafter_agent(
        self, state: ContextState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """`after_agent` on an event loop."""
        return await arun(self._finished(state, runtime))

    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> ModelResponse[Any]:
        """Ask the model with the view; once more with a smaller one where it was too long.

        Raises:
            ContextOverflowError: If system text, tools and question alone are over the budget.
        """
        shown = run(self._show(request))
        try:
            return handler(shown.request)
        except Exception as error:
            if not is_overflow(error):
                raise
            return handler(run(self._show_less(request, shown, error)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: AsyncHandler
    ) -> ModelResponse[Any]:
        """`wrap_model_call` on an event loop."""
        shown = await arun(self._show(request))
        try:
            return await handler(shown.request)
        except Exception as error:
            if not is_overflow(error):
                raise
            return await handler(await arun(self._show_less(request, shown, error)))

    def _scope(self, runtime: object, messages: Sequence[BaseMessage]) -> Scope:
        return scope_of_run(runtime, get_config(), messages, default=self._default)

    def _scope_of_tool(self, runtime: ToolRuntime[Any, Any]) -> Scope:
        messages = cast("Sequence[BaseMessage]", runtime.state["messages"])
        return scope_of_run(runtime, runtime.config, messages, default=self._default)

    def _recorded(self, state: ContextState, runtime: Runtime[Any]) -> Plan[dict[str, Any] | None]:
        """Record the state's messages; the state's note of it where that is new."""
        messages = state["messages"]
        if not messages:
            return None
        scope = self._scope(runtime, messages)
        known = state.get("ctxmgr_recorded", {}).get(self._name)
        is_recorded = yield from self._follower.follow(scope, messages, recorded=known)
        last = messages[-1].id
        if not is_recorded or last is None or last == known:
            return None
        return {"ctxmgr_recorded": {self._name: last}}

    def _finished(self, state: ContextState, runtime: Runtime[Any]) -> Plan[dict[str, Any] | None]:
        update = yield from self._recorded(state, runtime)
        messages = state["messages"]
        if not self._compacts or not messages:
            return update
        scope = self._scope(runtime, messages)
        if not (yield from self._follower.is_safe(scope, messages[-1])):
            return update
        first = 1 if is_nested(get_config()) else 0  # it names a subagent's thread
        gone = [RemoveMessage(id=str(m.id)) for m in messages[first : turn_of(messages)]]
        return {**(update or {}), "messages": gone}

    def _show(self, request: ModelRequest[Any]) -> Plan[_Shown]:
        """The request with the view, once what is new in the state is recorded."""
        held = request.state["messages"]
        if not held:
            return _Shown(request, 0)
        scope = self._scope(request.runtime, held)
        yield from self._follower.follow(scope, held, recorded=self._note_in(request))
        with self._lock:
            limit = self._limits.get((scope.tenant_id, scope.thread_id), self._max_tokens)
        return (yield from self._viewed(request, scope, limit))

    def _show_less(
        self, request: ModelRequest[Any], shown: _Shown, error: Exception
    ) -> Plan[ModelRequest[Any]]:
        """The request with a view that the provider should take.

        Raises:
            Exception: The provider's own, if there is no such view.
        """
        scope = self._scope(request.runtime, request.state["messages"])
        limit = smaller(shown.tokens, error)
        with self._lock:
            self._limits[scope.tenant_id, scope.thread_id] = limit
            while len(self._limits) > _LIMITS:
                self._limits.popitem(last=False)
        try:
            return (yield from self._viewed(request, scope, limit)).request
        except ContextOverflowError as too_small:
            raise error from too_small

    def _viewed(self, request: ModelRequest[Any], scope: Scope, limit: int | None) -> Plan[_Shown]:
        held, added = request.state["messages"], _added(request)
        if added:
            extra = self._manager.analyze(added, max_tokens=limit)
            limit = max(1, extra.limit_tokens - extra.current_tokens)
        view = yield from self._follower.view(
            scope,
            held,
            system=request.system_message,
            tools=[*request.tools, *_schemas(request.response_format)],
            max_tokens=limit,
        )
        messages = cast("list[AnyMessage]", [*view.messages, *added])
        lead = messages[0] if isinstance(messages[0], SystemMessage) else None
        if takes_markers(request.model) and "cache_control" not in request.model_settings:
            messages = cast("list[AnyMessage]", with_cache_markers(messages))
            lead = cast("SystemMessage", messages[0]) if lead is not None else None
        if lead is not None:
            messages = messages[1:]
        return _Shown(request.override(messages=messages, system_message=lead), view.tokens)

    def _note_in(self, request: ModelRequest[Any]) -> str | None:
        state = cast("ContextState", request.state)
        return state.get("ctxmgr_recorded", {}).get(self._name)


def _name_of(settings: tuple[object, ...]) -> str:
    if not any(settings):
        return "ContextMiddleware"
    return f"ContextMiddleware-{sha256(repr(settings).encode()).hexdigest()[:8]}"


def _added(request: ModelRequest[Any]) -> list[AnyMessage]:
    """What other middleware put after the state's messages, for this call alone."""
    messages, held = request.messages, request.state["messages"]
    if not messages or messages[-1].id == held[-1].id:
        return []
    known = {message.id for message in held}
    added = list(takewhile(lambda message: message.id not in known, reversed(messages)))
    return added[::-1] if len(added) < len(messages) else []


def _schemas(response_format: object) -> list[dict[str, Any]]:
    """What is sent of a structured answer's schema, as tools."""
    given = cast("Any", response_format)
    if isinstance(given, AutoStrategy):
        given = ToolStrategy[Any](cast("Any", given).schema)
    if isinstance(given, ToolStrategy):
        specs = cast("list[Any]", given.schema_specs)
    elif isinstance(given, ProviderStrategy):
        specs = [cast("Any", given).schema_spec]
    else:
        specs = []
    return [
        {"name": spec.name, "description": spec.description, "parameters": spec.json_schema}
        for spec in specs
    ]
