"""Rows of the SQLite log as values: which columns are read, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import pack, unpack
from typing import Any, Final

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import LogRecord, Turn
from langchain_ctxmgr.storage.codec import decode

Row = Sequence[Any]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)

TURN_COLUMNS: Final = (
    "r.seq, t.thread_id, r.slot, r.branch, r.session, r.role, r.speaker, r.at, r.tokens, "
    "r.importance, r.cues"
)
RECORD_COLUMNS: Final = (
    f"{TURN_COLUMNS}, t.tenant_id, r.user_id, r.position, r.revision, r.parent, r.message_id, "
    "r.encoding, r.total_tokens, r.total_importance, c.digest, c.chain, c.payload"
)
RECORD_TABLES: Final = (
    "records r CROSS JOIN contents c ON c.seq = r.seq CROSS JOIN threads t ON t.thread = r.thread"
)
TENANT: Final = "SELECT tenant FROM tenants WHERE tenant_id = ?"
"""The integer that stands for a tenant."""
NEWEST: Final = (
    "NOT EXISTS (SELECT 1 FROM records n WHERE n.thread = r.thread AND n.slot = r.slot "
    "AND n.revision > r.revision AND n.revision > 0)"
)
"""Holds for a record that no later revision supersedes."""


def turn_of(row: Row) -> Turn:
    """A row of `TURN_COLUMNS` as a value."""
    seq, thread_id, slot, branch, session, role, speaker, at, tokens, importance, cues = row
    return Turn(
        seq,
        thread_id,
        slot,
        branch,
        session,
        role,
        None if speaker is None else text_of(speaker),
        EPOCH + timedelta(microseconds=at),
        tokens,
        importance,
        cues,
    )


def record_of(row: Row) -> LogRecord:
    """A row of `RECORD_COLUMNS` as a value.

    Raises:
        StorageError: If the stored message is damaged.
    """
    try:
        message = decode(row[22])
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise StorageError(
            f"record {row[0]} (position {row[13]} of thread {row[1]!r}) is damaged: {error}; "
            "verify the log and restore a backup"
        ) from error
    return LogRecord(
        seq=row[0],
        thread_id=row[1],
        slot=row[2],
        branch=row[3],
        session=row[4],
        role=row[5],
        speaker=None if row[6] is None else text_of(row[6]),
        at=EPOCH + timedelta(microseconds=row[7]),
        tokens=row[8],
        importance=row[9],
        cues=row[10],
        tenant_id=row[11],
        user_id=row[12],
        position=row[13],
        revision=row[14],
        parent=row[15],
        message_id=text_of(row[16]),
        encoding=row[17],
        total_tokens=row[18],
        total_importance=row[19],
        digest=row[20],
        chain=row[21],
        message=message,
    )


def bytes_of(text: str) -> bytes:
    """Text as a column holds it: any text, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def text_of(stored: bytes) -> str:
    """The text that `bytes_of` stored."""
    return stored.decode("utf-8", "surrogatepass")


def pack_terms(terms: Sequence[int]) -> bytes:
    """Term ids as a column holds them: 32-bit little-endian."""
    return pack(f"<{len(terms)}I", *terms)


def unpack_terms(stored: bytes) -> tuple[int, ...]:
    """The term ids that `pack_terms` stored."""
    return unpack(f"<{len(stored) // 4}I", stored)
