"""Turns while the message log cannot be reached."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.events import Degraded
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.sqlite import SqliteLog

SCOPE = Scope(tenant_id="acme", thread_id="t")
START = datetime(2025, 5, 1, 9, tzinfo=UTC)


class Unreachable(SqliteLog):
    """A log whose file goes away and comes back."""

    def __init__(self, path) -> None:
        super().__init__(path)
        self.is_down = False
        self.refused = 0
        self._database = _Switched(self, self._database)


class _Switched:
    def __init__(self, owner, database) -> None:
        self._owner, self._inner = owner, database

    def __getattr__(self, name):
        if self._owner.is_down and name != "close":
            self._owner.refused += 1
            raise LogError("the log is down")
        return getattr(self._inner, name)


@pytest.fixture
def log(tmp_path):
    log = Unreachable(tmp_path / "log.sqlite3")
    yield log
    log.close()


@pytest.fixture
def events():
    return []


@pytest.fixture
def manager(log, events, tmp_path, monkeypatch):
    monkeypatch.setattr("langchain_ctxmgr.memory.breaker.REST_SECONDS", 0.0)
    monkeypatch.setattr("langchain_ctxmgr.memory.breaker.LOG_REST_SECONDS", 0.0)
    with ContextManager(
        log=log,
        model="gpt-4o-mini",
        spool=tmp_path / "spool.sqlite3",
        listeners=[events.append],
    ) as manager:
        yield manager


def parts(events):
    return [event.part for event in events if isinstance(event, Degraded)]


class TestPrepare:
    async def test_the_question_is_answered_alone(self, manager, log, events):
        manager.record(HumanMessage("I live in Oslo.", id="m1"), scope=SCOPE)
        log.is_down = True
        asked = {"scope": SCOPE, "query": "Where do I live?", "system": "Be kind."}
        context = manager.prepare(**asked, max_tokens=200)
        assert context.messages == [SystemMessage("Be kind."), HumanMessage("Where do I live?")]
        assert context.tokens <= 200
        assert parts(events) == ["log"]
        assert (await manager.aprepare(**asked, max_tokens=200)).messages == context.messages
        log.is_down = False
        assert len(manager.prepare(**asked, max_tokens=200).messages) == 3

    async def test_what_the_caller_holds_is_shown(self, manager, log, events):
        held = [
            message
            for number in range(90)
            for message in (
                HumanMessage(
                    f"Note {number}: the code of my {number}th garden door is {number}x.",
                    id=f"q{number}",
                ),
                AIMessage(f"Noted {number}.", id=f"a{number}"),
            )
        ]
        asked = {"scope": SCOPE, "query": held[-2], "head": "q89", "held": held[:-1]}
        log.is_down = True
        context = manager.prepare(**asked, max_tokens=1_000)
        assert context.messages[-1] == held[-2]
        assert context.messages[-2] == held[-3]
        assert 300 < context.tokens <= 1_000
        assert parts(events) == ["log"]
        assert (await manager.aprepare(**asked, max_tokens=1_000)).messages == context.messages
        log.is_down = False
        assert manager.prepare(**asked, max_tokens=1_000).messages == context.messages
        manager.record(held[:-1], scope=SCOPE)
        assert manager.prepare(**asked, max_tokens=9_000).messages == held[:-1]

    def test_one_that_goes_away_under_a_view_is_not_waited_for_again(
        self, log, tmp_path, monkeypatch
    ):
        def goes_away(*_: object, **__: object) -> None:
            log.is_down = True
            raise LogError("the log is down")

        monkeypatch.setattr(log, "put_derived", goes_away)
        spool = tmp_path / "spool.sqlite3"
        question = HumanMessage("Where do I live?", id="q")
        with ContextManager(log=log, model="gpt-4o-mini", spool=spool) as manager:
            manager.record(HumanMessage("I live in Oslo.", id="m1"), scope=SCOPE)
            assert len(manager.prepare(scope=SCOPE, query=question, max_tokens=200).messages) == 2
            manager.record(question, scope=SCOPE)
            assert manager.prepare(scope=SCOPE, query="And now?", max_tokens=200).messages
        assert log.refused == 0

    def test_a_full_disk_leaves_the_history_to_be_read(self, tmp_path):
        log = SqliteLog(tmp_path / "log.sqlite3")
        with ContextManager(log=log, model="gpt-4o-mini") as manager:
            manager.record(HumanMessage("I live in Oslo.", id="m1"), scope=SCOPE)
            log._database.read(lambda c: c.execute("PRAGMA max_page_count = 1"))
            with pytest.raises(LogError, match="nothing was recorded: free disk space"):
                manager.record(HumanMessage("x" * 100_000), scope=SCOPE)
            asked = {"scope": SCOPE, "query": HumanMessage("Where do I live?", id="q")}
            assert len(manager.prepare(**asked, max_tokens=200).messages) == 2
            log._database.read(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
            assert manager.record(HumanMessage("I moved."), scope=SCOPE)
        log.close()

    def test_without_a_question_there_is_nothing_to_answer(self, manager, log):
        log.is_down = True
        with pytest.raises(LogError, match="down"):
            manager.prepare(scope=SCOPE, max_tokens=200)


class TestSpool:
    async def test_what_waited_is_recorded_in_order_and_once(self, manager, log, events):
        manager.record(HumanMessage("one", id="m1"), scope=SCOPE, at=START)
        log.is_down = True
        assert manager.record(AIMessage("two", id="m2"), scope=SCOPE, at=START) == []
        later = START + timedelta(minutes=3)
        assert await manager.arecord(HumanMessage("three"), scope=SCOPE, at=later) == []
        assert parts(events)[:1] == ["log"]
        log.is_down = False
        manager.record(AIMessage("four", id="m4"), scope=SCOPE)
        said = list(log.history(SCOPE))
        assert [record.message.content for record in said] == ["one", "two", "three", "four"]
        assert said[2].at == later
        assert log.verify().ok

    def test_a_replay_that_is_broken_off_records_nothing_twice(self, manager, log, monkeypatch):
        log.is_down = True
        manager.record([HumanMessage("one"), AIMessage("two")], scope=SCOPE)
        log.is_down = False
        spool = manager._recorder._spool
        remove = spool.remove

        def dying(entries: list[int]) -> None:
            monkeypatch.setattr(spool, "remove", remove)
            raise KeyboardInterrupt

        monkeypatch.setattr(spool, "remove", dying)
        with pytest.raises(KeyboardInterrupt):
            manager.prepare(scope=SCOPE, query="?", max_tokens=200)
        manager.prepare(scope=SCOPE, query="?", max_tokens=200)
        assert [message.content for message in manager.history(scope=SCOPE)] == ["one", "two"]
        assert spool.is_empty

    def test_forgetting_reaches_what_waits(self, manager, log, tmp_path):
        log.is_down = True
        manager.record(HumanMessage("gonecanary"), scope=SCOPE)
        log.is_down = False
        manager.forget(scope=SCOPE)
        assert manager.history(scope=SCOPE) == []
        assert b"gonecanary" not in (tmp_path / "spool.sqlite3").read_bytes()

    def test_without_a_spool_recording_fails_and_keeps_nothing(self, log):
        with ContextManager(log=log, model="gpt-4o-mini") as manager:
            log.is_down = True
            with pytest.raises(LogError, match="down"):
                manager.record(HumanMessage("x"), scope=SCOPE)
            log.is_down = False
            assert manager.history(scope=SCOPE) == []

    def test_more_than_a_turn_hands_over_keeps_its_order(self, manager, log, monkeypatch):
        monkeypatch.setattr("langchain_ctxmgr.recording.REPLAY_SECONDS", 0.0)
        monkeypatch.setattr("langchain_ctxmgr.storage.spool._ENTRIES", 1)
        said = [f"message {number}" for number in range(6)]
        log.is_down = True
        for text in said[:4]:
            manager.record(HumanMessage(text), scope=SCOPE)
        log.is_down = False
        assert manager.record(HumanMessage(said[4]), scope=SCOPE) == []
        for _ in range(4):
            manager.prepare(scope=SCOPE, query="?", max_tokens=200)
        assert len(manager.record(HumanMessage(said[5]), scope=SCOPE)) == 1
        assert [message.content for message in manager.history(scope=SCOPE)] == said

    def test_what_is_said_while_another_hands_over_waits_behind_it(self, manager, log):
        log.is_down = True
        manager.record(HumanMessage("one"), scope=SCOPE)
        log.is_down = False
        recorder = manager._recorder
        with recorder._replaying:
            assert manager.record(AIMessage("two"), scope=SCOPE) == []
        manager.prepare(scope=SCOPE, query="?", max_tokens=200)
        assert [message.content for message in manager.history(scope=SCOPE)] == ["one", "two"]

    async def test_forgetting_waits_for_what_is_handed_over(self, manager, log):
        log.is_down = True
        manager.record(HumanMessage("one"), scope=SCOPE)
        log.is_down = False
        with manager._recorder._replaying:
            forgetting = asyncio.create_task(manager.aforget(scope=SCOPE))
            await asyncio.sleep(0.1)
            assert not forgetting.done()
        await forgetting
        assert manager.history(scope=SCOPE) == []
        assert manager._recorder._spool.first() is None

    def test_an_append_that_seemed_to_fail_is_there_once(self, manager, log, monkeypatch):
        append = log.append

        def unheard(*args):
            monkeypatch.setattr(log, "append", append)
            append(*args)
            raise LogError("the connection was lost at the commit")

        monkeypatch.setattr(log, "append", unheard)
        assert manager.record(HumanMessage("without an id"), scope=SCOPE) == []
        manager.prepare(scope=SCOPE, query="?", max_tokens=200)
        assert [message.content for message in manager.history(scope=SCOPE)] == ["without an id"]


class TestATurn:
    def test_asks_a_log_that_is_down_once(self, log, tmp_path):
        with ContextManager(
            log=log,
            vectors=EdgeVectorStore(tmp_path / "vectors"),
            model="gpt-4o-mini",
            spool=tmp_path / "spool.sqlite3",
        ) as manager:
            manager.record(HumanMessage("hello"), scope=SCOPE)
            log.is_down = True
            for _ in range(3):
                manager.record(HumanMessage("I live in Oslo."), scope=SCOPE)
                manager.prepare(scope=SCOPE, query="Where do I live?", max_tokens=200)
            assert log.refused == 1


class TestUrls:
    @pytest.mark.parametrize(
        "setting",
        [{"log": "mysql://secret@host"}, {"vectors": "grpc://secret@host"}, {"log": ""}],
    )
    def test_a_url_of_another_kind_is_refused_and_not_repeated(self, setting, log):
        with pytest.raises(ValueError, match="must be") as caught:
            ContextManager(**{"log": log, **setting})
        assert "secret" not in str(caught.value)
