"""`ContextNode` in LangGraph's graphs, asked over HTTP, and what checkpointers bring back."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import Command, Send, interrupt

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.integrations.nodes import ContextNode
from tests.integration.agents import TOOLS, asked, chat, on, said
from tests.integration.test_agent import TOOLS_QUESTION, scope, shown
from tests.loopback_openai import LoopbackOpenAI


class State(MessagesState):
    llm_input_messages: list[AnyMessage]


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme") as manager:
        yield manager


def graph_of(server, node, *, state=State, answer=None, **settings):
    """context → model: the model is asked with what the node shows."""
    model = chat(server)

    def default(current) -> Any:
        return {"messages": [model.invoke(current["llm_input_messages"])]}

    graph = StateGraph(state)
    graph.add_node("context", node)
    graph.add_node("model", answer or default)
    graph.add_edge(START, "context")
    graph.add_edge("context", "model")
    return graph.compile(**settings)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
class TestPreModelHook:
    async def test_every_call_is_shown_a_view_of_its_own(self, server, manager):
        hook = ContextNode(manager, max_tokens=900, tools=TOOLS)
        keeps = ContextNode(manager, output_key=None)
        agent = create_react_agent(
            chat(server),
            list(TOOLS),
            pre_model_hook=hook,
            post_model_hook=keeps,
            checkpointer=InMemorySaver(),
        )
        bare = create_react_agent(chat(server), list(TOOLS), checkpointer=InMemorySaver())
        for number in range(10):
            given = asked(f"Note {number}: " + "some words " * 40, f"q{number}")
            final = agent.invoke(given, on("t"))
            bare.invoke(given, on("bare"))
        for turn in (agent.invoke, agent.ainvoke):
            given = asked(f"Note 3?\n\n{TOOLS_QUESTION}")
            final = turn(given, on("t"))
            final = await final if turn == agent.ainvoke else final
            expected = bare.invoke(given, on("bare"))
            assert server.account.exchanges[-3].prompt_tokens <= 1_000
        assert said(final["messages"]) == said(expected["messages"])
        assert manager.history(scope=scope()) == final["messages"]
        recalled = next(e for e in server.account.exchanges if "<recalled" in e.text)
        assert recalled.prompt_tokens <= 1_000


class TestGraphs:
    def test_custom_keys_and_messages_without_ids(self, server, manager):
        class Own(TypedDict):
            talk: Annotated[list[AnyMessage], operator.add]
            view: list[AnyMessage]

        node = ContextNode(manager, messages_key="talk", output_key="view", system="Be brief.")

        def answer(state: Own) -> Any:
            reply = chat(server).invoke(state["view"])
            return {"talk": [AIMessage(reply.text)]}

        graph = graph_of(server, node, state=Own, answer=answer, checkpointer=InMemorySaver())
        for text in ("I live in Oslo.", "I live in Oslo.", "Where do I live?"):
            final = graph.invoke({"talk": [HumanMessage(text)]}, on("t"))
        assert shown(server)[0] == ("system", "Be brief.")
        assert len(shown(server)) == 6
        history = manager.history(scope=scope())
        assert [m.content for m in history] == [m.content for m in final["talk"][:-1]]
        assert all(message.id is None for message in final["talk"])

    def test_a_state_that_is_an_object(self, server, manager):
        @dataclass
        class Own:
            messages: list[AnyMessage]
            llm_input_messages: list[AnyMessage] | None = None

        def answer(state: Own) -> Any:
            return {"messages": [*state.messages, *state.llm_input_messages]}

        graph = graph_of(server, ContextNode(manager), state=Own, answer=answer)
        final = graph.invoke({"messages": [("user", "hello")]}, on("t"))
        assert final["messages"][-1].text == "hello"

    def test_a_graph_waits_for_a_human_and_goes_where_a_command_says(self, server, manager):
        def ask(state: State) -> Any:
            said = interrupt("sure?")
            return Command(
                update={"messages": [HumanMessage(f"I am {said}.")]}, goto="context_again"
            )

        graph = StateGraph(State)
        graph.add_node("context", ContextNode(manager))
        graph.add_node("ask", ask, destinations=("context_again",))
        graph.add_node("context_again", ContextNode(manager))
        graph.add_node(
            "model", lambda s: {"messages": chat(server).invoke(s["llm_input_messages"])}
        )
        graph.add_edge(START, "context")
        graph.add_edge("context", "ask")
        graph.add_edge("context_again", "model")
        graph = graph.compile(checkpointer=InMemorySaver())
        assert graph.invoke(asked("Delete it."), on("t"))["__interrupt__"]
        graph.invoke(Command(resume="sure"), on("t"))
        assert shown(server) == [("user", "Delete it."), ("user", "I am sure.")]
        assert len(manager.history(scope=scope())) == 2

    def test_send_gives_each_worker_a_view_of_its_own(self, server, manager):
        class Work(TypedDict):
            messages: list[AnyMessage]

        class All(TypedDict):
            topics: list[str]
            answers: Annotated[list[str], operator.add]

        inner = graph_of(server, ContextNode(manager))

        def work(given: Work) -> Any:
            return {"answers": [inner.invoke(given)["messages"][-1].text]}

        graph = StateGraph(All)
        graph.add_node("work", work)
        graph.add_conditional_edges(
            START,
            lambda s: [Send("work", {"messages": [HumanMessage(t, id=t)]}) for t in s["topics"]],
            ["work"],
        )
        topics = [f"topic {number}" for number in range(6)]
        final = graph.compile().invoke({"topics": topics, "answers": []}, on("t"))
        assert sorted(final["answers"]) == [f"You said: {topic}" for topic in topics]
        assert all(len(exchange.messages) == 1 for exchange in server.account.exchanges)
        assert [m.text for m in manager.history(scope=scope("t/topic 3"))] == ["topic 3"]

    def test_a_subgraph_keeps_its_conversation_from_turn_to_turn(self, server, manager):
        inner = graph_of(server, ContextNode(manager))
        outer = StateGraph(MessagesState)
        outer.add_node("inner", inner)
        outer.add_edge(START, "inner")
        outer.add_edge("inner", END)
        outer = outer.compile(checkpointer=InMemorySaver())
        for number in range(3):
            outer.invoke(asked(f"Note {number}.", f"q{number}"), on("t"))
        assert len(shown(server)) == 5
        assert len(manager.history(scope=scope("t/q0"))) == 5

    async def test_the_functional_api(self, server, manager):
        node = ContextNode(manager)

        @entrypoint(checkpointer=InMemorySaver())
        async def talk(text: str, *, previous: list | None = None) -> Any:
            messages = [*(previous or []), HumanMessage(text)]
            shown = (await node.ainvoke({"messages": messages}))["llm_input_messages"]
            reply = await chat(server).ainvoke(shown)
            return entrypoint.final(value=reply.text, save=[*messages, AIMessage(reply.text)])

        await talk.ainvoke("I live in Oslo.", on("t"))
        await talk.ainvoke("Where do I live?", on("t"))
        assert [role for role, _ in shown(server)] == ["user", "assistant", "user"]
        assert len(manager.history(scope=scope())) == 3

    def test_a_missing_tenant_is_an_error(self, server):
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            graph = graph_of(server, ContextNode(manager))
            with pytest.raises(ValueError, match="scope must have a tenant_id"):
                graph.invoke(asked("hello"), on("t"))
            graph.invoke(asked("hello"), on("t", tenant_id="acme"))

    @pytest.mark.parametrize("setting", [{"messages_key": ""}, {"max_tokens": 0}, {"system": 3}])
    def test_a_wrong_setting_is_refused(self, manager, setting):
        with pytest.raises(ValueError, match=next(iter(setting))):
            ContextNode(manager, **setting)


def test_a_scope_without_a_graph(manager):
    node = ContextNode(manager, thread_id="t")
    update = node.invoke({"messages": [("user", "hello")]})
    assert [m.text for m in update["llm_input_messages"]] == ["hello"]
    assert len(manager.history(scope=Scope(thread_id="t"))) == 1
