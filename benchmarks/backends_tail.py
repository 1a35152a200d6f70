"""Is the end of a PostgreSQL thread as near in ten million messages as in a thousand?

A thousand messages are appended and then multiplied by SQL, with seqs, slots, ids and running
totals of their own, into one thread of the size asked for; the table is unlogged meanwhile and
has no postings of the copies. The end is appended by the log itself. Its reads and appends are
paired with those of a thread of a thousand messages in a database beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, LiteralString, cast

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import psycopg
import report
from backends_logs import SCOPE, draft, fill

from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.postgres import OwnDatabase, own_database

SMALL: Final = 1_000
TAIL: Final = 20


def tail(size: int, rounds: int, url: str) -> dict[str, Any]:
    """Reads of the last messages of `size`, and appends, beside those of a short thread."""
    with own_database(url) as large, own_database(url) as small:
        with PostgresLog(large.url()) as log, PostgresLog(small.url()) as short:
            fill(log, 0, SMALL)
            fill(short, 0, SMALL)
            taken = _multiplied(large, size // SMALL)
            fill(log, size, size + TAIL)
            drafts = [draft(size + TAIL + number) for number in range(2 * rounds)]
            reads = report.paired(lambda _: _end(log), lambda _: _end(short), rounds)
            appends = report.paired(
                lambda number: log.append(SCOPE, [drafts[number]]),
                lambda number: short.append(SCOPE, [drafts[number]]),
                rounds,
            )
        return {
            "tail_read_of_short": reads,
            "append_of_short": appends,
            "disk_bytes_per_record": taken / size,
        }


def _end(log: PostgresLog) -> object:
    return log.read(log.branch(SCOPE), limit=TAIL, newest_first=True)


def _multiplied(database: OwnDatabase, times: int) -> int:
    """Make the one thread `times` as long; the bytes its table then takes."""
    with psycopg.connect(database.superuser_url(), autocommit=True) as connection:
        execute = connection.execute
        execute("SET search_path = ctxmgr")
        execute("SET maintenance_work_mem = '512MB'")
        execute("ALTER TABLE records SET UNLOGGED")
        indexes = execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'ctxmgr' "
            "AND tablename = 'records' AND indexname <> 'records_pkey'"
        ).fetchall()
        execute("ALTER TABLE records DROP CONSTRAINT records_pkey")
        for name, _ in indexes:
            execute(cast("LiteralString", f"DROP INDEX {name}"))
        execute(_COPIES, {"size": SMALL, "copies": times - 1})
        execute("ALTER TABLE records ADD PRIMARY KEY (seq)")
        for _, definition in indexes:
            execute(cast("LiteralString", definition))
        execute(_BRANCH)
        execute("UPDATE threads SET records = %s", (SMALL * times,))
        execute("SELECT setval('seqs', (SELECT max(seq) FROM records))")
        execute("ANALYZE records")
        execute("CHECKPOINT")
        row = execute("SELECT pg_total_relation_size('records')").fetchone()
        return row[0] if row else 0


_COPIES: Final[LiteralString] = """
INSERT INTO records
SELECT r.seq + copy * %(size)s, tenant_id, thread, user_id, branch, position + copy * %(size)s,
    slot + copy * %(size)s, revision, slot + copy * %(size)s - 1, session + copy,
    message_id || ('-' || copy)::bytea, role, speaker, at + copy * 120000000 * %(size)s, tokens,
    encoding, importance, cues, total_tokens + copy * tokens_each,
    total_importance + copy * importance_each,
    decode(md5(message_id || ('-' || copy)::bytea), 'hex'), tokens_before + copy * tokens_each,
    has_terms, digest, chain, terms, payload
FROM generate_series(1::bigint, %(copies)s::bigint) copy
CROSS JOIN (
    SELECT *, max(total_tokens) OVER () AS tokens_each,
        max(total_importance) OVER () AS importance_each
    FROM records
) r
"""
_BRANCH: Final[LiteralString] = """
UPDATE branches b SET tip_slot = r.slot, tip_position = r.position, session = r.session,
    at = r.at, total_tokens = r.total_tokens, total_importance = r.total_importance
FROM (SELECT * FROM records ORDER BY seq DESC LIMIT 1) r
"""
