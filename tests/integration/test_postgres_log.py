"""The PostgreSQL log among other workers, and when its server is slow, gone or refuses."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from datetime import timedelta

import psycopg
import pytest
from typer.testing import CliRunner

from langchain_ctxmgr.cli import app
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage import postgres_search
from langchain_ctxmgr.storage.placement import entry_of
from langchain_ctxmgr.storage.postgres import PostgresLog
from langchain_ctxmgr.storage.postgres_append import append
from langchain_ctxmgr.storage.postgres_pool import Connection
from langchain_ctxmgr.storage.postgres_schema import MIGRATIONS
from langchain_ctxmgr.storage.postgres_work import COMMIT, Work
from tests.contracts.message_log import ALICE, ALICES, BOB, OTHER, draft, ids, talk
from tests.integration import postgres_restarts
from tests.postgres_server import own_server

SHORT = timedelta(seconds=1)
_DISK_IS_FULL = """
CREATE FUNCTION ctxmgr.disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER disk_is_full AFTER INSERT ON ctxmgr.postings EXECUTE FUNCTION ctxmgr.disk_is_full()
"""
"""Fails an append as PostgreSQL does where it cannot make a table larger."""


@pytest.fixture
def log(postgres):
    postgres.empty()
    with PostgresLog(postgres.url(postgres.app)) as log:
        yield log


@pytest.fixture(scope="module")
def server():
    with own_server() as server:
        yield server


@pytest.fixture
def elsewhere(server):
    """A log on a server that may be stopped."""
    with PostgresLog(server.url, timeout=timedelta(seconds=20)) as log:
        yield log


pytestmark = pytest.mark.filterwarnings("ignore:.*row-level security does not hold")


class HeldOpen:
    """An append stopped just before its commit, until it is let go."""

    def __init__(self, log: PostgresLog, scope: Scope, key: str) -> None:

        work = append(scope, [entry_of(draft(key, key))], "ctxmgr")
        stored, self._go_on = threading.Event(), threading.Event()

        def steps():
            inner = work.steps()
            batch = next(inner)
            while batch[-1] is not COMMIT:
                batch = inner.send((yield batch))
            yield batch[:-1]
            stored.set()
            self._go_on.wait(30)
            yield [COMMIT]

        held = Work(work.tenant_id, steps, begin=work.begin)
        self._thread = threading.Thread(target=log._database.run, args=(held,))
        self._thread.start()
        assert stored.wait(30)

    def commit(self) -> None:
        self._go_on.set()
        self._thread.join()


class TestFollowingTheLog:
    def test_an_index_never_goes_past_a_record_that_is_still_to_be_committed(self, log):
        log.append(ALICE, talk(1))
        held = HeldOpen(log, BOB, "held")
        try:
            [late] = log.append(ALICE, talk(1, first=1))
            assert log.last_seq("acme") < late.seq
            before = log.pending("acme", 0, 9)
            assert ids(entry.record for entry in before.entries) == ["m0"]
            assert before.until_seq == before.entries[-1].record.seq
        finally:
            held.commit()
        after = log.pending("acme", before.until_seq, 9)
        assert ids(entry.record for entry in after.entries) == ["held", "m1"]
        assert log.last_seq("acme") == after.until_seq == late.seq

    def test_another_tenants_append_holds_nothing_up(self, log):
        log.append(OTHER, talk(1))
        held = HeldOpen(log, BOB, "held")
        try:
            [newest] = log.append(OTHER, talk(1, first=1))
            assert log.pending("globex", 0, 9).until_seq == newest.seq
            assert log.last_seq("globex") == newest.seq
        finally:
            held.commit()

    def test_an_index_that_follows_many_writers_misses_nothing(self, log):
        writers = 6
        done = threading.Event()

        def write(worker: int) -> None:
            scope = Scope(tenant_id="acme", thread_id=f"t{worker % 3}")
            for number in range(40):
                log.append(scope, [draft("x", f"{worker}-{number}")])

        def follow() -> None:
            mark = 0
            while True:
                ended = done.is_set()
                pending = log.pending("acme", mark, 7)
                taken.extend(ids(entry.record for entry in pending.entries))
                mark = pending.until_seq
                if ended and not pending.entries:
                    return

        taken: list[str] = []
        threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
        follower = threading.Thread(target=follow)
        for thread in (follower, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        follower.join()
        assert sorted(taken) == sorted(f"{w}-{n}" for w in range(writers) for n in range(40))

    def test_erasures_are_noted_in_the_order_of_their_ids(self, log):
        for number in range(3):
            scope = Scope(tenant_id="acme", thread_id=f"n{number}")
            log.append(scope, talk(1))
            log.erase(scope)
        noted = log.erasures("acme", 0)
        assert [erasure.scope.thread_id for erasure in noted] == ["n0", "n1", "n2"]
        assert log.erasures("acme", noted[1].id) == noted[2:]


class TestSearchingMany:
    def test_postings_give_what_reading_every_record_gives(self, log, monkeypatch):
        drafts = [draft(f"m{n}", f"m{n}", terms=(n % 2, n % 5, n % 7, n % 7)) for n in range(60)]
        for scope in (ALICE, BOB, OTHER):
            log.append(scope, drafts)
        scopes = (ALICE, Scope(tenant_id="acme"), Scope(tenant_id="acme", user_id="bob"))
        after = log.branch(BOB).head.seq - 20
        asked = [(scope, (1, 4, 6, 99), seq) for scope in scopes for seq in (0, after)]
        whole = [log.search(s, terms, limit=50, after_seq=seq) for s, terms, seq in asked]
        monkeypatch.setattr(postgres_search, "_READ_WHOLE", 0)
        found = [log.search(s, terms, limit=50, after_seq=seq) for s, terms, seq in asked]
        for expected, hits in zip(whole, found, strict=True):
            assert [hit.seq for hit in hits] == [hit.seq for hit in expected]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected])

    def test_when_too_many_match_those_with_rare_terms_are_scored(self, log, monkeypatch):
        common = [draft(f"m{n}", f"m{n}", terms=(1, 2)) for n in range(80)]
        log.append(ALICE, [draft("rare", "rare", terms=(1, 3)), *common])
        monkeypatch.setattr(postgres_search, "_READ_WHOLE", 0)
        monkeypatch.setattr(postgres_search, "MAX_SCORED", 10)
        monkeypatch.setattr(postgres_search, "_MAX_POSTINGS", 40)
        hits = log.search(ALICE, (1, 3), limit=5)
        assert ids(log.fetch(ALICE, [hits[0].seq])) == ["rare"]
        assert log.search(ALICE, (1, 3), limit=5) == hits


class TestPlans:
    """Rows are found by an index while the planner takes the tables for empty."""

    def plans(self, monkeypatch, ask):
        """How PostgreSQL runs each statement while `ask` is answered."""
        told: list[str] = []
        answers = Connection.answers

        def explained(connection, batch):
            for text, values in batch[1:]:
                if text.startswith(("SELECT", "WITH", "DELETE")):
                    plan = connection.execute(f"EXPLAIN {text}", values, prepare=False)
                    told.extend(line for (line,) in plan)
            return answers(connection, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Connection, "answers", explained)
            ask()
        return told

    def test_no_read_goes_through_a_tenants_records(self, log, monkeypatch):
        records = log.append(ALICE, talk(4))
        monkeypatch.setattr(postgres_search, "_READ_WHOLE", 0)
        branch, seqs, tenant = log.branch(ALICE), [r.seq for r in records], Scope(tenant_id="acme")
        for ask in (
            lambda: log.branch(ALICE),
            lambda: log.branch(ALICE, head="m1"),
            lambda: log.read(branch, newest_first=True, limit=2),
            lambda: log.read(branch, roles=("human",), limit=2),
            lambda: log.locate(branch, 20),
            lambda: log.find(branch, "m2"),
            lambda: log.fetch(tenant, seqs),
            lambda: log.turns(tenant, seqs),
            lambda: log.turns(tenant, seqs, around=2),
            lambda: log.top(branch, before_slot=9, limit=2),
            lambda: log.search(tenant, (1, 2), limit=3),
            lambda: log.pending("acme", seqs[0], 2),
            lambda: log.last_seq("acme"),
            lambda: list(log.history(ALICE)),
        ):
            plan = self.plans(monkeypatch, ask)
            scans = [n for n, line in enumerate(plan) if " Scan" in line and " on records" in line]
            assert scans or any("on postings" in line for line in plan), plan
            for number in scans:
                assert "Index" in plan[number], plan
                found_by = plan[number + 1]
                assert "Index Cond" in found_by, plan
                assert "seq" in found_by or "thread" in found_by, plan
            assert not any("Seq Scan on postings" in line for line in plan), plan
            assert not any("Join Filter" in line and "seq" in line for line in plan), plan


MANY_STATEMENTS = {
    "read": lambda log, line: log.read(line, from_slot=0),
    "roles": lambda log, line: log.read(line, roles=("human", "ai"), limit=9),
    "locate": lambda log, line: log.locate(line, 5),
    "top": lambda log, line: log.top(line, before_slot=9, limit=3),
    "search": lambda log, _: log.search(ALICE, (1, 2), limit=9),
    "postings": lambda log, _: log.search(Scope(tenant_id="acme"), (1, 2), limit=9),
}


class TestOneSnapshot:
    @pytest.mark.parametrize("name", MANY_STATEMENTS)
    def test_what_others_erase_meanwhile_does_not_change_an_answer(
        self, log, postgres, monkeypatch, name
    ):
        if name == "postings":
            monkeypatch.setattr(postgres_search, "_READ_WHOLE", 0)
        log.append(ALICE, talk(8))
        log.append(ALICE, [draft("edited", "m3"), draft("fork", "f")])
        line = log.branch(ALICE)
        ask = MANY_STATEMENTS[name]
        before = ask(log, line)
        answers, batches = Connection.answers, []

        def interrupted(connection, batch):
            batches.append(batch)
            if len(batches) == 2:
                monkeypatch.setattr(Connection, "answers", answers)
                assert other.erase(ALICES).messages
            return answers(connection, batch)

        with PostgresLog(postgres.url(postgres.app)) as other:
            monkeypatch.setattr(Connection, "answers", interrupted)
            assert ask(log, line) == before
        assert log.tenant_stats(ALICE).records == 0


class TestSharing:
    def test_a_forked_child_uses_connections_of_its_own(self, log):
        log.append(ALICE, talk(1))
        child = os.fork()
        if child == 0:
            try:
                log.append(ALICE, talk(1, first=1))
                log.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log.append(ALICE, talk(1, first=2))
        assert ids(log.history(ALICE)) == ["m0", "m1", "m2"]

    def test_event_loops_one_after_the_other_leave_no_connection(self, log, postgres):
        async def write(number: int) -> None:
            await asyncio.gather(*(log.aappend(ALICE, talk(1, first=n)) for n in range(number)))

        for number in range(1, 4):
            asyncio.run(write(number))
        log.append(ALICE, talk(4))
        assert len(list(log.history(ALICE))) == 4
        with postgres.superuser() as connection:
            count = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (postgres.app,)
            ).fetchone()
        assert count == (1,)

    async def test_more_tasks_than_connections_wait_their_turn(self, postgres):
        postgres.empty()
        async with PostgresLog(postgres.url(postgres.app), max_connections=2) as log:
            await asyncio.gather(*(log.aappend(ALICE, talk(1, first=n)) for n in range(12)))
            assert [r.position async for r in log.ahistory(ALICE)] == [*range(12)]

    async def test_a_task_cancelled_while_it_waits_for_a_lock_harms_no_other(self, log, postgres):
        await log.aappend(ALICE, talk(1))
        with postgres.connect() as holder, holder.transaction():
            holder.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
            holder.execute("SELECT 1 FROM ctxmgr.threads FOR UPDATE")
            waiting = asyncio.create_task(log.aappend(ALICE, talk(1, first=1)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
        await log.aappend(ALICE, talk(1, first=2))
        assert ids([r async for r in log.ahistory(ALICE)]) == ["m0", "m2"]

    def test_a_thread_locked_too_long_is_a_clear_error_and_nothing_is_kept(self, postgres):
        postgres.empty()
        with PostgresLog(postgres.url(postgres.app), timeout=SHORT) as log:
            log.append(ALICE, talk(1))
            with postgres.connect() as holder, holder.transaction():
                holder.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
                holder.execute("SELECT 1 FROM ctxmgr.threads FOR UPDATE")
                with pytest.raises(StorageError, match=r"time-?out|in time"):
                    log.append(ALICE, talk(1, first=1))
            assert ids(log.history(ALICE)) == ["m0"]


class TestTables:
    def test_many_workers_may_set_up_at_once(self, postgres):
        logs = [PostgresLog(postgres.url(), schema="at once") for _ in range(6)]
        threads = [threading.Thread(target=log.setup) for log in logs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logs[0].append(ALICE, talk(1))
        assert ids(logs[5].history(ALICE)) == ["m0"]
        for log in logs:
            log.close()
        with postgres.connect() as connection:
            applied = connection.execute('SELECT version FROM "at once".migrations').fetchall()
            connection.execute('DROP SCHEMA "at once" CASCADE')
        assert [version for (version,) in applied] == list(range(1, len(MIGRATIONS) + 1))

    def test_tables_of_a_newer_release_are_refused(self, postgres):
        with PostgresLog(postgres.url(), schema="newer"), postgres.connect() as connection:
            connection.execute("INSERT INTO newer.migrations VALUES (99, 'future')")
        log = PostgresLog(postgres.url(), schema="newer")
        with pytest.raises(
            StorageError, match=f"schema version 99 and this release knows {len(MIGRATIONS)}"
        ):
            log.setup()
        log.close()

    def test_erasing_vacuums_what_the_role_owns(self, postgres):
        postgres.empty()
        with PostgresLog(postgres.url()) as log, postgres.connect() as connection:
            log.append(ALICE, talk(200))
            log.erase(ALICES)
            for table in ("records", "postings"):
                connection.execute("SELECT pg_stat_force_next_flush()")
                size = connection.execute("SELECT pg_relation_size(%s)", (f"ctxmgr.{table}",))
                assert size.fetchone() == (0,)

    def test_tampering_with_a_row_is_found(self, log, postgres):
        log.append(ALICE, talk(5))
        with postgres.connect() as connection, connection.transaction():
            connection.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
            connection.execute("UPDATE ctxmgr.records SET importance = 0.9 WHERE position = 2")
            connection.execute("DELETE FROM ctxmgr.records WHERE position = 3")
        problems = " ".join(log.verify().problems)
        assert "position 2: its fields were changed" in problems
        assert "position 3: missing" in problems

    def test_a_damaged_record_is_told_apart_from_what_an_index_can_take(self, log, postgres):
        records = log.append(ALICE, talk(3))
        with postgres.connect() as connection, connection.transaction():
            connection.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
            connection.execute("UPDATE ctxmgr.records SET payload = 'x' WHERE position = 1")
        pending = log.pending("acme", 0, 9)
        assert ids(entry.record for entry in pending.entries) == ["m0", "m2"]
        assert pending.damaged == (records[1].seq,)


class TestAServerThat:
    def test_restarts_is_ridden_out(self, elsewhere, server):
        elsewhere.append(ALICE, [draft("before", "before")])
        for mode in ("fast", "immediate"):
            server.stop(mode)
            starting = threading.Timer(0.5, server.start)
            starting.start()
            assert "before" in ids(elsewhere.history(ALICE))
            starting.join()
            server.stop(mode)
            starting = threading.Timer(0.5, server.start)
            starting.start()
            elsewhere.append(ALICE, [draft(mode, mode)])
            starting.join()
        assert ids(elsewhere.history(ALICE)) == ["before", "fast", "immediate"]

    def test_loses_the_answer_to_a_commit_is_not_told_twice(self, log, monkeypatch):
        """The connection breaks after the commit: the append finds its rows."""

        answers, lost = Connection.answers, []

        def lose(connection, batch):
            rows = answers(connection, batch)
            if batch[-1] is COMMIT and not lost:
                lost.append(True)
                connection.pgconn.finish()
                raise psycopg.OperationalError("server closed the connection unexpectedly")
            return rows

        monkeypatch.setattr(Connection, "answers", lose)
        recorded = log.append(ALICE, [draft("given", "g"), draft("none")])
        assert lost
        assert list(log.history(ALICE)) == recorded
        assert len(recorded) == 2
        lost.clear()
        erased = log.erase(ALICES)
        assert lost
        assert erased.seqs == tuple(record.seq for record in recorded)
        assert len(log.erasures("acme", 0)) == 1

    async def test_does_not_answer_is_given_up_in_time(self, server):
        async with PostgresLog(server.url, timeout=SHORT) as log:
            await log.aappend(ALICE, talk(1))
            log.branch(ALICE)
            server.pause()
            try:
                started = time.monotonic()
                with pytest.raises(StorageError, match="did not answer in time"):
                    log.branch(ALICE)
                with pytest.raises(StorageError, match="did not answer in time"):
                    await log.abranch(ALICE)
                with pytest.raises(StorageError, match="did not answer in time"):
                    await log.abranch(ALICE)
                assert time.monotonic() - started < 60
            finally:
                server.resume()
            assert (await log.abranch(ALICE)).head is not None

    def test_is_down_is_a_clear_error_without_the_password(self, server):
        url = server.url.replace("postgres@", "postgres:sesame@")
        log = PostgresLog(url, timeout=SHORT)
        log.setup()
        server.stop()
        try:
            for ask in (lambda: log.branch(ALICE), lambda: log.append(ALICE, talk(1))):
                with pytest.raises(StorageError, match="make sure that the server runs") as caught:
                    ask()
                assert "sesame" not in f"{caught.value!r}"
                assert caught.value.__suppress_context__
        finally:
            server.start()
        assert "sesame" not in repr(log)
        assert log.append(OTHER, talk(1))
        log.close()

    def test_refuses_the_role_or_database_is_not_asked_again(self, postgres):
        for url, said in (
            (postgres.url("nobody_at_all"), "nobody_at_all"),
            (postgres.url().replace(f"/{postgres.name}", "/no_such_database"), "does not exist"),
        ):
            log = PostgresLog(url, timeout=timedelta(seconds=30))
            started = time.monotonic()
            with pytest.raises(StorageError, match=said) as caught:
                log.branch(ALICE)
            assert time.monotonic() - started < 20
            assert "made-up" not in str(caught.value)
            log.close()

    def test_is_given_a_wrong_password_says_so_at_once_without_telling_it(self, server):
        server.ask_for_passwords()
        try:
            url = server.url.replace("postgres@", "postgres:sesame@")
            log = PostgresLog(url, timeout=timedelta(seconds=30))
            started = time.monotonic()
            with pytest.raises(
                StorageError, match=r"postgresql://postgres@127\.0\.0\.1:"
            ) as caught:
                log.append(ALICE, talk(1))
            assert time.monotonic() - started < 20
            assert "check user and password" in str(caught.value)
            assert "sesame" not in f"{caught.value!r}"
            log.close()
            told = CliRunner().invoke(app, ["--log", url, "doctor", "--json"]).stdout
            assert "check user and password" in told
            assert "sesame" not in told
        finally:
            server.trust()

    async def test_has_a_full_disk_says_that_nothing_was_recorded(self, log, postgres):
        log.append(ALICE, talk(1))
        with postgres.connect() as connection:
            connection.execute(_DISK_IS_FULL)
            try:
                with pytest.raises(StorageError, match="nothing was recorded: free disk space"):
                    log.append(ALICE, talk(2, first=1))
                with pytest.raises(StorageError, match="nothing was recorded: free disk space"):
                    await log.aappend(ALICE, talk(2, first=1))
            finally:
                connection.execute("DROP FUNCTION ctxmgr.disk_is_full CASCADE")
        assert ids(log.history(ALICE)) == ["m0"]
        await log.aappend(ALICE, talk(2, first=1))
        assert ids(log.history(ALICE)) == ["m0", "m1", "m2"]
        assert log.verify(ALICE).ok

    def test_is_read_only_says_that_nothing_was_recorded(self, log, postgres):
        log.append(ALICE, talk(1))
        with postgres.superuser() as connection:
            connection.execute(f"ALTER ROLE {postgres.app} SET default_transaction_read_only = on")
            try:
                with PostgresLog(postgres.url(postgres.app)) as other:
                    with pytest.raises(StorageError, match=r"nothing was recorded.*read-only"):
                        other.append(ALICE, talk(1, first=1))
                    assert ids(other.history(ALICE)) == ["m0"]
            finally:
                connection.execute(f"ALTER ROLE {postgres.app} RESET default_transaction_read_only")


class TestUrls:
    def test_one_that_cannot_be_read_is_refused_without_telling_the_password(self):
        for url in ("postgresql://me:sesame@[host/db", "mysql://me:sesame@host/db", "sesame"):
            with pytest.raises(ValueError, match="url must") as caught:
                PostgresLog(url)
            assert "me:sesame" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("max_connections", 0),
            ("max_connections", "10"),
            ("max_connections", None),
            ("timeout", timedelta(0)),
            ("timeout", 10),
            ("timeout", None),
            ("schema", ""),
            ("schema", None),
        ],
    )
    def test_a_wrong_setting_is_named_with_its_value(self, name, wrong):
        with pytest.raises(ValueError, match=f"{name} must .*{re.escape(repr(wrong))}"):
            PostgresLog("postgresql://h/d", **{name: wrong})

    def test_what_is_no_text_is_refused(self):
        for url in (None, 5, b"postgresql://h/d"):
            with pytest.raises(ValueError, match="url must be text"):
                PostgresLog(url)

    def test_the_constructor_connects_to_nothing(self):
        log = PostgresLog("postgresql+psycopg://me:sesame@192.0.2.1:1/d")
        assert repr(log) == "PostgresLog('postgresql://me@192.0.2.1:1/d')"
        log.close()
        log.close()


def test_what_is_acknowledged_while_the_server_restarts_is_there_once_and_in_order(server):
    assert postgres_restarts.run(server, processes=4, appends=60) == 2
