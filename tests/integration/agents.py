"""An agent with real tools whose model is asked over HTTP, and a manager beside it."""

from __future__ import annotations

from contextlib import contextmanager

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from langchain_ctxmgr import ContextManager
from langchain_ctxmgr.integrations.middleware import ContextMiddleware

SYSTEM = "You are a careful assistant. Use the tools where they help."


@tool
def look_up(query: str) -> str:
    """Look a thing up."""
    return f"About {query}: " + f"{query} is well known. " * 6


@tool
def weather(query: str) -> str:
    """The weather in a city."""
    return f"{query}: 14 degrees, light rain"


TOOLS = (look_up, weather)


def chat(server, **settings):
    """The model, as an application would make it."""
    return ChatOpenAI(
        model="gpt-4o-mini",
        base_url=server.url,
        api_key="none",
        max_retries=0,
        stream_usage=True,
        **settings,
    )


def agent_of(server, *middleware, tools=TOOLS, **settings):
    """An agent over `server`; settings as `create_agent` takes them."""
    return create_agent(
        chat(server), tools=list(tools), system_prompt=SYSTEM, middleware=middleware, **settings
    )


def asked(text, message_id=None):
    """What an agent is invoked with."""
    return {"messages": [{"role": "user", "content": text, "id": message_id}]}


def on(thread_id, **more):
    """The config of a run on a thread."""
    return {"configurable": {"thread_id": thread_id, **more}}


@contextmanager
def context(**settings):
    """A manager and its middleware; those of its settings that are the middleware's go there."""
    own = {key: settings.pop(key) for key in ("max_tokens", "has_tools") if key in settings}
    own |= {
        key: settings.pop(key) for key in ("compact_state", "name", "has_memory") if key in settings
    }
    with ContextManager.open(
        settings.pop("path", None), model="gpt-4o-mini", **settings
    ) as manager:
        yield manager, ContextMiddleware(manager, tenant_id="acme", **own)


def said(messages):
    """What messages say, without the ids that differ from run to run."""
    return [
        (
            message.type,
            message.content,
            [(call["name"], call["args"]) for call in getattr(message, "tool_calls", ())],
        )
        for message in messages
    ]
