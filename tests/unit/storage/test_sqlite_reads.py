"""Reads find their rows by an index, however long the thread."""

from __future__ import annotations

import sqlite3

import pytest

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import sqlite_search
from langchain_ctxmgr.storage.message_log import Weighing
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.sqlite_audit import delete
from tests.contracts.message_log import ALICE, BOB, NOON, OTHER, draft, talk


@pytest.fixture
def log(tmp_path):
    with SqliteLog(tmp_path / "log.db") as log:
        log.append(BOB, talk(40))
        log.append(ALICE, talk(40))
        log.append(ALICE, [draft("edited", "m3"), draft("fork", "f")])
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        yield log


def statements(log, monkeypatch, ask):
    """What SQLite runs while `ask` is answered."""
    seen = []
    read = log._database.read

    def traced(work):
        def run(connection):
            connection.set_trace_callback(seen.append)
            try:
                return work(connection)
            finally:
                connection.set_trace_callback(None)

        return read(run)

    with monkeypatch.context() as patch:
        patch.setattr(log._database, "read", traced)
        patch.setattr(log._database, "write", traced)
        ask(log)
    return [s for s in seen if s.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))]


BRANCH_READS = {
    "read": lambda log, line: log.read(line, from_slot=3, before_slot=30),
    "tail": lambda log, line: log.read(line, newest_first=True, limit=5, roles=("human",)),
    "locate": lambda log, line: log.locate(line, 35),
    "find": lambda log, line: log.find(line, "m1"),
    "top": lambda log, line: log.top(line, before_slot=30, limit=5),
    "revised": lambda log, line: log.revised(line, before_slot=30),
}
READS = {
    "branch": lambda log: log.branch(ALICE),
    "head": lambda log: log.branch(ALICE, head="m3"),
    "fetch": lambda log: log.fetch(ALICE, [41, 42]),
    "turns": lambda log: log.turns(ALICE, [41, 42]),
    "near turns": lambda log: log.turns(ALICE, [41, 42], around=2, known=log.turns(ALICE, [41])),
    "tenant turns": lambda log: log.turns(Scope(tenant_id="acme"), [41, 42]),
    "user turns": lambda log: log.turns(Scope(tenant_id="acme", user_id="alice"), [41], around=2),
    "user search": lambda log: log.search(Scope(tenant_id="acme", user_id="alice"), [1], limit=3),
    "search": lambda log: log.search(ALICE, [1, 2], limit=3),
    "tail search": lambda log: log.search(ALICE, [1, 2], limit=3, after_seq=60),
    "pending": lambda log: log.pending("acme", 50, 5),
    "last": lambda log: log.last_seq("acme"),
    "marks": lambda log: log.marks("acme", "edge"),
    "erasures": lambda log: log.erasures("acme", 0),
    "derived": lambda log: log.get_derived(ALICE, "choice", "k"),
    "stated": lambda log: log.stated(ALICE),
    "new stated": lambda log: log.stated(ALICE, after_seq=30),
    "stated count": lambda log: log.stated_count(Scope(tenant_id="acme", user_id="alice")),
    "tenant stated": lambda log: log.stated(Scope(tenant_id="acme")),
    "user stated": lambda log: log.stated(Scope(tenant_id="acme", user_id="alice")),
    "weighed": lambda log: log.weighed(ALICE),
    "weighed beside": lambda log: log.weighed(ALICE, beside="t1/memories/"),
    "tenant weighed": lambda log: log.weighed(Scope(tenant_id="acme")),
    "user weighed": lambda log: log.weighed(Scope(tenant_id="acme", user_id="alice")),
    "weigh": lambda log: log.weigh(ALICE, "m3", Weighing(NOON, weight=2.0)),
    "history": lambda log: list(log.history(ALICE)),
    "stats": lambda log: log.tenant_stats(ALICE),
    "append": lambda log: log.append(ALICE, talk(1, first=90)),
    "set marks": lambda log: log.set_marks("acme", "edge", words_seq=2, dense_seq=1),
    "set erased": lambda log: log.set_erased("acme", "edge", 1),
    "put stated": lambda log: log.put_stated("acme", {41: b"s"}, after_seq=40, until_seq=41),
    "put": lambda log: log.put_derived(log.branch(ALICE), "choice", "k2", b"y"),
}


