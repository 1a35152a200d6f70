"""The tables of the PostgreSQL log: numbered migrations, each applied once."""

from __future__ import annotations

from importlib import resources
from typing import Final

import psycopg
from psycopg import sql

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.postgres_work import Row

MIGRATIONS: Final = (
    "0001_message_log.sql",
    "0002_stated.sql",
    "0003_withdrawn.sql",
    "0004_weights.sql",
)
"""Workers of the release before go on while these are applied: they add, and change nothing."""
_PACKAGE: Final = "langchain_ctxmgr.storage"
_LOCK: Final = 0x43545847 << 32
"""Advisory lock of whoever migrates: `CTXG`."""
_APPLIED: Final = "SELECT coalesce(max(version), 0) FROM migrations"
_HAS_MIGRATIONS: Final = "SELECT to_regclass(%s) IS NOT NULL"
_HAS_SCHEMA: Final = "SELECT 1 FROM pg_namespace WHERE nspname = %s"


def migrate(connection: psycopg.Connection[Row], schema: str, name: str) -> None:
    """Bring the tables in `schema` up to date, which needs no rights where they are.

    Args:
        connection: In autocommit, its search path set to `schema`.
        schema: Made where there is none.
        name: What errors call the database.

    Raises:
        StorageError: If they are newer than this release, or the role may not create them.
    """
    if schema_version(connection, schema, name) == len(MIGRATIONS):
        return
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if connection.execute(_HAS_SCHEMA, (schema,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            _apply(connection, schema_version(connection, schema, name))
    except psycopg.errors.InsufficientPrivilege as error:
        raise StorageError(
            f"{name}: the tables in schema {schema!r} are missing or old and this role may not "
            "create them; run setup() once as a role that may, then grant this one the rights "
            "that langchain_ctxmgr.storage.postgres lists"
        ) from error


def schema_version(connection: psycopg.Connection[Row], schema: str, name: str) -> int:
    """The number of migrations that were applied; 0 where there are no tables.

    Raises:
        StorageError: If they are newer than this release.
    """
    table = sql.Identifier(schema, "migrations").as_string(connection)
    row = connection.execute(_HAS_MIGRATIONS, (table,)).fetchone()
    if row is None or not row[0]:
        return 0
    [version] = connection.execute(_APPLIED).fetchone() or (0,)
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{name} has schema version {version} and this release knows {len(MIGRATIONS)}; "
            "upgrade langchain-ctxmgr"
        )
    return version


def _apply(connection: psycopg.Connection[Row], version: int) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, "
        "name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for number, name in enumerate(MIGRATIONS[version:], version + 1):
        script = resources.files(_PACKAGE).joinpath("migrations", "postgres", name)
        connection.execute(script.read_bytes(), prepare=False)
        connection.execute("INSERT INTO migrations (version, name) VALUES (%s, %s)", (number, name))
