"""Appending to a thread: where each message belongs, and its row.

The thread's row carries the next position and the end of the hash chain, each branch's
row what its next message must know, so an append reads nothing else unless a message is
known already.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast
from uuid import uuid4

from langchain_ctxmgr.records import Draft, LogRecord
from langchain_ctxmgr.storage.codec import GENESIS, digest, encode, link, role_of
from langchain_ctxmgr.storage.message_log import SESSION_GAP
from langchain_ctxmgr.storage.sqlite_rows import EPOCH, MICROSECOND, TENANT, bytes_of, pack_terms

_SESSION_GAP_US: Final = SESSION_GAP // MICROSECOND
_MAX_CUES: Final = 1 << 63
_MAX_TOKENS: Final = 1 << 40


class Entry(NamedTuple):
    """A draft made ready to be stored."""

    draft: Draft
    at_us: int
    payload: bytes
    digest: bytes
    terms: bytes


def entry_of(draft: Draft) -> Entry:
    """A draft made ready to be stored, before any transaction begins.

    Raises:
        ValueError: If it cannot be recorded.
    """
    if draft.at.tzinfo is None:
        raise ValueError(f"at must be an aware datetime, got {draft.at!r}")
    if not 0 <= draft.tokens < _MAX_TOKENS:
        raise ValueError(f"tokens must be 0 to 2**40, got {draft.tokens}")
    if not 0 <= draft.importance <= 1:
        raise ValueError(f"importance must be in [0, 1], got {draft.importance}")
    if not 0 <= draft.cues < _MAX_CUES:
        raise ValueError(f"cues must be a bit set of 63 bits, got {draft.cues}")
    try:
        terms = pack_terms(draft.terms)
    except struct.error as error:
        raise ValueError(f"terms must be 32-bit term ids, got {draft.terms[:8]}…") from error
    payload = encode(draft.message)
    return Entry(draft, (draft.at - EPOCH) // MICROSECOND, payload, digest(payload), terms)


def is_light(drafts: Sequence[Draft], *, chars: int) -> bool:
    """Whether drafts hold at most `chars` characters together, told without encoding them."""
    left = chars
    values: list[object] = [vars(draft.message) for draft in drafts]
    while values and left >= 0:
        value = values.pop()
        left -= 1
        match value:
            case str() | bytes():
                left -= len(value)
            case dict():
                values += cast("dict[object, object]", value).values()
            case list() | tuple():
                values += cast("Sequence[object]", value)
            case _:
                pass
    return left >= 0


class _Place(NamedTuple):
    """What the message after this one must know of it."""

    branch: int
    slot: int
    position: int
    session: int
    at: int
    total_tokens: int
    total_importance: float


class _Known(NamedTuple):
    """The newest revision of a message that is in the thread already."""

    branch: int
    slot: int
    position: int
    session: int
    at: int
    total_tokens: int
    total_importance: float
    tokens: int
    importance: float
    revision: int
    parent: int | None
    digest: bytes

    @property
    def place(self) -> _Place:
        return _Place(*self[:7])


def tenant_token(tenant_id: str) -> str:
    """The keyword index's token for a tenant."""
    return "n" + sha256(tenant_id.encode()).hexdigest()[:16]


def thread_token(thread: int) -> str:
    """The keyword index's token for a thread's key."""
    return f"t{thread:x}"


def body_of(terms: Sequence[int]) -> str:
    """Terms as the keyword index holds them."""
    return " ".join([f"{term:x}" for term in terms])


def append(
    connection: sqlite3.Connection,
    tenant_id: str,
    thread_id: str,
    user_id: str | None,
    entries: Sequence[Entry],
) -> list[LogRecord]:
    """Add `entries` to a thread within a transaction; the records that are new."""
    thread = _Thread(connection, tenant_id, thread_id, user_id)
    records = [record for entry in entries if (record := thread.add(entry)) is not None]
    if records:
        thread.save()
    return records


