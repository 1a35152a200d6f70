"""Rows of a log as values: the columns every backend reads, in one order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from struct import pack, unpack
from typing import Any, Final

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import LogRecord, Weighed
from langchain_ctxmgr.storage.codec import decode
from langchain_ctxmgr.storage.message_log import (
    IndexEntry,
    PendingRecords,
    Stated,
    ThreadUse,
    Withdrawal,
)
from langchain_ctxmgr.turns import EPOCH, Turns, micros_of

Row = Sequence[Any]

_ANY_AT: Final = 2**62


def turns_of(rows: Iterable[Row]) -> Turns:
    """Rows of the turn's columns."""
    turns = Turns.from_rows(rows)
    names = {stored: text_of(stored) for stored in set(turns.speaker) if stored is not None}
    if names:
        turns.speaker[:] = [names.get(stored) for stored in turns.speaker]
    return turns


def record_of(row: Row) -> LogRecord:
    """A row of the record's columns as a value: the turn's, then the others.

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
    return LogRecord._make(
        (
            *row[:6],
            None if row[6] is None else text_of(row[6]),
            EPOCH + timedelta(0, 0, row[7]),
            *row[8:16],
            text_of(row[16]),
            message,
            *row[17:22],
        )
    )


def pending_of(rows: Sequence[Row], after_seq: int) -> PendingRecords:
    """Rows of the record's columns and terms, by `seq`, as what an index has to take in."""
    entries: list[IndexEntry] = []
    damaged: list[int] = []
    for row in rows:
        try:
            entries.append(IndexEntry(record_of(row), unpack_terms(row[-1])))
        except StorageError:
            damaged.append(row[0])
    return PendingRecords(entries, rows[-1][0] if rows else after_seq, tuple(damaged))


def stated_of(row: Row) -> Stated:
    """A row of what a record states, by the fields of `Stated`."""
    seq, thread_id, branch, slot, user_id, message_id, at, value = row
    said_at = EPOCH + timedelta(0, 0, at)
    return Stated(seq, thread_id, branch, slot, user_id, text_of(message_id), said_at, value)


def weighed_of(row: Row) -> Weighed:
    """A row of what a user marked a message as, by the fields of `Weighed`."""
    seq, thread_id, branch, slot, user_id, message_id, is_pinned, weight, at = row
    name, marked_at = text_of(message_id), EPOCH + timedelta(0, 0, at)
    return Weighed(seq, thread_id, branch, slot, user_id, name, bool(is_pinned), weight, marked_at)


def thread_use_of(row: Row) -> ThreadUse:
    """A row of a thread's id, whether it is shared, and when its last message was said."""
    thread_id, is_shared, newest_at = row
    return ThreadUse(thread_id, bool(is_shared), EPOCH + timedelta(0, 0, newest_at))


def at_bounds(which: Withdrawal) -> tuple[int, int]:
    """The time of a withdrawal as a column holds it: from, and before."""
    start = -_ANY_AT if which.since is None else micros_of(which.since)
    end = _ANY_AT if which.until is None else micros_of(which.until)
    return start, end


def after_prefix(prefix: str) -> str:
    """The first text, by code point, that comes after all that start with `prefix`."""
    return f"{prefix}\U0010ffff"


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
