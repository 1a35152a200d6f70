"""Nodes, chains, histories, the retriever and telemetry need LangChain's core alone.

`langchain` (and, but for the node's graph, `langgraph`) is barred in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

BEGINNING = """
    import asyncio, sys
    sys.modules.update(dict.fromkeys({barred!r}))
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_ctxmgr import ContextManager, MemoryRetriever, Scope

    answers = ["Noted.", "Oslo.", "Still Oslo."]
    model = GenericFakeChatModel(messages=iter(map(AIMessage, answers)))
    manager = ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme")
    scope = Scope(thread_id="t")
    config = {{"configurable": {{"thread_id": "t"}}}}
"""
CHAIN = """
    from langchain_ctxmgr.integrations.history import ContextChatMessageHistory
    from langchain_ctxmgr.integrations.runnable import ContextRunnable
    from langchain_ctxmgr.integrations.telemetry import telemetry

    telemetry()
    context = ContextRunnable(manager)
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | context | model | context.recorder
    chain.invoke({"question": "I live in Oslo."}, config)
    asyncio.run(chain.ainvoke({"question": "Where do I live?"}, config))
    print("".join(part.text for part in chain.stream({"question": "Still?"}, config)))
    print(len(ContextChatMessageHistory(manager, scope).messages))
    found = MemoryRetriever(manager=manager, scope=scope).invoke("Where do I live?")
    print(found[0].page_content)
"""
NODE = """
    from langgraph.graph import START, MessagesState, StateGraph
    from langchain_ctxmgr.integrations.nodes import ContextNode
    from langchain_ctxmgr.integrations.memory_tools import memory_tools

    class State(MessagesState):
        llm_input_messages: list

    graph = StateGraph(State)
    graph.add_node("context", ContextNode(manager))
    graph.add_node("model", lambda s: {"messages": [model.invoke(s["llm_input_messages"])]})
    graph.add_node("recorded", ContextNode(manager, output_key=None))
    graph.add_edge(START, "context")
    graph.add_edge("context", "model")
    graph.add_edge("model", "recorded")
    graph = graph.compile()
    graph.invoke({"messages": [("user", "I live in Oslo.")]}, config)
    asyncio.run(graph.ainvoke({"messages": [("user", "Where do I live?")]}, config))
    final = graph.invoke({"messages": [("user", "Still?")]}, config)
    print(final["messages"][-1].text)
    print(len(final["llm_input_messages"]) + 1)
    print(manager.recall("Where do I live?", scope=scope)[0].text)
"""


@pytest.mark.parametrize(
    ("barred", "code"),
    [(["langchain", "langgraph"], CHAIN), (["langchain"], CHAIN), (["langchain"], NODE)],
    ids=["chain-core-alone", "chain", "node"],
)
def test_it_works(barred, code):
    whole = dedent(BEGINNING).format(barred=barred) + dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", whole], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Still Oslo.", "6", "I live in Oslo."]


@pytest.mark.parametrize(
    ("missing", "module", "extra"),
    [
        ("langchain", "middleware", "agents"),
        ("langgraph", "middleware", "agents"),
        ("langgraph.store.qdrant", "store", "store"),
        ("qdrant_client", "store", "store"),
    ],
)
def test_a_host_that_is_missing_is_named_with_its_extra(missing, module, extra):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"try:\n    import langchain_ctxmgr.integrations.{module}\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"langchain-ctxmgr[{extra}]" in done.stdout