class _Thread:
    """A thread while messages are added to it."""

    def __init__(
        self, connection: sqlite3.Connection, tenant_id: str, thread_id: str, user_id: str | None
    ) -> None:
        self._execute = connection.execute
        self._tenant_id, self._thread_id, self._user_id = tenant_id, thread_id, user_id
        self._tips: dict[int, _Place] = {}
        self._previous: _Place | None = None
        row = self._execute(_THREAD, (tenant_id, thread_id)).fetchone()
        if row is None:
            new_thread(connection, tenant_id, thread_id)
            row = self._execute(_THREAD, (tenant_id, thread_id)).fetchone()
        self._key: int = row[0]
        self._tenant: int = row[1]
        self._records, self._revisions, self._bytes = row[2:5]
        self._branches, self._branch, self._chain = row[5:8]
        self._scope_tokens = f"{thread_token(self._key)} {tenant_token(tenant_id)}"
        if self._branches:
            self._previous = self._tip(self._branch)

    def add(self, entry: Entry) -> LogRecord | None:
        """The record of a message that is new; None for one that is known as it is."""
        message_id = entry.draft.message.id
        known = self._known(message_id) if message_id else None
        if known is None:
            return self._add_new(entry, message_id or str(uuid4()))
        if known.digest == entry.digest:
            self._previous = known.place
            return None
        return self._add_revision(entry, str(message_id), known)

    def save(self) -> None:
        """Write back what the next append must know."""
        for branch, tip in self._tips.items():
            self._execute(_MOVE_TIP, (*tip[1:], self._key, branch))
        self._execute(
            _SAVE_THREAD,
            (
                self._records,
                self._revisions,
                self._bytes,
                self._branches,
                self._branch,
                self._chain,
                self._key,
            ),
        )

    def _add_new(self, entry: Entry, message_id: str) -> LogRecord:
        previous, draft = self._previous, entry.draft
        position = self._records
        if previous is None or self._tip(previous.branch).slot != previous.slot:
            branch = self._fork(previous)
        else:
            branch = previous.branch
        session = total_tokens = 0
        total_importance = 0.0
        if previous is not None:
            session = previous.session + (entry.at_us - previous.at > _SESSION_GAP_US)
            total_tokens, total_importance = previous.total_tokens, previous.total_importance
        place = _Place(
            branch=branch,
            slot=position,
            position=position,
            session=session,
            at=entry.at_us,
            total_tokens=total_tokens + draft.tokens,
            total_importance=total_importance + draft.importance,
        )
        self._tips[branch] = self._previous = place
        self._branch = branch
        parent = None if previous is None else previous.position
        return self._insert(entry, message_id, place, parent=parent, revision=0)

    def _add_revision(self, entry: Entry, message_id: str, known: _Known) -> LogRecord:
        draft = entry.draft
        place = _Place(
            branch=known.branch,
            slot=known.slot,
            position=self._records,
            session=known.session,
            at=entry.at_us,
            total_tokens=known.total_tokens - known.tokens + draft.tokens,
            total_importance=known.total_importance - known.importance + draft.importance,
        )
        if self._tip(known.branch).slot == known.slot:
            self._tips[known.branch] = place
        self._previous = place
        self._revisions += 1
        revision = known.revision + 1
        return self._insert(entry, message_id, place, parent=known.parent, revision=revision)

    def _insert(
        self, entry: Entry, message_id: str, place: _Place, *, parent: int | None, revision: int
    ) -> LogRecord:
        draft = entry.draft
        role, speaker = role_of(draft.message), draft.message.name
        row = (
            self._user_id,
            place.branch,
            place.position,
            place.slot,
            revision,
            parent,
            place.session,
            bytes_of(message_id),
            role,
            None if speaker is None else bytes_of(speaker),
            entry.at_us,
            draft.tokens,
            draft.encoding,
            float(draft.importance),
            int(draft.cues),
            place.total_tokens,
            place.total_importance,
        )
        chained = (self._tenant_id, self._thread_id, *row)
        chain = self._chain = link(self._chain, entry.digest, chained, entry.terms)
        self._records += 1
        self._bytes += len(entry.payload)
        has_terms = bool(entry.terms)
        stored = (self._tenant, self._key, *row, has_terms)
        seq: Any = self._execute(_INSERT_RECORD, stored).lastrowid
        self._execute(_INSERT_CONTENT, (seq, entry.digest, chain, entry.terms, entry.payload))
        if has_terms:
            self._execute(_INSERT_KEYWORDS, (seq, self._scope_tokens, body_of(draft.terms)))
        return LogRecord(
            seq=seq,
            thread_id=self._thread_id,
            slot=place.slot,
            branch=place.branch,
            session=place.session,
            role=role,
            speaker=speaker,
            at=EPOCH + timedelta(microseconds=entry.at_us),
            tokens=draft.tokens,
            importance=float(draft.importance),
            cues=int(draft.cues),
            tenant_id=self._tenant_id,
            user_id=self._user_id,
            position=place.position,
            revision=revision,
            parent=parent,
            message_id=message_id,
            message=draft.message,
            encoding=draft.encoding,
            total_tokens=place.total_tokens,
            total_importance=place.total_importance,
            digest=entry.digest,
            chain=chain,
        )

    def _known(self, message_id: str) -> _Known | None:
        row = self._execute(_KNOWN, (self._key, bytes_of(message_id))).fetchone()
        return None if row is None else _Known(*row)

    def _tip(self, branch: int) -> _Place:
        tip = self._tips.get(branch)
        if tip is None:
            row = self._execute(_TIP, (self._key, branch)).fetchone()
            tip = self._tips[branch] = _Place(branch, *row)
        return tip

    def _fork(self, previous: _Place | None) -> int:
        branch = self._branches
        self._branches += 1
        fork = (None, None) if previous is None else (previous.branch, previous.slot)
        self._execute(_INSERT_BRANCH, (self._key, branch, *fork))
        return branch


