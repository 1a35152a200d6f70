"""A PostgreSQL database of the tests' own, and the plain role they connect as."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.services import missing

POSTGRES_URL = os.environ.get(
    "CTXMGR_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
)


class OwnDatabase:
    """A database with two plain roles: `owner` owns it, `app` may use the log's tables."""

    def __init__(self, superuser_url: str) -> None:
        self._superuser_url = superuser_url
        name = f"ctxmgr_test_{secrets.token_hex(6)}"
        self.name, self.owner, self.app = name, f"{name}_owner", f"{name}_app"

    def create(self) -> None:
        with self.superuser() as connection:
            for role in (self.owner, self.app):
                _do(connection, f"CREATE ROLE {role} LOGIN PASSWORD 'made-up'")
            _do(connection, f"CREATE DATABASE {self.name} OWNER {self.owner}")

    def drop(self) -> None:
        with self.superuser() as connection:
            _do(connection, f"DROP DATABASE {self.name} WITH (FORCE)")
            for role in (self.app, self.owner):
                _do(connection, f"DROP ROLE {role}")

    def superuser(self) -> psycopg.Connection:
        return psycopg.connect(self._superuser_url, autocommit=True)

    def url(self, role: str | None = None) -> str:
        """For the owner, or another role."""
        parts = conninfo_to_dict(self._superuser_url)
        place = f"{parts.get('host', '127.0.0.1')}:{parts.get('port', 5432)}"
        return f"postgresql://{role or self.owner}:made-up@{place}/{self.name}"

    def superuser_url(self) -> str:
        """For the superuser, in this database."""
        parts = conninfo_to_dict(self._superuser_url) | {"dbname": self.name}
        password = f":{quote(str(parts['password']))}" if parts.get("password") else ""
        place = f"{parts.get('host', '127.0.0.1')}:{parts.get('port', 5432)}"
        return f"postgresql://{parts['user']}{password}@{place}/{self.name}"

    def connect(self, role: str | None = None) -> psycopg.Connection:
        return psycopg.connect(self.url(role), autocommit=True)

    def grant(self, schema: str = "ctxmgr") -> None:
        """Give the app's role what the documentation lists."""
        with self.connect() as connection:
            for statement in GRANTS:
                _do(connection, statement.format(schema=schema, role=self.app))

    def empty(self, schema: str = "ctxmgr") -> None:
        """Leave the tables without rows."""
        with self.connect() as connection:
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'migrations'",
                (schema,),
            )
            _do(connection, f"TRUNCATE {', '.join(f'{schema}.{table}' for (table,) in tables)}")


def _do(connection: psycopg.Connection, statement: str, values: Sequence[object] = ()) -> None:
    connection.execute(sql.SQL(statement), values or None)


@contextmanager
def own_database(superuser_url: str = POSTGRES_URL) -> Iterator[OwnDatabase]:
    """A database that is dropped at the end."""
    database = OwnDatabase(superuser_url)
    try:
        database.create()
    except psycopg.Error as error:
        missing("PostgreSQL", f"{type(error).__name__}: {error} (CTXMGR_TEST_POSTGRES_URL)")
    try:
        yield database
    finally:
        database.drop()
