"""The agents of `agent_cost.py`: one loop, one model, one set of tools, several memories.

All count with the model's own tokenizer. Where a method has settings, they are its defaults
but for the limit, which is the same for all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

import langchain_core.messages as lc
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    ModelRequest,
    SummarizationMiddleware,
    wrap_model_call,
)
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr.integrations.middleware import ContextMiddleware

MODEL = "gpt-4o-mini"
SYSTEM = "You are a careful assistant. Use the tools where they help."
SYSTEM_TOKENS = 256
"""Left by `trim_messages` for system text and tools, which it does not count."""
_CONFIG: Any = {"configurable": {"thread_id": "one"}, "recursion_limit": 60}


@tool
def look_up(query: str) -> str:
    """Look a thing up."""
    return f"About {query}: " + f"{query} is well known. " * 6


@tool
def weather(query: str) -> str:
    """The weather in a city."""
    return f"{query}: 14 degrees, light rain"


@tool("report")
def long_report(query: str) -> str:
    """A long report on a thing."""
    return "\n".join(
        f"{query}, line {n}: {n * 37 % 101} units in store {n % 9}." for n in range(90)
    )


TOOLS = [look_up, weather, long_report]


class Agent(Protocol):
    """A conversation."""

    def ask(self, text: str, message_id: str) -> None:
        """Say something to the agent, and have it answer."""
        ...

    def close(self) -> None:
        """Let go of what it opened."""
        ...


class Graph:
    """A compiled agent and what has to be closed after it."""

    def __init__(self, graph: Any, close: Callable[[], None] = lambda: None) -> None:
        self._graph = graph
        self.close = close

    def ask(self, text: str, message_id: str) -> None:
        """Invoke it on one thread."""
        message = {"role": "user", "content": text, "id": message_id}
        self._graph.invoke({"messages": [message]}, _CONFIG)


def chat(url: str, window_tokens: int) -> ChatOpenAI:
    """The model, as an application would make it."""
    settings: Any = {"profile": {"max_input_tokens": window_tokens}}
    return ChatOpenAI(
        model=MODEL,
        base_url=url,
        api_key=cast("Any", "none"),
        max_retries=0,
        **settings,
    )


def peers() -> dict[str, Callable[[ChatOpenAI, int], Agent]]:
    """How each is made, by name; a missing package is an ImportError on use."""
    return {
        "langchain-ctxmgr": ours,
        "nothing": lambda model, _: _agent(model),
        "trim_messages": trimmed,
        "SummarizationMiddleware": summarized,
        "ContextEditingMiddleware": edited,
        "langmem SummarizationNode": with_langmem,
        "deepagents": deep,
    }


def _agent(model: ChatOpenAI, *middleware: Any, close: Callable[[], None] = lambda: None) -> Agent:
    graph = import_module("langchain.agents").create_agent(
        model,
        tools=TOOLS,
        system_prompt=SYSTEM,
        middleware=middleware,
        checkpointer=InMemorySaver(),
    )
    return Graph(graph, close)


def ours(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """`ContextMiddleware` on a folder of its own, without embeddings."""
    manager = ContextManager.open(None, model=MODEL)
    middleware = ContextMiddleware(manager, max_tokens=budget_tokens, tenant_id="bench")
    return _agent(model, middleware, close=manager.close)


def _counter(model: ChatOpenAI) -> Any:
    """Counts with the model's own tokenizer."""
    return cast("Any", model).get_num_tokens_from_messages


def trimmed(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """The newest messages, as LangChain's documentation does it in an agent."""
    trim: Any = lc.trim_messages  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    def newest(request: ModelRequest[Any], handler: Any) -> Any:
        messages = trim(
            request.messages,
            max_tokens=budget_tokens - SYSTEM_TOKENS,
            token_counter=_counter(model),
            strategy="last",
            start_on="human",
        )
        return handler(request.override(messages=messages))

    return _agent(model, wrap_model_call(newest))


def summarized(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """LangChain's own, which keeps 20 messages and rewrites the state."""
    middleware: Any = SummarizationMiddleware(
        model,
        trigger=("tokens", budget_tokens),
        token_counter=_counter(model),
    )
    return _agent(model, middleware)


def edited(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """LangChain's own, which clears old tool results."""
    middleware: Any = ContextEditingMiddleware(
        edits=[ClearToolUsesEdit(trigger=budget_tokens)],
        token_counter=_counter(model),
    )
    return _agent(model, middleware)


def with_langmem(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """As langmem documents it: a `pre_model_hook` that keeps its summary in the state."""
    prebuilt: Any = import_module("langgraph.prebuilt")
    state: Any = import_module("langgraph.prebuilt.chat_agent_executor").AgentState
    with_context: Any = type("State", (state,), {"__annotations__": {"context": dict[str, Any]}})
    hook: Any = import_module("langmem.short_term").SummarizationNode(
        model=model,
        max_tokens=budget_tokens,
        max_tokens_before_summary=budget_tokens,
        max_summary_tokens=512,
        token_counter=_counter(model),
        output_messages_key="llm_input_messages",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = prebuilt.create_react_agent(
            model,
            tools=TOOLS,
            prompt=SYSTEM,
            pre_model_hook=hook,
            state_schema=with_context,
            checkpointer=InMemorySaver(),
        )
    return Graph(graph)


def deep(model: ChatOpenAI, budget_tokens: int) -> Agent:
    """As it comes: its summary starts at 85 % of the model's window."""
    del budget_tokens
    made: Any = import_module("deepagents").create_deep_agent
    graph = made(model, tools=TOOLS, system_prompt=SYSTEM, checkpointer=InMemorySaver())
    return Graph(graph)
