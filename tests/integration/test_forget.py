"""Single messages are forgotten everywhere; what was said around them stays, and verifies."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope, retention
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.postgres_append import floor_prefix
from tests.hashed_words import HashedWords
from tests.loopback_qdrant import LoopbackQdrant
from tests.postgres import own_database
from tests.services import redis_url

ANA = Scope(tenant_id="acme", thread_id="t", user_id="ana")
BEN = Scope(tenant_id="acme", thread_id="t", user_id="ben")
THREAD = Scope(tenant_id="acme", thread_id="t")
OTHER = Scope(tenant_id="globex", thread_id="t", user_id="ana")
START = datetime(2025, 5, 1, 9, tzinfo=UTC)
MODEL = {"model": "gpt-4o-mini", "embeddings": Embedder(HashedWords(), "hashed-words")}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def own(folder):
    with ContextManager.open(folder, **MODEL) as manager:
        yield manager


@pytest.fixture(params=["folder", "servers"])
def manager(request, folder):
    if request.param == "folder":
        yield request.getfixturevalue("own")
        return
    with own_database() as database, LoopbackQdrant() as qdrant:
        urls = {"log": database.url(), "vectors": qdrant.url, "cache": redis_url()}
        with ContextManager(**urls, **MODEL) as manager:
            yield manager


def say(manager, *texts, scope=ANA, first=0):
    kinds = (HumanMessage, AIMessage)
    said = [kinds[n % 2](text, id=f"{scope.user_id}{first + n}") for n, text in enumerate(texts)]
    at = [START + timedelta(minutes=first + n) for n in range(len(said))]
    manager.record(said, scope=scope, at=at)


def shown(manager, scope=THREAD):
    return [message.text for message in manager.history(scope=scope)]


def recalled(manager, question, scope=THREAD):
    return [memory.text for memory in manager.recall(question, scope=scope)]


def bytes_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


class TestParts:
    def test_messages_by_their_ids(self, manager):
        say(manager, "My safe opens with 4711.", "Noted.", "I like tea.", "So do I.")
        say(manager, "My safe opens with 4711.", scope=OTHER)
        manager.prepare(scope=ANA, query="How does the safe open?", max_tokens=500)
        receipt = manager.forget(scope=THREAD, message_ids=["ana0", "ana1", "none"])
        assert (receipt.messages, receipt.vectors) == (2, 2)
        assert shown(manager) == ["I like tea.", "So do I."]
        assert "4711" not in str(recalled(manager, "How does the safe open?"))
        context = manager.prepare(scope=ANA, query="How does the safe open?", max_tokens=500)
        assert "4711" not in str(context.messages)
        assert manager.stats(scope=THREAD)["log"]["records"] == 2
        assert manager.stats(scope=Scope(tenant_id="acme"))["index"] == {"behind": 0}
        assert recalled(manager, "How does the safe open?", OTHER) == ["My safe opens with 4711."]
        assert manager.verify().ok
        assert manager.forget(scope=THREAD, message_ids=["ana0"]).messages == 0

    def test_what_a_host_records_again_stays_forgotten(self, manager):
        say(manager, "My safe opens with 4711.", "Noted.")
        manager.forget(scope=THREAD, message_ids=["ana0"])
        say(manager, "My safe opens with 4711.", "Noted.", "I like tea.")
        assert shown(manager) == ["Noted.", "I like tea."]
        assert recalled(manager, "What do I like, tea?")[0] == "I like tea."
        assert manager.verify().ok

    def test_a_user_goes_from_a_thread_that_others_share(self, manager):
        say(manager, "I live in Oslo.", "A fine city.")
        say(manager, "I live in Bergen.", scope=BEN, first=2)
        say(manager, "I live in Oslo.", scope=OTHER)
        own = Scope(tenant_id="acme", thread_id="u", user_id="ana")
        say(manager, "Oslo is cold.", scope=own)
        receipt = manager.forget(scope=Scope(tenant_id="acme", user_id="ana"))
        assert (receipt.messages, receipt.vectors) == (3, 3)
        assert shown(manager) == ["I live in Bergen."]
        assert shown(manager, own) == []
        assert recalled(manager, "Oslo?", Scope(tenant_id="acme")) == ["I live in Bergen."]
        assert shown(manager, OTHER) == ["I live in Oslo."]
        assert manager.verify().ok

    def test_a_user_goes_from_one_thread(self, manager):
        say(manager, "I live in Oslo.")
        say(manager, "I live in Bergen.", scope=BEN, first=2)
        assert manager.forget(scope=BEN).messages == 1
        assert shown(manager) == ["I live in Oslo."]

    async def test_a_time(self, manager):
        say(manager, "One.", "Two.", "Three.", "Four.")
        minute = timedelta(minutes=1)
        receipt = await manager.aforget(
            scope=Scope(tenant_id="acme"), since=START + minute, until=START + 3 * minute
        )
        assert receipt.messages == 2
        assert shown(manager) == ["One.", "Four."]

    def test_what_holds_a_text(self, manager):
        call = {"name": "pay", "args": {"to": "ACME Bank", "card": [{"no": "4711"}]}, "id": "c"}
        say(manager, "Pay with card 4711, please.", "Paid.", "Thank you.")
        manager.record(AIMessage("", tool_calls=[call], id="call"), scope=ANA)
        say(manager, "Card 4711 is mine.", scope=OTHER)
        assert manager.forget(scope=Scope(tenant_id="acme"), matching="4711").messages == 2
        assert shown(manager) == ["Paid.", "Thank you."]
        assert manager.forget(scope=THREAD, matching="THANK").messages == 1
        assert shown(manager, OTHER) == ["Card 4711 is mine."]
        assert manager.verify().ok


def test_a_record_that_cannot_be_read_may_be_meant(own, folder):
    say(own, "One.", "Two.")
    with closing(sqlite3.connect(folder / "log.sqlite3")) as other:
        other.execute("UPDATE contents SET payload = x'00' WHERE seq = 1")
        other.commit()
    with pytest.raises(StorageError, match=r"records \[1\] of .* cannot be read"):
        own.forget(scope=THREAD, matching="two")
    assert own.forget(scope=Scope(tenant_id="acme", user_id="ana")).messages == 2


def test_what_an_append_under_way_holds_back_is_waited_for(monkeypatch):
    monkeypatch.setattr(retention, "PATIENCE", timedelta(seconds=0.2))
    with own_database() as database, ContextManager(log=database.url(), **MODEL) as manager:
        say(manager, "One.")
        floor = floor_prefix("ctxmgr", "acme") << 40
        with database.connect() as other, other.transaction():
            other.execute("SELECT pg_advisory_xact_lock_shared(%s)", (floor,))
            say(manager, "Canary.", first=5)
            with pytest.raises(StorageError, match="being recorded"):
                manager.forget(scope=THREAD, matching="canary")
        assert manager.forget(scope=THREAD, matching="canary").messages == 1


def test_nothing_of_it_is_left_in_any_file(own, folder):
    say(own, *(f"Canary{n} sang, said zebra{n}." for n in range(200)))
    say(own, "Bergen is wet.", scope=BEN, first=300)
    own.prepare(scope=ANA, query="Which canary17 sang?", max_tokens=500)
    assert b"anary17" in bytes_in(folder)
    own.forget(scope=Scope(tenant_id="acme", user_id="ana"))
    own.close()
    left = bytes_in(folder)
    assert b"anary" not in left
    assert b"zebra" not in left
    with ContextManager.open(folder, **MODEL) as manager:
        assert shown(manager) == ["Bergen is wet."]
        assert manager.verify().ok


def test_what_waits_for_the_log_is_handed_over_first(tmp_path):
    with own_database() as database:
        spool = tmp_path / "spool.sqlite3"
        with ContextManager(log=database.url(), spool=spool, **MODEL) as manager:
            say(manager, "One.")
            manager._recorder._breaker.failed(StorageError("gone"))
            say(manager, "Canary.", first=5)
            assert shown(manager) == ["One."]
            assert manager.forget(scope=THREAD, matching="canary").messages == 1
            assert shown(manager) == ["One."]
    assert b"anary" not in bytes_in(tmp_path)


@pytest.mark.parametrize(
    ("scope", "given", "message"),
    [
        (Scope(tenant_id="acme"), {"message_ids": ["a"]}, "thread_id"),
        (THREAD, {"message_ids": "a"}, "message_ids"),
        (THREAD, {"message_ids": []}, "message_ids"),
        (THREAD, {"message_ids": [5]}, "message_ids"),
        (THREAD, {"since": datetime(2025, 1, 1)}, "since"),  # noqa: DTZ001 - that is the mistake
        (THREAD, {"until": "today"}, "until"),
        (THREAD, {"matching": " "}, "matching"),
        (THREAD, {"memory": "x", "matching": "y"}, "memory"),
        (Scope(thread_id="t"), {"message_ids": ["a"]}, "tenant_id"),
    ],
)
def test_what_is_not_meant_so_is_refused(own, scope, given, message):
    say(own, "One.")
    with pytest.raises(ValueError, match=message):
        own.forget(scope=scope, **given)
    assert shown(own) == ["One."]


def test_the_receipt_says_what_went(own):
    say(own, "One.", "Two.")
    receipt = own.forget(scope=THREAD, message_ids=["ana1"])
    assert receipt.scope == THREAD
    assert (receipt.messages, receipt.vectors, receipt.derived) == (1, 1, 0)