@pytest.mark.parametrize("name", [*READS, *BRANCH_READS])
def test_no_read_scans_a_table(log, monkeypatch, name, tmp_path):
    line = log.branch(ALICE)
    ask = READS.get(name) or (lambda log: BRANCH_READS[name](log, line))
    ran = statements(log, monkeypatch, ask)
    assert ran
    connection = sqlite3.connect(tmp_path / "log.db")
    try:
        for statement in ran:
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
                scans = step.startswith("SCAN") and "VIRTUAL TABLE" not in step
                assert not scans or step == "SCAN CONSTANT ROW", (statement, step)
                assert "TEMP B-TREE" not in step, (statement, step)
    finally:
        connection.close()


@pytest.mark.parametrize("name", ["branch", "head", "search", *BRANCH_READS])
def test_what_others_erase_meanwhile_does_not_change_an_answer(log, monkeypatch, name, tmp_path):
    line = log.branch(ALICE)
    ask = READS.get(name) or (lambda log: BRANCH_READS[name](log, line))
    before = ask(log)
    read, selects = log._database.read, []

    def between(statement):
        selects.append(statement)
        if len([s for s in selects if s.startswith("SELECT")]) == 2:
            other._database.write(lambda connection: delete(connection, ALICE, ()))

    def interrupted(work):
        def run(connection):
            connection.set_trace_callback(between)
            try:
                return work(connection)
            finally:
                connection.set_trace_callback(None)

        return read(run)

    with SqliteLog(tmp_path / "log.db") as other:
        monkeypatch.setattr(log._database, "read", interrupted)
        assert ask(log) == before
    assert log.tenant_stats(ALICE).records == 0


class TestSearchOverManyMatches:
    def test_the_rarest_term_wins_and_scores_agree_with_an_exhaustive_search(
        self, log, monkeypatch
    ):
        drafts = [draft(str(n), f"s{n}", terms=(1, n % 7 + 10, 1_000 + n)) for n in range(120)]
        log.append(OTHER, drafts)
        exhaustive = log.search(OTHER, [1, 12, 1_037], limit=120)
        monkeypatch.setattr(sqlite_search, "MAX_SCORED", 30)
        hits = log.search(OTHER, [1, 12, 1_037], limit=10)
        assert [record.message.content for record in log.fetch(OTHER, [hits[0].seq])] == ["37"]
        assert [hit.seq for hit in hits] == [hit.seq for hit in exhaustive[:10]]
        assert [hit.score for hit in hits] == pytest.approx([h.score for h in exhaustive[:10]])

    def test_what_others_say_crowds_out_nothing_of_a_users(self, log, monkeypatch):
        monkeypatch.setattr(sqlite_search, "MAX_SCORED", 30)
        user = Scope(tenant_id="acme", user_id="alice")
        before = log.search(user, [1, 2], limit=9)
        [own] = log.append(ALICE, [draft("own", "own", terms=(77, *range(200, 240)))])
        log.append(BOB, [draft(str(n), f"s{n}", terms=(1, 2, 77)) for n in range(80)])
        assert [hit.seq for hit in log.search(user, [77], limit=9)] == [own.seq]
        assert [hit.seq for hit in log.search(user, [1, 2], limit=9)] == [h.seq for h in before]

    def test_other_tenants_do_not_change_the_scores(self, log):
        before = log.search(ALICE, [1], limit=3)
        log.append(OTHER, talk(50))
        assert log.search(ALICE, [1], limit=3) == before
