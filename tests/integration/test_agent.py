"""`ContextMiddleware` in agents that are asked over HTTP, by a server as strict as OpenAI."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace

import openai
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from langchain_ctxmgr import ContextManager, ContextOverflowError, Scope
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.integrations.middleware import ContextMiddleware
from langchain_ctxmgr.integrations.overflow import is_overflow, smaller
from langchain_ctxmgr.integrations.scopes import scope_of_run
from tests.integration.agent_turns import converse, question
from tests.integration.agents import SYSTEM, agent_of, asked, chat, context, on, said, weather
from tests.integration.test_log_down import Unreachable
from tests.loopback_openai import LoopbackOpenAI, Reply, marked_tools, scripted, text_of

TOOLS_QUESTION = "How is it there? [use weather(Oslo)] [use weather(Rome)] [use look_up(Rome)]"


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


@pytest.fixture
def plain():
    with LoopbackOpenAI() as server:
        yield server


def scope(thread_id="t"):
    return Scope(tenant_id="acme", thread_id=thread_id)


def shown(server, place=-1):
    """What the model was shown, as pairs of role and text."""
    messages = server.account.exchanges[place].messages
    return [(message["role"], text_of(message["content"])) for message in messages]


class TestPromptCache:
    def test_the_figures_are_those_of_the_server(self, server):
        with context(max_tokens=4_000) as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(12):
                agent.invoke(asked(question(number)), on("t"))
            figures = manager.stats()["prompt_cache"]["gpt-4o-mini"]
        exchanges = server.account.exchanges
        assert figures["answers"] == len(exchanges)
        assert figures["input_tokens"] == sum(each.prompt_tokens for each in exchanges)
        assert figures["cache_read_tokens"] == sum(each.cached_tokens for each in exchanges)
        assert figures["hit_ratio"] == pytest.approx(server.account.cached_share)
        # The provider caches in steps of 128 tokens from 1,024 on: a little less.
        assert figures["cache_read_tokens"] <= 1.05 * figures["predicted_tokens"]

    @pytest.mark.parametrize("kind", ["anthropic-chat", "openai-chat"])
    def test_a_model_that_takes_marks_is_given_them(self, kind):
        given = []

        class Model(GenericFakeChatModel):
            @property
            def _llm_type(self):
                return kind

            def _generate(self, messages, *args, **kwargs):
                given.append(messages)
                return super()._generate(messages, *args, **kwargs)

        with context() as (manager, middleware):
            agent = create_agent(
                Model(messages=iter([AIMessage("Noted."), AIMessage("Oslo.")])),
                system_prompt=SYSTEM,
                middleware=[middleware],
                checkpointer=InMemorySaver(),
            )
            agent.invoke(asked("I live in Oslo."), on("t"))
            state = agent.invoke(asked("Where do I live?"), on("t"))
            recorded = manager.history(scope=scope())
        marks = [str(message.content).count("cache_control") for message in given[-1]]
        assert marks == ([1, 0, 1, 1] if kind == "anthropic-chat" else [0, 0, 0, 0])
        assert "cache_control" not in str([state["messages"], recorded])


class TestTurns:
    async def test_a_long_conversation_is_accepted_and_ends_as_without(self):
        report = await converse(25, budget_tokens=4_000)
        assert report.refused == 0
        assert report.is_same_state
        assert report.is_history_whole
        assert report.largest_prompt_tokens <= 4_000 + 200
        assert report.cached_share > 0.5

    async def test_parallel_calls_blocking_and_async(self, server, plain):
        with context() as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            bare = agent_of(plain, checkpointer=InMemorySaver())
            for text in ("I live in Oslo.", TOOLS_QUESTION):
                one = agent.invoke(asked(text), on("t"))
                two = await bare.ainvoke(asked(text), on("t"))
            assert one.keys() == two.keys()
            assert said(one["messages"]) == said(two["messages"])
            again = await agent.ainvoke(asked(TOOLS_QUESTION), on("t"))
            assert manager.history(scope=scope()) == again["messages"]
            assert server.account.exchanges[1].body == plain.account.exchanges[1].body

    def test_the_view_ends_with_the_turn_as_the_host_has_it(self, server):
        with context(max_tokens=700) as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(12):
                agent.invoke(asked(f"Note {number}: " + "some words " * 40), on("t"))
            final = agent.invoke(asked(TOOLS_QUESTION), on("t"))["messages"]
            turn = shown(server)[-5:]
            assert turn[0][1].endswith(TOOLS_QUESTION)
            assert turn[1:] == [
                ({"ai": "assistant"}.get(m.type, m.type), m.text) for m in final[-5:-1]
            ]
            assert shown(server)[0] == ("system", SYSTEM)
            assert server.account.exchanges[-1].prompt_tokens <= 800

    def test_what_was_said_long_ago_is_recalled(self, server):
        with context(max_tokens=800) as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            agent.invoke(asked("My daughter Mia is allergic to hazelnuts."), on("t"))
            for number in range(14):
                agent.invoke(asked(f"Note {number}: " + "some other words " * 30), on("t"))
            agent.invoke(asked("What is Mia allergic to?"), on("t"))
            assert "hazelnuts" in shown(server)[-1][1]

    def test_a_thread_is_resumed_without_a_checkpointer(self, server):
        with context() as (_, middleware):
            agent_of(server, middleware).invoke(asked("I live in Oslo."), on("t"))
            agent_of(server, middleware).invoke(asked("Where do I live?"), on("t"))
        assert ("user", "I live in Oslo.") in shown(server)

    def test_a_client_that_sends_all_of_it_without_ids_is_known_again(self, server):
        talk = []
        with context() as (manager, middleware):
            agent = agent_of(server, middleware)
            for text in ("I live in Oslo.", TOOLS_QUESTION, "Where do I live?"):
                talk.append({"role": "user", "content": text})
                final = agent.invoke({"messages": talk}, on("t"))
                talk = [message.model_copy(update={"id": None}) for message in final["messages"]]
                assert said(manager.history(scope=scope())) == said(final["messages"])
            assert len(shown(server)) == 1 + len(talk) - 1
            edited = [*talk[:-2], {"role": "user", "content": "And in short?"}]
            agent.invoke({"messages": edited}, on("t"))
            assert ("user", "Where do I live?") not in shown(server)
            assert len(manager.history(scope=scope())) == len(talk) + 2

    def test_a_preamble_with_each_question_does_not_fork_the_thread(self, server):
        with context() as (_, middleware):
            for text in ("I live in Oslo.", "My cat is called Zorro.", "Where do I live?"):
                agent = create_agent(chat(server), [], middleware=[middleware])
                agent.invoke({"messages": [("system", "Be brief."), ("user", text)]}, on("t"))
        assert [role for role, _ in shown(server)].count("system") == 1
        assert ("user", "I live in Oslo.") in shown(server)
        assert ("user", "My cat is called Zorro.") in shown(server)

    def test_reasoning_and_opaque_blocks_of_the_turn_are_as_the_model_sent_them(self):
        seen = []

        class Thinking(AgentMiddleware):
            def wrap_model_call(self, request, handler):
                seen.append(request.messages)
                if len(seen) > 1:
                    return AIMessage("Done.")
                return AIMessage(blocks, tool_calls=[call])

        call = {"name": "weather", "args": {"query": "Oslo"}, "id": "c1", "type": "tool_call"}
        blocks = [
            {"type": "thinking", "thinking": "", "signature": "c2lnbmF0dXJl"},
            {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": []},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"query": "Oslo"}},
        ]
        with LoopbackOpenAI() as server, context() as (_, middleware):
            agent_of(server, middleware, Thinking()).invoke(asked("How is it?"), on("t"))
        assert seen[1][-2].content == blocks
        assert seen[1][-1].content == weather.invoke({"query": "Oslo"})


class TestStreams:
    MODES = ("values", "updates", "messages", "custom", "checkpoints", "tasks", "debug")

    @pytest.mark.parametrize("mode", MODES)
    async def test_no_stream_shows_what_the_view_added(self, server, mode):
        with context(max_tokens=900) as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(12):
                agent.invoke(asked(f"Note {number}: " + "some words " * 40), on("t"))
            given = asked(f"Note 3? {TOOLS_QUESTION}")
            parts = list(agent.stream(given, on("t"), stream_mode=mode))
            parts += [part async for part in agent.astream(given, on("t"), stream_mode=mode)]
            assert "<recalled" in server.account.exchanges[-1].text
            assert "data-only>" not in repr(parts)

    async def test_events_and_streamed_tokens_are_those_of_the_answer(self, server):
        with context(max_tokens=900) as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            tokens = [
                chunk.text
                async for chunk, _ in agent.astream(
                    asked(TOOLS_QUESTION), on("t"), stream_mode="messages"
                )
                if chunk.type == "AIMessageChunk"
            ]
            events = [
                event
                async for event in agent.astream_events(asked("Thanks."), on("t"), version="v2")
            ]
        assert "".join(tokens).startswith("Done: ")
        starts = [event for event in events if event["event"] == "on_chat_model_start"]
        assert len(starts) == 1
        streamed = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(streamed) == "You said: Thanks."


class TestForks:
    def test_an_abandoned_branch_is_neither_shown_nor_recalled(self, server):
        with context(has_tools=True) as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            agent.invoke(asked("I like tea.", "q1"), on("t"))
            agent.invoke(asked("My cat is called Zorro.", "q2"), on("t"))
            before = next(
                state
                for state in agent.get_state_history(on("t"))
                if not state.next and len(state.values["messages"]) == 2
            )
            agent.invoke(asked("My dog is called Bella.", "q3"), before.config)
            server.rule = lambda exchange: (
                Reply(calls=(("recall_conversation", {"query": "cat Zorro dog Bella"}),))
                if exchange.messages[-1]["role"] == "user"
                else Reply("Done.")
            )
            agent.invoke(asked("What are my pets called?", "q4"), on("t"))
            assert "Bella" in server.account.exchanges[-1].text
            assert "cat is called" not in server.account.exchanges[-1].text
            assert len(manager.history(scope=scope())) == 10

    def test_an_answer_made_again_takes_the_place_of_the_first(self, server):
        with context() as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            server.rule = scripted(Reply("first answer"), Reply("second answer"), Reply("third"))
            agent.invoke(asked("Say something.", "q1"), on("t"))
            unanswered = next(
                state for state in agent.get_state_history(on("t")) if state.next == ("model",)
            )
            agent.invoke(None, unanswered.config)
            assert shown(server)[-1] == ("user", "Say something.")
            agent.invoke(asked("Thanks.", "q2"), on("t"))
            assert ("assistant", "second answer") in shown(server)
            assert ("assistant", "first answer") not in shown(server)
            assert len(manager.history(scope=scope())) == 5

    def test_a_run_waits_for_a_human_and_goes_on(self, server):
        with context() as (manager, middleware):
            agent = agent_of(
                server,
                middleware,
                HumanInTheLoopMiddleware(interrupt_on={"weather": True}),
                checkpointer=InMemorySaver(),
            )
            waiting = agent.invoke(asked("How is it? [use weather(Rome)]", "q1"), on("t"))
            assert waiting["__interrupt__"]
            edited = {"name": "weather", "args": {"query": "Oslo"}}
            decision = {"decisions": [{"type": "edit", "edited_action": edited}]}
            final = agent.invoke(Command(resume=decision), on("t"))
            assert "Oslo" in server.account.exchanges[-1].text
            newest = {message.id: message for message in manager.history(scope=scope())}
            assert list(newest.values()) == final["messages"]

    def test_a_message_that_is_edited_in_the_turn_is_recorded_as_edited(self, server):
        class Editor(AgentMiddleware):
            def after_model(self, state, runtime):
                last = state["messages"][-1]
                calls = [{**call, "args": {"query": "Oslo"}} for call in last.tool_calls]
                return {"messages": [last.model_copy(update={"tool_calls": calls})]}

        with context() as (manager, middleware):
            agent = agent_of(server, Editor(), middleware, checkpointer=InMemorySaver())
            final = agent.invoke(asked("How is it? [use weather(Rome)]"), on("t"))
            call = server.account.exchanges[-1].messages[-2]["tool_calls"][0]["function"]
            assert "Oslo" in call["arguments"]
            newest = {message.id: message for message in manager.history(scope=scope())}
            assert list(newest.values()) == final["messages"]

    def test_what_was_forgotten_is_not_put_back_by_the_host(self, server):
        with context() as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            agent.invoke(asked("My code is gonecanary."), on("t"))
            manager.forget(scope=scope())
            agent.invoke(asked("What is my code?"), on("t"))
            assert "gonecanary" not in server.account.exchanges[-1].text
            assert len(manager.history(scope=scope())) == 2


@dataclass
class Visitor:
    tenant_id: str | None = None
    user_id: str | None = None
    thread_id: str | None = None


class TestScopes:
    NONE = Scope()

    def test_context_then_configurable_then_the_hosts_own(self):
        default = Scope(tenant_id="own", user_id="me", thread_id="t0")
        runtime = SimpleNamespace(context=Visitor(tenant_id="acme"), server_info=None)
        config = on("t1", tenant_id="globex")
        assert scope_of_run(runtime, config, [], default=default) == Scope(
            tenant_id="acme", user_id="me", thread_id="t1"
        )
        runtime = SimpleNamespace(context={"user_id": "ann"})
        assert scope_of_run(runtime, {}, [], default=default) == Scope(
            tenant_id="own", user_id="ann", thread_id="t0"
        )

    def test_nobody_speaks_for_another_than_the_authenticated_user(self):
        user = {"identity": "ann", "tenant_id": "acme"}
        runtime = SimpleNamespace(context=None, server_info=SimpleNamespace(user=user))
        found = scope_of_run(runtime, on("t", user_id="bob"), [], default=self.NONE)
        assert found == Scope(tenant_id="acme", user_id="ann", thread_id="t")
        runtime.context = {"tenant_id": "globex"}
        with pytest.raises(ValueError, match="tenant_id must be the authenticated user's"):
            scope_of_run(runtime, on("t"), [], default=self.NONE)

    def test_a_missing_tenant_or_thread_is_an_error(self, server):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            agent = agent_of(server, ContextMiddleware(manager))
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                agent.invoke(asked("hello"), on("t"))
            with pytest.raises(ValueError, match="scope must have a thread_id"):
                agent.invoke(asked("hello"), {"configurable": {"tenant_id": "acme"}})
        assert server.account.exchanges == []

    def test_the_context_of_a_run_says_whose_it_is(self, server):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            agent = agent_of(server, ContextMiddleware(manager), context_schema=Visitor)
            for tenant in ("acme", "globex"):
                agent.invoke(asked(f"I work for {tenant}."), context=Visitor(tenant, "ann", "t"))
            agent.invoke(asked("Who do I work for?"), context=Visitor("acme", "ann", "t"))
        assert "globex" not in server.account.exchanges[-1].text

    def test_subagents_have_conversations_of_their_own(self, server):
        with context() as (manager, middleware):
            inner = agent_of(server, middleware)

            @tool
            def delegate(query: str) -> str:
                """Give a task away."""
                return inner.invoke(asked(f"Task: {query}"))["messages"][-1].text

            agent = agent_of(server, middleware, tools=[delegate], checkpointer=InMemorySaver())
            server.rule = marked_tools
            final = agent.invoke(asked("Go. [use delegate(a)] [use delegate(b)]"), on("t"))
            assert manager.history(scope=scope()) == final["messages"]
            asked_inside = [
                exchange.messages[1:]
                for exchange in server.account.exchanges
                if "Task:" in text_of(exchange.messages[1]["content"])
            ]
            assert [len(messages) for messages in asked_inside] == [1, 1]
            assert manager.stats(scope=Scope(tenant_id="acme"))["log"]["threads"] == 3

    def test_instances_are_told_apart_the_same_way_in_every_process(self, server):
        with context() as (manager, first), context(max_tokens=900) as (_, second):
            assert first.name == ContextMiddleware(manager, tenant_id="acme").name
            assert first.name != second.name
            assert ContextMiddleware(manager, name="mine").name == "mine"
            agent = agent_of(server, first, second)
            agent.invoke(asked("hello"), on("t"))
            assert len(manager.history(scope=scope())) == 2


class TestOverflow:
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_refused_prompt_is_sent_once_more_and_smaller(self, is_async):
        with (
            LoopbackOpenAI(window_tokens=1_200) as server,
            context(max_tokens=3_000) as (_, middleware),
        ):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(16):
                given = asked(f"Note {number}: " + "some words " * 60)
                if is_async:
                    await agent.ainvoke(given, on("t"))
                else:
                    agent.invoke(given, on("t"))
            assert len(server.account.exchanges) == 16
            assert len(server.account.refused) == 1

    def test_a_second_refusal_is_the_hosts_to_see(self):
        with LoopbackOpenAI(window_tokens=60) as server, context() as (_, middleware):
            with pytest.raises(openai.BadRequestError, match="maximum context length"):
                agent_of(server, middleware).invoke(asked("some words " * 100), on("t"))
            assert len(server.account.refused) == 1

    def test_a_budget_that_cannot_hold_the_question_says_what_it_needs(self, server):
        with (
            context(max_tokens=300) as (_, middleware),
            pytest.raises(ContextOverflowError, match="raise max_tokens"),
        ):
            agent_of(server, middleware).invoke(asked("some words " * 300), on("t"))

    @pytest.mark.parametrize(
        ("status", "code", "text", "expected"),
        [
            (400, "context_length_exceeded", "no", True),
            (400, None, "prompt is too long: 210000 tokens > 200000 maximum", True),
            (413, None, "Request Entity Too Large", True),
            (400, "invalid_api_key", "bad key", False),
            (429, "rate_limit_exceeded", "too many tokens per minute", False),
            (500, None, "maximum context length", False),
        ],
    )
    def test_what_counts_as_too_long(self, status, code, text, expected):
        error = RuntimeError(text)
        error.status_code, error.body = status, {"error": {"code": code, "message": text}}
        assert is_overflow(error) is expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("maximum context length is 8192 tokens. However, you sent 9000 tokens", 8_192),
            ("prompt is too long: 210,000 tokens > 200,000 maximum", 8_571),
            ("too long", 6_000),
        ],
    )
    def test_the_next_limit_follows_the_providers_numbers(self, text, expected):
        assert smaller(10_000, RuntimeError(text)) == pytest.approx(expected, abs=1)


class TestServicesFail:
    async def test_the_embedder_raises_in_mid_conversation(self, server):
        class Failing(DeterministicFakeEmbedding):
            def embed_documents(self, texts):
                if is_down:
                    raise ConnectionError("no embeddings")
                return super().embed_documents(texts)

            embed_query = embed_documents

        events, is_down = [], False
        settings = {"embeddings": Failing(size=8), "listeners": [events.append]}
        with context(max_tokens=900, **settings) as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(14):
                is_down = 4 <= number < 12
                await agent.ainvoke(asked(f"Note {number}: " + "some words " * 40), on("t"))
            assert len(manager.history(scope=scope())) == 28
            assert "embeddings" in {e.part for e in events if isinstance(e, Degraded)}

    @pytest.mark.parametrize("has_spool", [False, True])
    async def test_the_log_is_down_for_some_turns(self, server, tmp_path, monkeypatch, has_spool):
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.REST_SECONDS", 0.0)
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.LOG_REST_SECONDS", 0.0)
        events, log = [], Unreachable(tmp_path / "log.sqlite3")
        spool = tmp_path / "spool.sqlite3" if has_spool else None
        settings = {"model": "gpt-4o-mini", "listeners": [events.append], "spool": spool}
        with ContextManager(log=log, **settings) as manager:
            middleware = ContextMiddleware(manager, tenant_id="acme", max_tokens=900)
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for number in range(12):
                log.is_down = 3 <= number < 9
                text = f"Note {number}: " + "some words " * 30 + TOOLS_QUESTION * (number % 2)
                final = await agent.ainvoke(asked(text), on("t"))
                assert server.account.exchanges[-1].prompt_tokens <= 1_000
                if log.is_down:
                    assert f"Note {number - 1}" in server.account.exchanges[-1].text
            assert manager.history(scope=scope()) == final["messages"]
            assert "log" in {e.part for e in events if isinstance(e, Degraded)}
            assert manager.verify().ok
        log.close()


class TestTools:
    async def test_the_agent_searches_and_reads_its_own_past(self, server):
        long = "The report. " + "Everything is fine. " * 600 + "The end of it."
        calls = (
            ("recall_conversation", {"query": "hazelnuts"}),
            ("read_message", {"number": 2}),
            ("read_message", {"number": 2, "start": 12_000}),
            ("read_message", {"number": 99}),
        )
        with context(has_tools=True) as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            agent.invoke(asked("Mia is allergic to hazelnuts."), on("t"))
            agent.invoke(asked(long), on("t"))
            for invoke in (agent.invoke, agent.ainvoke):
                server.rule = scripted(Reply(calls=calls), Reply("Done."))
                final = invoke(asked("Search for hazelnuts."), on("t"))
                final = await final if invoke == agent.ainvoke else final
                found, first, last, none = (m.text for m in final["messages"][-5:-1])
                assert "0 user: Mia is allergic to hazelnuts." in found
                assert first == long[:8_000]
                assert last == long[12_000:]
                assert none == "There is nothing to read at message 99 from character 0."

    async def test_the_agent_remembers_across_threads(self, server):
        user = {"user_id": "ana"}
        with context(has_memory=True) as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            agent.invoke(asked("I live in Berlin, by the river."), on("one", **user))
            for thread, invoke in (("two", agent.invoke), ("three", agent.ainvoke)):

                async def told(tool, thread=thread, invoke=invoke, **given):
                    server.rule = scripted(Reply(calls=((tool, given),)), Reply("Done."))
                    final = invoke(asked("Go on."), on(thread, **user))
                    final = await final if invoke == agent.ainvoke else final
                    return final["messages"][-2].text

                saved = await told("save_memory", text="Mia is allergic to nuts.")
                memory_id = saved.removeprefix("Saved as memory ").removesuffix(".")
                found = await told("recall_memory", query="nuts Berlin")
                assert f"[memory {memory_id}]" in found
                assert ", agent: Mia is allergic to nuts." in found
                assert ", user: I live in Berlin, by the river." in found
                theirs = Scope(tenant_id="acme", user_id="bob")
                assert manager.facts(scope=theirs) == []
                assert await told("forget_memory", memory_id=memory_id) == "Forgotten."
                none = await told("forget_memory", memory_id=memory_id)
                assert none == f"There is no memory {memory_id}."
                assert f"[memory {memory_id}]" not in await told("recall_memory", query="nuts")


class TestOtherMiddleware:
    def test_what_it_adds_for_one_call_is_sent_and_not_recorded(self, server):
        class Reminder(AgentMiddleware):
            def wrap_model_call(self, request, handler):
                note = HumanMessage("Answer in one word.")
                return handler(request.override(messages=[*request.messages, note]))

        with context(max_tokens=900) as (manager, middleware):
            agent = agent_of(server, Reminder(), middleware, checkpointer=InMemorySaver())
            for number in range(12):
                agent.invoke(asked(f"Note {number}: " + "some words " * 40), on("t"))
            assert shown(server)[-1] == ("user", "Answer in one word.")
            assert shown(server)[-2][1].startswith(("Note 11", "<recalled"))
            assert "Answer in one word." not in {m.text for m in manager.history(scope=scope())}

    def test_a_structured_answers_schema_counts(self, server):
        class Verdict(BaseModel):
            """What was decided."""

            verdict: str
            reasons: list[str]

        server.rule = scripted(
            Reply(calls=(("Verdict", {"verdict": "yes", "reasons": ["a"]}),)),
            Reply(calls=(("Verdict", {"verdict": "no", "reasons": []}),)),
        )
        with context() as (manager, middleware):
            agent = agent_of(
                server,
                middleware,
                checkpointer=InMemorySaver(),
                response_format=ToolStrategy(Verdict),
            )
            assert agent.invoke(asked("Well?"), on("t"))["structured_response"].verdict == "yes"
            final = agent.invoke(asked("Sure?"), on("t"))
            assert final["structured_response"].verdict == "no"
            assert manager.history(scope=scope()) == final["messages"]


class TestState:
    def test_its_note_is_small_and_plain(self, server):
        with context() as (_, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            final = agent.invoke(asked(TOOLS_QUESTION), on("t"))
            values = agent.get_state(on("t")).values
            assert values["messages"] == final["messages"]
            assert values["ctxmgr_recorded"] == {middleware.name: final["messages"][-1].id}
            assert "ctxmgr_recorded" not in final

    def test_compact_state_keeps_the_last_turn_and_loses_nothing(self, server):
        with context(compact_state=True) as (manager, middleware):
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            for text in ("I live in Oslo.", TOOLS_QUESTION, "Thanks.", "Where do I live?"):
                agent.invoke(asked(text), on("t"))
            assert [m.text for m in agent.get_state(on("t")).values["messages"]] == [
                "Where do I live?",
                "You said: Where do I live?",
            ]
            assert ("user", "I live in Oslo.") in shown(server)
            assert len(manager.history(scope=scope())) == 12

    def test_compact_state_keeps_what_the_log_does_not_have(self, server, tmp_path):
        log = Unreachable(tmp_path / "log.sqlite3")
        with ContextManager(log=log, model="gpt-4o-mini") as manager:
            middleware = ContextMiddleware(manager, tenant_id="acme", compact_state=True)
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            log.is_down = True
            agent.invoke(asked("I live in Oslo."), on("t"))
            agent.invoke(asked("Where do I live?"), on("t"))
            assert len(agent.get_state(on("t")).values["messages"]) == 4
            assert ("user", "I live in Oslo.") in shown(server)
        log.close()

    def test_the_history_is_traced_once(self, server):
        with context() as (_, middleware):
            state = {"messages": [HumanMessage("secret")]}
            assert middleware.trace_policy.process_inputs(state) == {}


class TestManyAtOnce:
    async def test_fifty_turns_of_two_agents_do_not_meet(self, server):
        with context(name="one") as (manager, one), context(name="two") as (other, two):
            agents = [agent_of(server, middleware) for middleware in (one, two)]

            async def talk(number):
                mine = agents[number % 2]
                for text in (f"My word is word{number}x.", f"Again. [use weather(town{number}x)]"):
                    await mine.ainvoke(asked(text), on(f"t{number}"))

            await asyncio.gather(*(talk(number) for number in range(50)))
            for exchange in server.account.exchanges:
                words = {w for w in range(50) if f"word{w}x" in exchange.text}
                towns = {w for w in range(50) if f"town{w}x" in exchange.text}
                assert len(words) == 1
                assert towns <= words
            for number in range(50):
                history = (manager, other)[number % 2].history(scope=scope(f"t{number}"))
                assert [m.type for m in history] == ["human", "ai", "human", "ai", "tool", "ai"]
                assert all(
                    isinstance(b, AIMessage | ToolMessage) or isinstance(a, AIMessage)
                    for a, b in pairwise(history)
                )


class TestImports:
    @pytest.mark.parametrize("missing", ["langchain", "langgraph"])
    def test_a_missing_host_is_named_with_its_extra(self, missing):
        code = (
            "import sys; import langchain_ctxmgr; from langchain_ctxmgr import ContextManager\n"
            "assert not {'langchain', 'langgraph'} & sys.modules.keys(), sorted(sys.modules)\n"
            f"sys.modules[{missing!r}] = None\n"
            "try:\n    import langchain_ctxmgr.integrations.middleware\n"
            "except ImportError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "langchain-ctxmgr[agents]" in done.stdout


def test_system_messages_in_the_state_lead_where_there_is_no_prompt(server):
    with context() as (_, middleware):
        agent = create_agent(
            chat(server), [], middleware=[middleware], checkpointer=InMemorySaver()
        )
        first = {"messages": [SystemMessage("Be brief."), HumanMessage("hello")]}
        agent.invoke(first, on("t"))
        agent.invoke(asked("and now?"), on("t"))
    assert [role for role, _ in shown(server)] == ["system", "user", "assistant", "user"]
