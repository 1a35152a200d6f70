"""Where a message belongs in its thread, and the link it adds to the chain.

A fold without a database: what is stored of the thread goes in, and out come the rows to
add and what the next append must know. Every backend stores the same rows, so that a log
keeps its chain wherever it is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple, cast
from uuid import uuid4

from langchain_ctxmgr.records import Draft, LogRecord
from langchain_ctxmgr.storage.codec import (
    GENESIS,
    digest,
    encode,
    link,
    role_of,
    row_digest,
)
from langchain_ctxmgr.storage.message_log import SESSION_GAP
from langchain_ctxmgr.storage.rows import bytes_of, pack_terms
from langchain_ctxmgr.turns import EPOCH, MICROSECOND, micros_of

_SESSION_GAP_US: Final = SESSION_GAP // MICROSECOND
_MAX_CUES: Final = 1 << 63
_MAX_TOKENS: Final = 1 << 40


class Entry(NamedTuple):
    """A draft made ready to be stored."""

    draft: Draft
    message_id: str
    """The message's own, or one given to it here: the same however often storing is tried."""
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
    message_id = draft.message.id or str(uuid4())
    at_us = micros_of(draft.at)
    return Entry(draft, message_id, at_us, payload, digest(payload), terms)


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


class Place(NamedTuple):
    """What the message after this one must know of it."""

    branch: int
    slot: int
    position: int
    session: int
    at: int
    total_tokens: int
    total_importance: float


class Known(NamedTuple):
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
    digest: bytes | None
    """None for one that was withdrawn."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(*self[:7])


class ThreadState(NamedTuple):
    """What a thread's own row says of it."""

    records: int = 0
    revisions: int = 0
    bytes: int = 0
    branches: int = 0
    branch: int = 0
    """The branch written to last."""
    chain: bytes = GENESIS


class Fork(NamedTuple):
    """A new branch, and the message it starts after; None for the thread's first."""

    branch: int
    fork_branch: int | None
    fork_slot: int | None


class Addition(NamedTuple):
    """A record to be stored."""

    entry: Entry
    fields: tuple[Any, ...]
    """Its own fields in the order in which they are chained."""
    chain: bytes

    @property
    def known(self) -> Known:
        """It as a message that follows sees it."""
        _, branch, position, slot, revision, parent, session, *_ = self.fields
        at, tokens, _, importance, _, total_tokens, total_importance = self.fields[10:]
        place = Place(branch, slot, position, session, at, total_tokens, total_importance)
        return Known(*place, tokens, importance, revision, parent, self.entry.digest)

    def record(self, seq: int, tenant_id: str, thread_id: str) -> LogRecord:
        """It as a value, once its `seq` is known."""
        user_id, branch, position, slot, revision, parent, session, _, role = self.fields[:9]
        at, tokens, encoding, importance, cues, total_tokens, total_importance = self.fields[10:]
        message = self.entry.draft.message
        return LogRecord(
            seq,
            thread_id,
            slot,
            branch,
            session,
            role,
            message.name,
            EPOCH + timedelta(microseconds=at),
            tokens,
            importance,
            cues,
            tenant_id,
            user_id,
            position,
            revision,
            parent,
            self.entry.message_id,
            message,
            encoding,
            total_tokens,
            total_importance,
            self.entry.digest,
            self.chain,
        )


class Left(NamedTuple):
    """What stays of a record that is erased by itself."""

    place: tuple[int, int, int, int, int]
    """Branch, position, slot, revision and session."""
    message_id: bytes
    totals: tuple[int, int, float]
    """When, and the tokens and importance up to it."""
    row_digest: bytes


def left_of(tenant_id: str, thread_id: str, fields: Sequence[Any], terms: bytes) -> Left:
    """What stays of a record, given its own fields in the order in which they are chained."""
    _, branch, position, slot, revision, _, session, message_id, *_ = fields
    at, *_, total_tokens, total_importance = fields[10:]
    return Left(
        (branch, position, slot, revision, session),
        message_id,
        (at, total_tokens, total_importance),
        row_digest((tenant_id, thread_id, *fields), terms),
    )


