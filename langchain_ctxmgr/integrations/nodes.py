"""`ContextNode`: the context manager as a node of a LangGraph graph, or a `pre_model_hook`.

It records what the graph's state holds and puts the view beside it, under a key of its own,
on every call: a channel keeps what it was given last, so a view that is not made anew would be
shown again. The state's messages stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config

from langchain_ctxmgr._plans import Plan, arun, run
from langchain_ctxmgr.intake import messages_of, positive, system_of, text_of, tools_of
from langchain_ctxmgr.integrations.following import Follower, identified
from langchain_ctxmgr.integrations.scopes import runtime_here, scope_of_run
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.records import Scope


class ContextNode(Runnable[Any, dict[str, Any] | None]):
    """A node that gives the model behind it a view of the whole conversation.

    `graph.add_node("context", ContextNode(manager))`, or `pre_model_hook=ContextNode(manager)`.
    The state may be a mapping or an object. Tenant, user and thread are found as
    `ContextMiddleware` finds them; a subgraph's conversation is a thread of its own. What the
    model answers is recorded when the node sees it; a node with `output_key=None` at the end
    of the graph (or as `post_model_hook`) records it at once.

    Messages without an id are recorded under one made from them and what stands before them.

    Args:
        manager: Shared with whatever else uses it; it is not closed here.
        messages_key: Where the state has the conversation.
        output_key: Where the view goes; None: only record.
        max_tokens: Most that a prompt may take; by default what the manager's budget says.
        system: System text that leads the view; by default the newest recorded one.
        tools: What the model may call, for counting.
        tenant_id: Where the run names none.
        user_id: Where the run names none.
        thread_id: Where the run names none.
    """

    def __init__(
        self,
        manager: ContextManager,
        *,
        messages_key: str = "messages",
        output_key: str | None = "llm_input_messages",
        max_tokens: int | None = None,
        system: str | BaseMessage | None = None,
        tools: Sequence[object] = (),
        tenant_id: str | None = None,
        user_id: str | None = None,
        thread_id: str | None = None,
    ) -> None:
        self.name = "ContextNode"
        self._messages_key = text_of("messages_key", messages_key)
        self._output_key = None if output_key is None else text_of("output_key", output_key)
        self._max_tokens = None if max_tokens is None else positive("max_tokens", max_tokens)
        self._system = system_of(system)
        self._tools = tools_of(tools)
        self._default = Scope(tenant_id=tenant_id, user_id=user_id, thread_id=thread_id)
        self._follower = Follower(manager)

    def invoke(
        self,
        input: Any,  # noqa: A002 - LangChain's own name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """Record the state's messages; the view, as an update of the state.

        Raises:
            ContextOverflowError: If system text, tools and question alone are over the budget.
            ValueError: If the run names no tenant or no thread.
        """
        del kwargs
        return run(self._update(input, config))

    async def ainvoke(
        self,
        input: Any,  # noqa: A002 - LangChain's own name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any] | None:
        """`invoke` on an event loop."""
        del kwargs
        return await arun(self._update(input, config))

    def _update(self, state: Any, config: RunnableConfig | None) -> Plan[dict[str, Any] | None]:
        messages = identified(messages_of(_held(state, self._messages_key)))
        scope = scope_of_run(runtime_here(), ensure_config(config), messages, default=self._default)
        yield from self._follower.follow(scope, messages)
        if self._output_key is None:
            return None
        view = yield from self._follower.view(
            scope, messages, system=self._system, tools=self._tools, max_tokens=self._max_tokens
        )
        return {self._output_key: view.messages}


def _held(state: Any, key: str) -> Any:
    if isinstance(state, Mapping):
        return cast("Mapping[str, Any]", state)[key]
    return getattr(state, key)
