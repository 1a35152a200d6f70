"""A manager over servers: three URLs in place of a folder, and everything else the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage
from typer.testing import CliRunner

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.cli import app
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.embeddings import Embedder
from tests.loopback_qdrant import LoopbackQdrant
from tests.postgres import own_database
from tests.services import redis_url

SCOPE = Scope(tenant_id="acme", thread_id="t", user_id="ana")
START = datetime(2025, 5, 1, 9, tzinfo=UTC)
FACT = "Mia is allergic to hazelnuts."


@pytest.fixture(scope="module")
def database():
    with own_database() as database:
        yield database


@pytest.fixture
def servers(database):
    with LoopbackQdrant() as qdrant:
        yield {"log": database.url(), "vectors": qdrant.url, "cache": redis_url()}
    database.empty()


def small_talk(manager, turns, scope=SCOPE):
    said = [
        (HumanMessage if n % 2 == 0 else AIMessage)(f"Small talk number {n}.", id=f"s{n}")
        for n in range(turns)
    ]
    at = [START + timedelta(minutes=n + 1) for n in range(turns)]
    manager.record(said, scope=scope, at=at)


class TestManager:
    def test_it_prepares_what_a_folder_would(self, servers, tmp_path):
        clock = lambda: START + timedelta(days=2)  # noqa: E731 - read where it is used
        model = Embedder(DeterministicFakeEmbedding(size=8), "fake")
        given = {"model": "gpt-4o-mini", "embeddings": model, "clock": clock}
        prepared = []
        for manager in (
            ContextManager.open(tmp_path, **given),
            ContextManager(**servers, **given),
        ):
            with manager:
                manager.record(HumanMessage(FACT, id="fact"), scope=SCOPE, at=START)
                small_talk(manager, 200)
                question = HumanMessage("What is Mia allergic to?", id="q")
                context = manager.prepare(scope=SCOPE, query=question, max_tokens=500)
                prepared.append(context.messages)
                assert FACT in str(context.messages[-1].content)
                assert manager.stats(scope=Scope(tenant_id="acme"))["index"] == {"behind": 0}
                assert manager.verify().ok
        assert prepared[0] == prepared[1]

    async def test_two_workers_share_everything(self, servers):
        model = "gpt-4o-mini"
        async with (
            ContextManager(**servers, model=model) as one,
            ContextManager(**servers, model=model) as other,
        ):
            await one.arecord(HumanMessage(FACT, id="fact"), scope=SCOPE, at=START)
            found = await other.arecall("hazelnuts", scope=SCOPE, k=1)
            assert [memory.id for memory in found] == ["fact"]
            receipt = await other.aforget(scope=Scope(tenant_id="acme", thread_id="t"))
            assert (receipt.messages, receipt.vectors) == (1, 1)
            assert await one.arecall("hazelnuts", scope=SCOPE) == []
            assert await one.ahistory(scope=SCOPE) == []

    def test_what_was_opened_is_closed_and_says_so(self, servers):
        manager = ContextManager(**servers, model="gpt-4o-mini")
        manager.record(HumanMessage("x"), scope=SCOPE)
        manager.close()
        manager.close()
        with pytest.raises(StorageError, match="closed"):
            manager.history(scope=SCOPE)


class TestCommandLine:
    @pytest.fixture
    def ctxmgr(self, servers, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def invoke(*arguments, code=0, **changed):
            options = {**servers, **changed}
            named = [part for name, url in options.items() for part in (f"--{name}", url)]
            result = CliRunner().invoke(app, [*named, *arguments, "--json"])
            assert result.exit_code == code, result.output
            return json.loads(result.stdout)

        return invoke

    def test_commands_go_to_the_servers(self, ctxmgr, tmp_path):
        chat = [{"role": "user", "content": FACT}, {"role": "assistant", "content": "Noted."}]
        (tmp_path / "chat.json").write_text(json.dumps(chat), encoding="utf-8")
        ctxmgr("record", "chat.json", "--tenant", "acme", "--thread", "t")
        assert ctxmgr("recall", "hazelnuts", "--tenant", "acme")[0]["text"] == FACT
        assert ctxmgr("verify") == {"records": 2, "ok": True, "problems": []}
        assert ctxmgr("reindex") == {"indexed": 2, "remaining": 0}
        assert not (tmp_path / "ctxmgr-data").exists()

    def test_the_doctor_asks_each_server(self, ctxmgr, database):
        def servers_of(checks):
            return {c["name"]: c for c in checks if c["name"].endswith(" server")}

        well = servers_of(ctxmgr("doctor"))
        assert {name: check["state"] for name, check in well.items() if "server" in name} == {
            "log server": "ok",
            "vectors server": "ok",
            "cache server": "ok",
            "Qdrant server": "ok",
        }
        nobody = "postgresql://ana:made-up@127.0.0.1:9/none"
        ill = servers_of(
            ctxmgr(
                "doctor",
                log=nobody,
                vectors="http://127.0.0.1:9",
                cache="redis://:made-up@127.0.0.1:9",
                code=1,
            )
        )
        assert ill["log server"]["state"] == "broken"
        assert ill["vectors server"]["state"] == ill["cache server"]["state"] == "degraded"
        assert "made-up" not in json.dumps(ill)
        root = servers_of(ctxmgr("doctor", log=database.superuser_url()))
        assert "row-level security does not hold" in root["log server"]["mend"]
