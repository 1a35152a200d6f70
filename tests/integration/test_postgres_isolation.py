"""The database itself keeps tenants apart: raw SQL as the role the workers connect as."""

from __future__ import annotations

import io
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Weighing
from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.contracts.message_log import ALICE, CANARY, NOON, OTHER, draft

TABLES = (
    "tenants",
    "threads",
    "branches",
    "records",
    "postings",
    "derived",
    "stated",
    "marks",
    "erasures",
    "weights",
)
GONE = Scope(tenant_id="globex", thread_id="gone")


@pytest.fixture(params=["app", "owner"])
def raw(request, postgres):
    """A connection bound to tenant acme, in a transaction; globex has rows in every table."""
    postgres.empty()
    with PostgresLog(postgres.url(postgres.app)) as log:
        log.append(ALICE, [draft("mine", "m1")])
        for scope in (OTHER, GONE):
            [said] = log.append(scope, [draft(CANARY, "m1")])
            assert log.weigh(scope, "m1", Weighing(NOON, is_pinned=True))
            stated = {said.seq: CANARY.encode()}
            log.put_stated("globex", stated, after_seq=0, until_seq=said.seq)
            log.put_derived(log.branch(scope), "choice", CANARY, CANARY.encode())
        log.erase(GONE)
        log.set_marks("globex", CANARY, words_seq=1, dense_seq=1)
        assert log.claim("globex", "index", "me", timedelta(minutes=1))
    role = postgres.app if request.param == "app" else postgres.owner
    with psycopg.connect(postgres.url(role)) as connection:
        connection.execute("SET search_path = ctxmgr")
        connection.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
        yield connection


def rows(connection, statement, *values):
    return connection.execute(statement, values).fetchall()


@pytest.mark.parametrize("table", [*TABLES, "claims"])
class TestAnotherTenantsRows:
    def test_are_not_seen(self, raw, table):
        name = sql.Identifier(table)
        seen = raw.execute(sql.SQL("SELECT tenant_id FROM {}").format(name)).fetchall()
        assert {tenant_id for (tenant_id,) in seen} <= {"acme"}
        whole = raw.execute(sql.SQL("SELECT {}::text FROM {}").format(name, name)).fetchall()
        assert CANARY not in str(whole)
        count = sql.SQL("SELECT count(*) FROM {} WHERE tenant_id = 'globex'").format(name)
        assert raw.execute(count).fetchone() == (0,)

    def test_are_not_changed_nor_taken_over(self, raw, table):
        name = sql.Identifier(table)
        for change in (
            "UPDATE {} SET tenant_id = tenant_id WHERE tenant_id = 'globex'",
            "UPDATE {} SET tenant_id = 'acme' WHERE tenant_id <> 'acme'",
            "DELETE FROM {} WHERE tenant_id = 'globex'",
        ):
            assert raw.execute(sql.SQL(change).format(name)).rowcount == 0

    def test_are_not_copied_out(self, raw, table):
        statement = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(table))
        with raw.cursor().copy(statement) as copy:
            told = io.BytesIO(b"".join(copy)).getvalue().decode()
        assert "globex" not in told
        assert CANARY not in told

    def test_do_not_appear_by_turning_row_security_off(self, raw, table):
        raw.execute("SET LOCAL row_security = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            raw.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))


class TestBreakingOut:
    def test_nothing_is_seen_without_a_tenant(self, raw, postgres):
        raw.commit()
        for table in TABLES:
            name = sql.Identifier(table)
            assert raw.execute(sql.SQL("SELECT * FROM {}").format(name)).fetchall() == []
        raw.execute("SELECT set_config('ctxmgr.tenant_id', 'acme', true)")
        raw.execute("RESET ALL")
        raw.execute("SET LOCAL search_path = ctxmgr")
        assert rows(raw, "SELECT * FROM records") == []

    def test_rows_cannot_be_made_for_another_tenant(self, raw):
        for statement in (
            "INSERT INTO threads (tenant_id, thread_id, chain) VALUES ('globex', 'x', '')",
            "INSERT INTO tenants (tenant_id) VALUES ('initech')",
            "INSERT INTO postings VALUES ('globex', 1, 1, 1, 1)",
            "UPDATE records SET tenant_id = 'globex'",
            "UPDATE threads SET tenant_id = 'globex'",
        ):
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
                raw.transaction(),
            ):
                raw.execute(statement)

    def test_a_conflict_tells_no_more_than_that_there_is_one(self, raw):
        with pytest.raises(psycopg.Error) as caught, raw.transaction():
            raw.execute(
                "INSERT INTO records SELECT (jsonb_populate_record(r, '{\"seq\": 2}')).* "
                "FROM records r"
            )
        assert CANARY not in str(caught.value)

    def test_a_function_in_a_condition_is_not_handed_their_rows(self, raw):
        raw.execute(
            "CREATE FUNCTION pg_temp.tell(bytea) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
            "AS $$ BEGIN RAISE NOTICE '%', encode($1, 'escape'); RETURN true; END $$"
        )
        told = []
        raw.add_notice_handler(lambda notice: told.append(notice.message_primary))
        rows(raw, "SELECT seq FROM records WHERE pg_temp.tell(payload)")
        assert len(told) == 1
        assert CANARY not in told[0]

    def test_a_view_of_ones_own_shows_no_more(self, raw):
        raw.execute("CREATE TEMP VIEW mine AS SELECT * FROM ctxmgr.records")
        assert len(rows(raw, "SELECT * FROM mine")) == 1
        raw.execute("CREATE TEMP TABLE copied AS SELECT * FROM ctxmgr.records")
        assert len(rows(raw, "SELECT * FROM copied")) == 1

    def test_listing_tenants_lists_names_erasures_and_marks_alone(self, raw):
        raw.execute("SELECT set_config('ctxmgr.list_tenants', 'on', true)")
        assert rows(raw, "SELECT tenant_id FROM tenants ORDER BY 1") == [("acme",), ("globex",)]
        assert rows(raw, "SELECT thread_id FROM erasures") == [("gone",)]
        assert (
            raw.execute("UPDATE tenants SET tenant_id = 'x' WHERE tenant_id = 'globex'").rowcount
            == 0
        )
        for table in ("erasures", "marks"):
            statement = sql.SQL("DELETE FROM {} WHERE tenant_id = 'globex'")
            assert raw.execute(statement.format(sql.Identifier(table))).rowcount == 0
        for table in set(TABLES) - {"tenants", "erasures", "marks"}:
            statement = sql.SQL("SELECT tenant_id FROM {}").format(sql.Identifier(table))
            assert {tenant for (tenant,) in raw.execute(statement)} <= {"acme"}


