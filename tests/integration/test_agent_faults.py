"""An agent goes on while what its memory rests on is stopped in mid-conversation."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.events import Degraded, Summarized
from langchain_ctxmgr.integrations.middleware import ContextMiddleware
from langchain_ctxmgr.memory import breaker
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.hashed_words import HashedWords
from tests.integration.agents import agent_of, asked, on
from tests.integration.service_faults import services
from tests.loopback_openai import LoopbackOpenAI
from tests.postgres import own_database
from tests.scripted_summarizer import ScriptedSummarizer, honest

SCOPE = Scope(tenant_id="acme", thread_id="t")
TURNS = 3
"""Before a fault, during it and after it."""
CAUGHT_UP_SECONDS = 60
PARTS = {"qdrant": "vectors", "redis": "cache", "postgres": "log", "words": "embeddings"}
"""What is stopped, and what events then tell of."""


class Words(HashedWords):
    """An embedding model that can be out of order."""

    is_down = False

    def embed_documents(self, texts):
        if self.is_down:
            raise ConnectionError("the model is gone")
        return super().embed_documents(texts)

    def embed_query(self, text):
        if self.is_down:
            raise ConnectionError("the model is gone")
        return super().embed_query(text)


class Conversation:
    """Turns of an agent on one thread; every one has to be answered."""

    def __init__(self, agent):
        self._agent = agent
        self.said: list[str] = []

    async def go_on(self):
        for _ in range(TURNS):
            number = len(self.said) // 2
            text = f"Parcel {number} is in the harbour. [use look_up(parcel {number})]"
            given = asked(text, f"q{number}")
            state = await self._agent.ainvoke(given, on("t"))
            answer = state["messages"][-1].text
            assert f"About parcel {number}" in answer
            self.said += [text, answer]


async def level(manager):
    """Ask on, as a host does, until nothing waits in the spool or for the index."""
    deadline = time.monotonic() + CAUGHT_UP_SECONDS
    while True:
        await manager.aprepare(scope=SCOPE, query="?", max_tokens=2_000)
        stats = await manager.astats(scope=SCOPE)
        history = await manager.ahistory(scope=SCOPE)
        if stats["index"]["behind"] == 0:
            return [message.text for message in history if message.type != "tool" and message.text]
        assert time.monotonic() < deadline, stats
        await asyncio.sleep(0.2)


# A client whose server is killed leaves sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_every_turn_is_answered_and_all_is_caught_up(monkeypatch, tmp_path):
    monkeypatch.setattr(breaker, "REST_SECONDS", 0.5)
    monkeypatch.setattr(breaker, "LOG_REST_SECONDS", 0.5)
    words, degraded = Words(), []

    def told(event):
        if isinstance(event, Degraded):
            degraded.append(event.part)

    with (
        services() as servers,
        own_database(servers.postgres.url) as database,
        LoopbackOpenAI() as server,
    ):
        with PostgresLog(database.url()):
            database.grant()
        async with ContextManager(
            log=database.url(database.app),
            vectors=servers.qdrant.url,
            cache=servers.redis.url,
            spool=Path(tmp_path, "spool.sqlite3"),
            model="gpt-4o-mini",
            embeddings=Embedder(words, "hashed-words"),
            listeners=[told],
        ) as manager:
            middleware = ContextMiddleware(manager, tenant_id="acme", max_tokens=2_000)
            agent = agent_of(server, middleware, checkpointer=InMemorySaver())
            talk = Conversation(agent)
            await talk.go_on()
            assert degraded == []
            for name, part in PARTS.items():
                service = getattr(servers, name, None)
                if service is None:
                    words.is_down = True
                else:
                    await asyncio.to_thread(service.kill)
                degraded.clear()
                await talk.go_on()
                assert set(degraded) == {part}
                words.is_down = False
                if service is not None:
                    await asyncio.to_thread(service.start)
                await asyncio.sleep(0.6)
                await talk.go_on()
                assert await level(manager) == talk.said
            verified = await manager.averify(scope=SCOPE)
            assert verified.ok, verified.problems
        assert server.account.refused == []


async def test_a_summarizer_that_hangs_holds_no_turn_up(tmp_path):
    go_on, degraded, summarized = threading.Event(), [], []

    def told(event):
        if isinstance(event, Degraded):
            degraded.append(event.part)
        elif isinstance(event, Summarized):
            summarized.append(event)

    def script(question):
        go_on.wait()
        return honest(question)

    summarizer = ChatSummarizer(
        model=ScriptedSummarizer(script=script),
        section_tokens=300,
        trigger_tokens=300,
        max_tokens=2_000,
        read_share=1.0,
        timeout=timedelta(seconds=1),
    )
    with LoopbackOpenAI() as server:
        async with ContextManager.open(
            tmp_path, model="gpt-4o-mini", summarizer=summarizer, listeners=[told]
        ) as manager:
            middleware = ContextMiddleware(manager, tenant_id="acme", max_tokens=1_000)
            talk = Conversation(agent_of(server, middleware, checkpointer=InMemorySaver()))
            try:
                deadline = time.monotonic() + CAUGHT_UP_SECONDS
                while not degraded:
                    await talk.go_on()
                    assert time.monotonic() < deadline, "the summarizer was not given up"
                assert summarized == []
            finally:
                go_on.set()
            await talk.go_on()
            summary = await manager.asummarize(scope=SCOPE)
            assert "parcel 0 is in the harbour" in summary.text.casefold()
            history = await manager.ahistory(scope=SCOPE)
            assert [m.text for m in history if m.type != "tool" and m.text] == talk.said
        assert set(degraded) == {"summarizer"}
        assert server.account.refused == []
