"""Threads that are resumed, replayed and forked: in memory, in SQLite and in PostgreSQL.

Each turn is one of another process days later: a new manager over the same folder, a new
saver over the same checkpoints, a new agent or graph.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from langchain_core.messages import AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.integrations.middleware import ContextMiddleware
from langchain_ctxmgr.integrations.nodes import ContextNode
from tests.integration.agents import agent_of, asked, chat, on
from tests.loopback_openai import LoopbackOpenAI, text_of

BUDGET_TOKENS = 700
FIRST_DAY = datetime(2025, 5, 1, 9, tzinfo=UTC)
NOTES = [f"Note {number}: {'some other words ' * 40}" for number in range(4)]


class State(MessagesState):
    llm_input_messages: list[AnyMessage]


def with_middleware(server, manager, saver):
    own = ContextMiddleware(manager, tenant_id="acme", max_tokens=BUDGET_TOKENS)
    return agent_of(server, own, tools=[], checkpointer=saver)


def with_node(server, manager, saver):
    model = chat(server)

    def blocking(state: State) -> Any:
        return {"messages": [model.invoke(state["llm_input_messages"])]}

    settings = {"tenant_id": "acme", "max_tokens": BUDGET_TOKENS}
    graph = StateGraph(State)
    graph.add_node("context", ContextNode(manager, **settings))
    graph.add_node("model", blocking)
    graph.add_node("recorded", ContextNode(manager, **settings, output_key=None))
    graph.add_edge(START, "context")
    graph.add_edge("context", "model")
    graph.add_edge("model", "recorded")
    return graph.compile(checkpointer=saver)


class Life:
    """A conversation over days."""

    def __init__(self, server, folder, url, *, way, kind, build) -> None:
        self.server, self.folder, self.url = server, folder, url
        self.way, self.kind, self.build = way, kind, build
        self.now = FIRST_DAY
        self.memory = InMemorySaver()
        self.thread = f"t-{uuid.uuid4().hex}"
        self.scope = Scope(tenant_id="acme", thread_id=self.thread)

    @asynccontextmanager
    async def process(self):
        """A process of its own; what it runs on is closed at the end."""
        place = str(self.folder / "checkpoints.sqlite3")
        async with AsyncExitStack() as waiting:
            with ExitStack() as stack:
                manager = stack.enter_context(
                    ContextManager.open(
                        self.folder / "data", model="gpt-4o-mini", clock=lambda: self.now
                    )
                )
                saver = self.memory
                if self.kind == "sqlite" and self.way == "blocking":
                    saver = stack.enter_context(SqliteSaver.from_conn_string(place))
                elif self.kind == "sqlite":
                    made = AsyncSqliteSaver.from_conn_string(place)
                    saver = await waiting.enter_async_context(made)
                elif self.kind == "postgres" and self.way == "blocking":
                    saver = stack.enter_context(PostgresSaver.from_conn_string(self.url))
                    saver.setup()
                elif self.kind == "postgres":
                    made = AsyncPostgresSaver.from_conn_string(self.url)
                    saver = await waiting.enter_async_context(made)
                    await saver.setup()
                yield manager, self.build(self.server, manager, saver)

    async def say(self, text, config=None):
        """One turn, three days after the one before; None runs on from `config`."""
        self.now += timedelta(days=3)
        given, where = None if text is None else asked(text), config or on(self.thread)
        async with self.process() as (manager, graph):
            if self.way == "async":
                final = await graph.ainvoke(given, where)
            else:
                final = graph.invoke(given, where)
            return final["messages"], manager.history(scope=self.scope)

    async def states(self):
        """The thread's checkpoints, newest first."""
        async with self.process() as (_, graph):
            if self.way == "async":
                return [state async for state in graph.aget_state_history(on(self.thread))]
            return list(graph.get_state_history(on(self.thread)))

    async def after(self, count):
        """The config of the first run that ended with `count` messages."""
        ended = [
            state
            for state in await self.states()
            if not state.next and len(state.values.get("messages", ())) == count
        ]
        return ended[-1].config

    async def recalled(self, question):
        async with self.process() as (manager, _):
            found = await manager.arecall(question, scope=self.scope, k=50)
            return "\n".join(memory.text for memory in found)

    def shown(self):
        messages = self.server.account.exchanges[-1].messages
        return "\n".join(text_of(message["content"]) for message in messages)


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


VARIANTS = list(
    product((with_middleware, with_node), ("memory", "sqlite", "postgres"), ("blocking", "async"))
)


@pytest.fixture(params=VARIANTS, ids=lambda parts: "-".join((parts[0].__name__, *parts[1:])))
def life(request, server, tmp_path, postgres):
    build, kind, way = request.param
    return Life(server, tmp_path, postgres.url(), way=way, kind=kind, build=build)


class TestResumed:
    async def test_days_later_what_was_said_is_recalled(self, life):
        for text in ("My daughter Mia is allergic to hazelnuts.", *NOTES):
            final, history = await life.say(text)
            assert history == final
        await life.say("What is Mia allergic to?")
        assert "hazelnuts" in life.shown()
        assert max(e.prompt_tokens for e in life.server.account.exchanges) <= BUDGET_TOKENS + 100

    async def test_a_fork_neither_shows_nor_recalls_what_was_abandoned(self, life):
        await life.say("I like tea.")
        beginning = await life.after(2)
        for text in ("My cat is called Zorro.", *NOTES[:2]):
            await life.say(text)
        abandoned = await life.after(8)
        await life.say("My dog is called Bella.", beginning)
        for text in NOTES[2:]:
            await life.say(text)
        final, history = await life.say("What are my pets called, cat Zorro or dog Bella?")
        assert "My dog is called Bella." in life.shown()
        assert "My cat is called" not in life.shown()
        assert "My cat is called" not in await life.recalled("cat called Zorro")
        assert len(final) == 10
        assert len(history) == 16
        await life.say("And what is my cat called?", abandoned)
        assert "My cat is called Zorro." in life.shown()
        assert "Bella" not in life.shown()
        assert "Bella" not in await life.recalled("dog called Bella")

    async def test_a_replayed_turn_is_answered_from_what_stood_before_it(self, life):
        await life.say("I live in Oslo.")
        await life.say("Where do I live?")
        asked_again = next(
            state
            for state in await life.states()
            if "model" in state.next and len(state.values["messages"]) == 3
        )
        final, history = await life.say(None, asked_again.config)
        assert life.server.account.exchanges[-1].messages[-1]["content"] == "Where do I live?"
        assert [m.type for m in final] == ["human", "ai", "human", "ai"]
        assert len(history) == 5
        await life.say("Thanks.")
        assert life.shown().count("You said: Where do I live?") == 1
