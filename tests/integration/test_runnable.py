"""`ContextRunnable` in chains of LCEL, asked over HTTP by a server as strict as OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_ctxmgr import ContextManager, ContextOverflowError, Scope
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.integrations.runnable import ContextRunnable
from langchain_ctxmgr.memory import MemoryRetriever
from tests.integration.agents import TOOLS, asked, chat, on
from tests.integration.test_log_down import Unreachable
from tests.loopback_openai import LoopbackOpenAI, text_of

SCOPE = Scope(thread_id="t")
WORDS = "some words " * 40
PROMPT = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme") as manager:
        yield manager


def shown(server, place=-1):
    return [(m["role"], text_of(m["content"])) for m in server.account.exchanges[place].messages]


def chain_of(server, manager, prompt=PROMPT, **settings):
    """prompt → view → model → recorded."""
    context = ContextRunnable(manager, **settings)
    return prompt | context | chat(server) | context.recorder


class TestQuestionAlone:
    """The prompt holds only the question; what was said before comes from the log."""

    async def test_each_way_of_running_sees_what_was_said_before(self, server, manager):
        chain = chain_of(server, manager)
        texts = [f"Note {number}." for number in range(8)]
        for number, text in enumerate(texts):
            given, way = {"question": text}, number % 4
            if way == 0:
                answer = chain.invoke(given, on("t"))
            elif way == 1:
                answer = await chain.ainvoke(given, on("t"))
            elif way == 2:
                answer = "".join(chunk.text for chunk in chain.stream(given, on("t")))
            else:
                answer = "".join([part.text async for part in chain.astream(given, on("t"))])
        assert answer == "You said: Note 7."
        history = manager.history(scope=SCOPE)
        assert [m.content for m in history[::2]] == texts
        assert {type(m) for m in history[1::2]} == {AIMessage}
        assert [role for role, _ in shown(server)] == ["system", *["user", "assistant"] * 7, "user"]

    def test_the_prompt_is_in_the_budget_and_holds_the_evidence(self, server, manager):
        chain = chain_of(server, manager, max_tokens=800)
        chain.invoke({"question": "My daughter Mia is allergic to hazelnuts."}, on("t"))
        for number in range(14):
            chain.invoke({"question": f"Note {number}: {WORDS}"}, on("t"))
        chain.invoke({"question": "What is Mia allergic to?"}, on("t"))
        assert "hazelnuts" in shown(server)[-1][1]
        assert max(e.prompt_tokens for e in server.account.exchanges) <= 900

    def test_the_same_question_twice_is_two_questions(self, server, manager):
        chain = chain_of(server, manager)
        for _ in range(2):
            chain.invoke({"question": "Go on."}, on("t"))
        assert len(manager.history(scope=SCOPE)) == 4

    async def test_a_batch_is_answered_thread_by_thread(self, server, manager):
        chain = chain_of(server, manager)
        inputs = [{"question": f"I am {n}."} for n in range(8)]
        configs = [on(f"t{n}") for n in range(8)]
        first = chain.batch(inputs, configs)
        again = await chain.abatch(inputs, configs)
        assert [m.text for m in first] == [m.text for m in again]
        for number in range(8):
            history = manager.history(scope=Scope(thread_id=f"t{number}"))
            assert [m.text for m in history[::2]] == [f"I am {number}."] * 2

    async def test_chunks_come_as_the_model_sends_them(self, server, manager):
        chain, bare = chain_of(server, manager), PROMPT | chat(server)
        given = {"question": "Tell me a story of four pieces."}
        for one, two in (
            (list(chain.stream(given, on("t"))), list(bare.stream(given))),
            (
                [part async for part in chain.astream(given, on("u"))],
                [part async for part in bare.astream(given)],
            ),
        ):
            assert [(type(c), c.text) for c in one] == [(type(c), c.text) for c in two]
            assert len(one) > 3

    async def test_events_name_the_step_and_stream_the_answer(self, server, manager):
        chain = chain_of(server, manager)
        events = [e async for e in chain.astream_events({"question": "hello"}, on("t"))]
        names = {e["name"] for e in events if e["event"] == "on_chain_start"}
        assert {"ContextRunnable", "recorder"} <= names
        tokens = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
        assert "".join(tokens) == "You said: hello"

    def test_an_answer_that_is_given_up_is_not_recorded(self, server, manager):
        stream = chain_of(server, manager).stream({"question": "hello"}, on("t"))
        next(stream)
        stream.close()
        assert [m.content for m in manager.history(scope=SCOPE)] == ["hello"]

    async def test_text_behind_a_parser_is_recorded_too(self, server, manager):
        context = ContextRunnable(manager)
        chain = PROMPT | context | chat(server) | StrOutputParser() | context.recorder
        assert chain.invoke({"question": "hello"}, on("t")) == "You said: hello"
        parts = [part async for part in chain.astream({"question": "again"}, on("t"))]
        assert "".join(parts) == "You said: again"
        assert [m.content for m in manager.history(scope=SCOPE)][1::2] == [
            "You said: hello",
            "You said: again",
        ]


class TestWholeConversation:
    def test_a_client_that_sends_all_of_it_is_recorded_once(self, server, manager):
        prompt = ChatPromptTemplate([("system", "Be brief."), MessagesPlaceholder("talk")])
        chain = prompt | ContextRunnable(manager) | chat(server)
        talk = []
        for number in range(5):
            talk.append(("human", f"Note {number}."))
            talk.append(("ai", chain.invoke({"talk": talk}, on("t")).text))
        assert len(shown(server)) == 10
        assert [m.content for m in manager.history(scope=SCOPE)] == [text for _, text in talk][:-1]

    async def test_a_tool_loop_goes_on_with_the_recorded_question(self, server, manager):
        context = ContextRunnable(manager, tools=TOOLS)
        model = chat(server).bind_tools(TOOLS)
        chain = context | model | context.recorder
        tools = {tool.name: tool for tool in TOOLS}
        for turn in range(4):
            talk: list[Any] = [HumanMessage("How is it? [use weather(Oslo)] [use look_up(Rome)]")]
            while True:
                given = list(talk)
                ask = chain.ainvoke(given, on("t")) if turn % 2 else None
                answer = await ask if ask else chain.invoke(given, on("t"))
                talk.append(answer)
                if not answer.tool_calls:
                    break
                talk += [tools[call["name"]].invoke(call) for call in answer.tool_calls]
            assert all(m.id for m in talk if m.type == "ai")
        history = manager.history(scope=SCOPE)
        assert [m.type for m in history] == ["human", "ai", "tool", "tool", "ai"] * 4
        assert len(shown(server)) == 19

    def test_text_messages_and_tuples_are_taken(self, server, manager):
        chain = ContextRunnable(manager) | chat(server)
        given = ["one", HumanMessage("two"), ("human", "three"), [("user", "four")]]
        for each in given:
            chain.invoke(each, on("t"))
        texts = [m.content for m in manager.history(scope=SCOPE)]
        assert texts == ["one", "two", "three", "four"]

    def test_system_messages_lead_as_one_and_are_not_recorded(self, server, manager):
        prompt = [SystemMessage("Be brief."), HumanMessage("hello"), SystemMessage("In French.")]
        (ContextRunnable(manager) | chat(server)).invoke(prompt, on("t"))
        assert shown(server) == [("system", "Be brief.\n\nIn French."), ("user", "hello")]
        assert [m.type for m in manager.history(scope=SCOPE)] == ["human"]
        assert prompt[0].content == "Be brief."

    def test_the_input_is_left_as_it_was(self, manager):
        given = [HumanMessage("hello")]
        view = ContextRunnable(manager).invoke(given, on("t"))
        assert given == [HumanMessage("hello")]
        assert view[0].content == "hello"


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
class TestWithHistory:
    """The history records; the view is made of its thread."""

    def chain(self, server, manager, prompt, **keys):
        context = ContextRunnable(manager, max_tokens=900)
        steps = prompt | context | chat(server) | context.recorder
        return RunnableWithMessageHistory(steps, manager.chat_history, **keys)

    async def test_nothing_is_recorded_twice(self, server, manager):
        prompt = ChatPromptTemplate(
            [("system", "Be brief."), MessagesPlaceholder("past"), ("human", "Answer: {question}")]
        )
        keys = {"input_messages_key": "question", "history_messages_key": "past"}
        chain = self.chain(server, manager, prompt, **keys)
        session = {"configurable": {"session_id": "t"}}
        chain.invoke({"question": "Mia is allergic to hazelnuts."}, session)
        for number in range(14):
            await chain.ainvoke({"question": f"Note {number}: {WORDS}"}, session)
        chain.invoke({"question": "What is Mia allergic to?"}, session)
        history = manager.history(scope=SCOPE)
        assert len(history) == 32
        assert history[-2].content == "What is Mia allergic to?"
        assert "hazelnuts" in shown(server)[-1][1]
        assert shown(server)[-1][1].endswith("Answer: What is Mia allergic to?")
        assert max(e.prompt_tokens for e in server.account.exchanges) <= 1_000

    def test_a_tool_result_as_input_finds_its_call(self, server, manager):
        chain = RunnableWithMessageHistory(
            ContextRunnable(manager) | chat(server).bind_tools(TOOLS), manager.chat_history
        )
        session = {"configurable": {"session_id": "t"}}
        chain.invoke([HumanMessage("I live in Oslo.")], session)
        call = chain.invoke([HumanMessage("How is it? [use weather(Oslo)]")], session)
        result = ToolMessage("14 degrees", tool_call_id=call.tool_calls[0]["id"])
        assert chain.invoke([result], session).text.startswith("Done")
        assert len(shown(server)) == 5
        assert [m.type for m in manager.history(scope=SCOPE)] == [
            "human",
            "ai",
            "human",
            "ai",
            "tool",
            "ai",
        ]


class TestScopes:
    def test_tenants_threads_and_users_are_those_of_the_run(self, server):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            chain = chain_of(server, manager)
            for tenant, thread in (("acme", "t"), ("globex", "t"), ("acme", "u"), ("acme", "t")):
                given = {"question": f"I am {tenant} {thread}."}
                chain.invoke(given, on(thread, tenant_id=tenant, user_id="ann"))
            texts = "\n".join(text for _, text in shown(server))
            assert "globex" not in texts
            assert "acme u" not in texts
            assert len(shown(server)) == 4
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                chain.invoke({"question": "hello"}, on("t"))
            with pytest.raises(ValueError, match="scope must have a thread_id"):
                chain.invoke({"question": "hello"}, {"configurable": {"tenant_id": "acme"}})
        assert len(server.account.exchanges) == 4

    def test_its_own_scope_where_the_run_names_none(self, server, manager):
        chain = chain_of(server, manager, thread_id="t")
        chain.invoke({"question": "hello"})
        assert len(manager.history(scope=SCOPE)) == 2

    async def test_in_a_node_of_a_graph_it_is_the_graphs(self, server, manager):
        context = ContextRunnable(manager)
        chain = RunnableLambda(lambda state: state["messages"]) | context | chat(server)

        def node(state: MessagesState) -> Any:
            return {"messages": [chain.invoke(state)]}

        inner = StateGraph(MessagesState)
        inner.add_node("model", node)
        inner.add_edge(START, "model")
        outer = StateGraph(MessagesState)
        outer.add_node("inner", inner.compile())
        outer.add_edge(START, "inner")
        flat, nested = (g.compile(checkpointer=InMemorySaver()) for g in (inner, outer))
        for text in ("I live in Oslo.", "Where do I live?"):
            await flat.ainvoke(asked(text), on("flat"))
            nested.invoke(asked(text, text), on("nested"))
        assert len(manager.history(scope=Scope(thread_id="flat"))) == 3
        assert len(manager.history(scope=Scope(thread_id="nested/I live in Oslo."))) == 3
        assert [role for role, _ in shown(server)] == ["user", "assistant", "user"]

    async def test_fifty_threads_at_once_do_not_meet(self, server, manager):
        chain = chain_of(server, manager)

        async def talk(number):
            for text in (f"My word is word{number}x.", "Again."):
                await chain.ainvoke({"question": text}, on(f"t{number}"))

        await asyncio.gather(*(talk(number) for number in range(50)))
        for exchange in server.account.exchanges:
            assert len({n for n in range(50) if f"word{n}x" in exchange.text}) == 1


class TestBadInput:
    @pytest.mark.parametrize(
        "given", [None, {"question": "hello"}, 3, [], [("system", "Be brief.")], [None], [b"x"]]
    )
    async def test_what_is_no_prompt_is_refused_and_nothing_recorded(self, manager, given):
        context = ContextRunnable(manager)
        with pytest.raises(ValueError, match="must"):
            context.invoke(given, on("t"))
        with pytest.raises(ValueError, match="must"):
            await context.ainvoke(given, on("t"))
        assert manager.history(scope=SCOPE) == []

    @pytest.mark.parametrize("answer", [None, {"a": 1}, 3])
    def test_what_is_no_answer_is_refused(self, manager, answer):
        with pytest.raises(ValueError, match="the answer must be a message or text"):
            (RunnableLambda(lambda _: answer) | ContextRunnable(manager).recorder).invoke(
                "hello", on("t")
            )

    @pytest.mark.parametrize("setting", [{"max_tokens": 0}, {"tools": "x"}, {"thread_id": ""}])
    def test_a_wrong_setting_is_refused(self, manager, setting):
        with pytest.raises(ValueError, match=next(iter(setting))):
            ContextRunnable(manager, **setting)

    def test_too_long_a_question_says_what_it_needs(self, manager):
        context = ContextRunnable(manager, max_tokens=50)
        with pytest.raises(ContextOverflowError) as caught:
            context.invoke(WORDS, on("t"))
        assert caught.value.needed_tokens > 50

    def test_odd_text_is_answered(self, manager):
        context = ContextRunnable(manager)
        for text in ("\ud800", "naïve 文 🦊", "x" * 100_000):
            view = context.invoke([HumanMessage(text)], on("t"))
            assert view[-1].content == text


class TestLogDown:
    async def test_the_chain_is_answered_all_the_same(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.LOG_REST_SECONDS", 0.0)
        log, events = Unreachable(tmp_path / "log.sqlite3"), []
        settings = {"model": "gpt-4o-mini", "tenant_id": "acme", "listeners": [events.append]}
        with ContextManager(log=log, **settings) as manager:
            chain = chain_of(server, manager)
            log.is_down = True
            assert chain.invoke({"question": "hello"}, on("t")).text == "You said: hello"
            streamed = [part async for part in chain.astream({"question": "hello"}, on("t"))]
            assert streamed
            assert "an unrecorded answer" in [
                event.fallback for event in events if isinstance(event, Degraded)
            ]
            with pytest.raises(LogError):
                manager.recent(scope=SCOPE)
            log.is_down = False
            chain.invoke({"question": "back"}, on("t"))
            assert [m.content for m in manager.history(scope=SCOPE)] == ["back", "You said: back"]
        log.close()


def test_recall_beside_it_in_a_chain(server, manager):
    manager.record([("human", "Mia is allergic to hazelnuts.")], scope=Scope(thread_id="old"))
    retriever = MemoryRetriever(manager=manager, scope=Scope(tenant_id="acme"), k=2)
    prompt = ChatPromptTemplate([("system", "Known: {known}"), ("human", "{question}")])
    context = ContextRunnable(manager)
    chain = (
        RunnablePassthrough.assign(
            known=(lambda given: given["question"])
            | retriever
            | (lambda found: "; ".join(document.page_content for document in found))
        )
        | prompt
        | context
        | chat(server)
        | context.recorder
    )
    chain.invoke({"question": "What is Mia allergic to?"}, on("t"))
    assert shown(server)[0] == ("system", "Known: Mia is allergic to hazelnuts.")
    assert isinstance(next(iter(chain.stream({"question": "Sure?"}, on("t")))), AIMessageChunk)