class TestThePlainRole:
    @pytest.fixture
    def app(self, postgres):
        with psycopg.connect(postgres.url(postgres.app), autocommit=True) as connection:
            connection.execute("SET search_path = ctxmgr")
            yield connection

    def test_changes_no_policy_and_no_table(self, app, postgres):
        for statement in (
            "ALTER TABLE records DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE records NO FORCE ROW LEVEL SECURITY",
            "DROP POLICY own ON records",
            "ALTER POLICY own ON records USING (true)",
            "CREATE POLICY all_of_it ON records USING (true)",
            "TRUNCATE records",
            "CREATE TRIGGER t BEFORE INSERT ON records EXECUTE FUNCTION pg_notify()",
            "CREATE TABLE ctxmgr.leak (payload bytea)",
            f"SET ROLE {postgres.owner}",
            "SET ROLE postgres",
            "SET SESSION AUTHORIZATION postgres",
            f"ALTER ROLE {postgres.app} BYPASSRLS",
            "COPY records TO PROGRAM 'cat'",
            "COPY records TO '/tmp/leak'",
        ):
            with pytest.raises(psycopg.Error) as caught:
                app.execute(statement)
            assert caught.value.sqlstate in {"42501", "22023", "42704"}, statement

    def test_uses_the_log_without_owning_it_and_warns_of_nothing(self, postgres, recwarn):
        with PostgresLog(postgres.url(postgres.app)) as log:
            log.append(ALICE, [draft("hello", "plain-role")])
            assert log.verify(ALICE).ok
        assert not recwarn.list

    def test_is_told_when_it_may_not_create_the_tables(self, postgres):
        log = PostgresLog(postgres.url(postgres.app), schema="elsewhere")
        with pytest.raises(StorageError, match=r"run setup\(\) once as a role that may"):
            log.setup()
        log.close()

    def test_a_superuser_is_warned_once_that_tenants_are_not_kept_apart(self, postgres, recwarn):
        with PostgresLog(postgres.superuser_url()) as log:
            log.tenants()
            log.tenants()
        [warned] = recwarn.list
        assert "row-level security does not hold" in str(warned.message)