class Placement:
    """A thread while messages are added to it.

    Args:
        tenant_id: Whose thread.
        thread_id: Which.
        user_id: Who speaks.
        state: What its row says.
        known: Gives a stored message of the thread by its id, in its newest revision.
        tip: Gives the last message of a stored branch.
    """

    def __init__(
        self,
        tenant_id: str,
        thread_id: str,
        user_id: str | None,
        state: ThreadState,
        *,
        known: Callable[[str], Known | None],
        tip: Callable[[int], Place],
    ) -> None:
        self._owner = (tenant_id, thread_id)
        self._user_id = user_id
        self._records, self._revisions, self._bytes = state[:3]
        self._branches, self._branch, self._chain = state[3:]
        self._stored, self._stored_tip = known, tip
        self._added: dict[str, Addition] = {}
        self._tips: dict[int, Place] = {}
        self.moved: dict[int, Place] = {}
        """Branches whose last message is another now."""
        self.forks: list[Fork] = []
        """Branches that are new."""
        self._previous = self._tip(self._branch) if self._branches else None

    @property
    def state(self) -> ThreadState:
        """What the thread's row has to say now."""
        return ThreadState(
            self._records,
            self._revisions,
            self._bytes,
            self._branches,
            self._branch,
            self._chain,
        )

    def add(self, entry: Entry) -> Addition | None:
        """The record of a message that is new; None for one that is known as it is."""
        known = self._known(entry.message_id) if entry.draft.message.id else None
        if known is None:
            return self._add_new(entry)
        if known.digest in {None, entry.digest}:  # what was withdrawn stays so
            self._previous = known.place
            return None
        return self._add_revision(entry, known)

    def _known(self, message_id: str) -> Known | None:
        added = self._added.get(message_id)
        return self._stored(message_id) if added is None else added.known

    def _add_new(self, entry: Entry) -> Addition:
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
        total_tokens += draft.tokens
        total_importance += draft.importance
        place = Place(
            branch, position, position, session, entry.at_us, total_tokens, total_importance
        )
        self._move(place)
        self._previous, self._branch = place, branch
        return self._chained(entry, place, None if previous is None else previous.position, 0)

    def _add_revision(self, entry: Entry, known: Known) -> Addition:
        draft = entry.draft
        place = Place(
            branch=known.branch,
            slot=known.slot,
            position=self._records,
            session=known.session,
            at=entry.at_us,
            total_tokens=known.total_tokens - known.tokens + draft.tokens,
            total_importance=known.total_importance - known.importance + draft.importance,
        )
        if self._tip(known.branch).slot == known.slot:
            self._move(place)
        self._previous = place
        self._revisions += 1
        return self._chained(entry, place, known.parent, known.revision + 1)

    def _chained(self, entry: Entry, place: Place, parent: int | None, revision: int) -> Addition:
        draft = entry.draft
        speaker, importance = draft.message.name, float(draft.importance)
        fields = (
            self._user_id,
            place.branch,
            place.position,
            place.slot,
            revision,
            parent,
            place.session,
            bytes_of(entry.message_id),
            role_of(draft.message),
            None if speaker is None else bytes_of(speaker),
            entry.at_us,
            draft.tokens,
            draft.encoding,
            importance,
            int(draft.cues),
            place.total_tokens,
            place.total_importance,
        )
        fields_digest = row_digest((*self._owner, *fields), entry.terms)
        self._chain = link(self._chain, entry.digest, fields_digest)
        self._records += 1
        self._bytes += len(entry.payload)
        new = self._added[entry.message_id] = Addition(entry, fields, self._chain)
        return new

    def _tip(self, branch: int) -> Place:
        tip = self._tips.get(branch)
        if tip is None:
            tip = self._tips[branch] = self._stored_tip(branch)
        return tip

    def _move(self, place: Place) -> None:
        self._tips[place.branch] = self.moved[place.branch] = place

    def _fork(self, previous: Place | None) -> int:
        branch = self._branches
        self._branches += 1
        after = (None, None) if previous is None else (previous.branch, previous.slot)
        self.forks.append(Fork(branch, *after))
        return branch
