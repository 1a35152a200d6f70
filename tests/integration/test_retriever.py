"""`MemoryRetriever` keeps LangChain's standard suite, and serves chains that answer from memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from langchain_tests.integration_tests import RetrieversIntegrationTests

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.memory import MemoryRetriever
from tests.hashed_words import HashedWords
from tests.integration.agents import agent_of, asked, chat, on
from tests.loopback_openai import LoopbackOpenAI, Reply, scripted, text_of

TENANT = Scope(tenant_id="acme")
START = datetime(2025, 5, 1, 9, tzinfo=UTC)
SAID = [
    ("human", "My daughter Mia is allergic to hazelnuts."),
    ("ai", "Noted: no hazelnuts for Mia."),
    ("human", "We fly to Lisbon on 7 May."),
    ("ai", "Have a good flight to Lisbon."),
    ("human", "The passport number is KX-4412."),
]


@pytest.fixture(scope="module", params=[None, HashedWords()], ids=["keywords", "embeddings"])
def manager(request):
    with ContextManager.open(None, model="gpt-4o-mini", embeddings=request.param) as manager:
        for thread in ("t", "u"):
            scope = Scope(tenant_id="acme", thread_id=thread)
            manager.record(SAID, scope=scope, at=START)
        hidden = Scope(tenant_id="globex", thread_id="t")
        manager.record([("human", "Our daughter Lea is allergic to peanuts.")], scope=hidden)
        yield manager


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server
        assert server.account.refused == []


class TestStandard(RetrieversIntegrationTests):
    """LangChain's own suite."""

    @pytest.fixture(autouse=True)
    def _manager(self, manager):
        type(self).manager = manager

    @property
    def retriever_constructor(self):
        return MemoryRetriever

    @property
    def retriever_constructor_params(self):
        return {"manager": self.manager, "scope": TENANT}

    @property
    def retriever_query_example(self):
        return "Is Mia allergic to hazelnuts, and when do we fly to Lisbon?"


class TestDocuments:
    async def test_they_say_where_they_come_from(self, manager):
        retriever = MemoryRetriever(manager=manager, scope=Scope(tenant_id="acme", thread_id="t"))
        for found in (
            retriever.invoke("What is Mia allergic to?"),
            await retriever.ainvoke("What is Mia allergic to?"),
        ):
            assert found[0].page_content == "My daughter Mia is allergic to hazelnuts."
            assert found[0].metadata["thread_id"] == "t"
            assert found[0].metadata["at"] == START
            assert found[0].metadata["role"] == "human"
            assert found[0].id == found[0].metadata["id"]
            assert {document.metadata["thread_id"] for document in found} == {"t"}

    async def test_batches_and_streams(self, manager):
        retriever = MemoryRetriever(manager=manager, scope=TENANT, k=2)
        asked_for = ["hazelnuts", "passport"]
        assert retriever.batch(asked_for) == await retriever.abatch(asked_for)
        assert [len(found) for found in retriever.batch(asked_for)] == [2, 2]
        assert next(iter(retriever.stream("Lisbon")))[0].page_content.count("Lisbon") == 1

    def test_another_tenants_memories_are_not_among_them(self, manager):
        found = MemoryRetriever(manager=manager, scope=TENANT, k=50).invoke("allergic to peanuts")
        assert all("peanuts" not in document.page_content for document in found)

    def test_max_tokens_bounds_them_together(self, manager):
        few = MemoryRetriever(manager=manager, scope=TENANT, max_tokens=40)
        many = MemoryRetriever(manager=manager, scope=TENANT)
        question = "Mia, hazelnuts, Lisbon, passport"
        assert 0 < len(few.invoke(question)) < len(many.invoke(question))

    @pytest.mark.parametrize("query", ["", "   ", None, 3])
    async def test_a_question_that_is_none_is_refused(self, manager, query):
        retriever = MemoryRetriever(manager=manager, scope=TENANT)
        with pytest.raises(ValueError, match="query must be text"):
            retriever.invoke(query)
        with pytest.raises(ValueError, match="query must be text"):
            await retriever.ainvoke(query)

    @pytest.mark.parametrize("k", [0, -1, "many"])
    def test_a_number_that_is_none_is_refused(self, manager, k):
        with pytest.raises(ValueError, match="k must be an int of at least 1"):
            MemoryRetriever(manager=manager, scope=TENANT).invoke("Lisbon", k=k)

    def test_a_missing_tenant_is_an_error(self, manager):
        with pytest.raises(ValueError, match="scope must have a tenant_id"):
            MemoryRetriever(manager=manager, scope=Scope()).invoke("Lisbon")

    @pytest.mark.parametrize("query", ["\ud800", "word " * 20_000, "文 🦊", "\0"])
    def test_odd_questions_are_answered(self, manager, query):
        assert isinstance(MemoryRetriever(manager=manager, scope=TENANT).invoke(query), list)


class TestChains:
    async def test_a_chain_that_answers_from_memory(self, server, manager):
        retriever = MemoryRetriever(manager=manager, scope=TENANT, k=2)
        prompt = ChatPromptTemplate(
            [("system", "Answer from this: {context}"), ("human", "{question}")]
        )
        chain = (
            {
                "context": retriever | (lambda found: [d.page_content for d in found]),
                "question": RunnablePassthrough(),
            }
            | prompt
            | chat(server)
            | StrOutputParser()
        )
        for answer in (
            chain.invoke("What is Mia allergic to?"),
            await chain.ainvoke("What is Mia allergic to?"),
            "".join(chain.stream("What is Mia allergic to?")),
        ):
            assert answer == "You said: What is Mia allergic to?"
        for exchange in server.account.exchanges:
            assert "hazelnuts" in text_of(exchange.messages[0]["content"])
            assert "peanuts" not in exchange.text

    def test_as_an_agents_tool(self, server, manager):
        retriever = MemoryRetriever(manager=manager, scope=TENANT, k=2)
        tool = create_retriever_tool(retriever, "remember", "Search what was said before.")
        server.rule = scripted(
            Reply(calls=(("remember", {"query": "passport number"}),)), Reply("KX-4412")
        )
        final = agent_of(server, tools=[tool]).invoke(asked("My passport?"), on("x"))
        assert "KX-4412" in final["messages"][-2].content