def new_thread(connection: sqlite3.Connection, tenant_id: str, thread_id: str) -> int:
    """The key of a thread that has no row yet, after giving it one."""
    tenant = tenant_key(connection, tenant_id)
    key: Any = connection.execute(_INSERT_THREAD, (tenant, tenant_id, thread_id, GENESIS)).lastrowid
    return key


def tenant_key(connection: sqlite3.Connection, tenant_id: str) -> int:
    """The integer that stands for a tenant, given out when it is first asked for."""
    connection.execute("INSERT OR IGNORE INTO tenants (tenant_id) VALUES (?)", (tenant_id,))
    return connection.execute(TENANT, (tenant_id,)).fetchone()[0]


_THREAD: Final = (
    "SELECT thread, tenant, records, revisions, bytes, branches, branch, chain FROM threads "
    "WHERE tenant_id = ? AND thread_id = ?"
)
_INSERT_THREAD: Final = (
    "INSERT INTO threads (tenant, tenant_id, thread_id, records, revisions, bytes, branches, "
    "branch, chain) VALUES (?, ?, ?, 0, 0, 0, 0, 0, ?)"
)
_SAVE_THREAD: Final = (
    "UPDATE threads SET records = ?, revisions = ?, bytes = ?, branches = ?, branch = ?, "
    "chain = ? WHERE thread = ?"
)
_TIP: Final = (
    "SELECT tip_slot, tip_position, session, at, total_tokens, total_importance FROM branches "
    "WHERE thread = ? AND branch = ?"
)
_INSERT_BRANCH: Final = "INSERT INTO branches VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0, 0)"
_MOVE_TIP: Final = (
    "UPDATE branches SET tip_slot = ?, tip_position = ?, session = ?, at = ?, total_tokens = ?, "
    "total_importance = ? WHERE thread = ? AND branch = ?"
)
_KNOWN: Final = (
    "SELECT r.branch, r.slot, r.position, r.session, r.at, r.total_tokens, r.total_importance, "
    "r.tokens, r.importance, r.revision, r.parent, c.digest FROM records r "
    "CROSS JOIN contents c ON c.seq = r.seq WHERE r.thread = ? AND r.message_id = ? "
    "ORDER BY r.revision DESC LIMIT 1"
)
_INSERT_RECORD: Final = (
    "INSERT INTO records (tenant, thread, user_id, branch, position, slot, revision, parent, "
    "session, message_id, role, speaker, at, tokens, encoding, importance, cues, total_tokens, "
    "total_importance, has_terms) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_CONTENT: Final = (
    "INSERT INTO contents (seq, digest, chain, terms, payload) VALUES (?, ?, ?, ?, ?)"
)
_INSERT_KEYWORDS: Final = "INSERT INTO keywords (rowid, scope, body) VALUES (?, ?, ?)"
