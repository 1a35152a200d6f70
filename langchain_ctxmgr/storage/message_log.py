"""The message log: everything ever said, append-only, by tenant and thread.

The log is the truth; views, vectors and summaries are made from it and can be made
again. A record is never changed: the same message id with other content is a *revision*
that takes the slot of what it revises. A message that follows one which is not the last
of its line starts a *branch*. Each record is chained by hash to the one before it in its
thread, so `verify` finds what was changed, swapped, removed or cut off. The chain has no
secret: it finds damage and tampering with rows, not a forger who rewrites all of it.

Each method that waits has an async twin. A scope without `tenant_id` is a `ValueError`
everywhere; where a method needs one thread, so is a scope without `thread_id`.
Elsewhere a scope with a `thread_id` narrows to that thread, and without one a `user_id`
narrows `fetch`, `turns` and `search` to that user's records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from langchain_ctxmgr.records import Branch, Draft, LogRecord, Scope, Turn, Weighed
from langchain_ctxmgr.turns import NO_TURNS, Turns

SESSION_GAP: Final = timedelta(hours=4)
"""A longer pause than this starts a new session."""
MAX_PROBLEMS: Final = 100
"""How many problems `verify` tells apart; the rest is a count."""


class IndexEntry(NamedTuple):
    """A record with its terms, for an index to take in."""

    record: LogRecord
    terms: tuple[int, ...]


class PendingRecords(NamedTuple):
    """The next records for an index."""

    entries: list[IndexEntry]
    until_seq: int
    """Every record of the tenant up to here is among them, damaged, or was taken before."""
    damaged: tuple[int, ...]
    """The `seq`s of records that cannot be read: `verify` says more."""


class IndexMarks(NamedTuple):
    """How far an index follows a tenant's log."""

    words_seq: int = 0
    """The `seq` up to which it has the records' keywords."""
    dense_seq: int = 0
    """The `seq` up to which it has their embeddings."""
    erasure_id: int = 0
    """The newest erasure of the tenant's that it has carried out."""


class Erasure(NamedTuple):
    """Something erased from the log, for an index to follow."""

    id: int
    """Rises from one to the next."""
    scope: Scope
    seqs: tuple[int, ...] | None = None
    """Which records of the thread; None for all that were there."""


class Stated(NamedTuple):
    """What a record states, as `put_stated` was given it, and whose record it is."""

    seq: int
    thread_id: str
    branch: int
    slot: int
    user_id: str | None
    message_id: str
    at: datetime
    value: bytes


class Weighing(NamedTuple):
    """What a user marks a message as."""

    at: datetime
    is_pinned: bool | None = None
    """None: as before."""
    weight: float | None = None


class ThreadUse(NamedTuple):
    """A thread, and whether others spoke in it too."""

    thread_id: str
    is_shared: bool
    """With others than the user asked for, or with records of no user."""
    newest_at: datetime
    """When the last message was said, on whichever branch."""


class TermHit(NamedTuple):
    """A record found by its terms."""

    seq: int
    score: float
    """BM25, higher is better; comparable within one search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What `verify` found."""

    records: int
    """How many were checked."""
    problems: tuple[str, ...]
    """What is wrong, with thread and position; at most `MAX_PROBLEMS` and a count."""

    @property
    def ok(self) -> bool:
        """Whether the log is as it was written."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What `erase` removed."""

    threads: int
    messages: int
    """Records, revisions included."""
    derived: int
    """Stored choices and summaries made from them, and records of which statements were kept."""
    seqs: tuple[int, ...]
    """The records' `seq`s: the ids of their points in a vector store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Which messages of a scope to erase: those that fulfil all that is given."""

    message_ids: tuple[str, ...] | None = None
    """With these ids; None for any."""
    seqs: tuple[int, ...] | None = None
    """Of these records; None for any."""
    since: datetime | None = None
    """Said at this time or later."""
    until: datetime | None = None
    """Said before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStats:
    """How much a tenant or a thread has in the log."""

    threads: int
    records: int
    """Revisions included."""
    revisions: int
    bytes: int
    """Size of the stored messages, without indexes."""


class MessageLog(Protocol):
    """Where messages are kept. Safe to share between threads and tasks."""

    def setup(self) -> None:
        """Create or update the tables; also done on first use.

        Raises:
            StorageError: If the log cannot be opened; the message says how to mend it.
        """
        ...

    def close(self) -> None:
        """Give back connections. May be called again; other methods then raise StorageError."""
        ...

    def append(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """Add `drafts` to a thread, all or none, and return the records that are new.

        A message whose id and content are in the thread already adds nothing; one whose id
        is there with other content adds a revision. A message without an id is always
        new: the record is given an id, the stored message stays without. A new message
        follows the draft before it; the first follows the head of the newest branch. If
        what it follows is not the last of its branch, it starts a branch.

        Raises:
            ValueError: For a draft that cannot be recorded; nothing is then.
            StorageError: If the store is full, read-only or locked too long.
        """
        ...

    def branch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """The line of the thread written to last, or the one that ends at message id `head`.

        Raises:
            ValueError: If no message of the thread has the id `head`.
        """
        ...

    def read(
        self,
        branch: Branch,
        *,
        from_slot: int = 0,
        before_slot: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        roles: Collection[str] | None = None,
    ) -> list[LogRecord]:
        """Records of `branch` in slot order, the newest revision of each.

        With `newest_first` the order is reversed, so that `limit` keeps the newest.
        """
        ...

    def locate(self, branch: Branch, total_tokens: int) -> int | None:
        """The slot of the first message of `branch` with at least `total_tokens` before it.

        Counts messages as first recorded. None if there is none.
        """
        ...

    def find(self, branch: Branch, message_id: str) -> LogRecord | None:
        """The newest revision of a message on `branch`; None if it is not there."""
        ...

    def revised(self, branch: Branch, *, before_slot: int) -> int | None:
        """The position of the newest revision of a message before `before_slot`.

        None where all of `branch` up to there stands as first recorded.
        """
        ...

    def fetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """The records with these `seq`s, in the order asked for; others' are absent."""
        ...

    def turns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`fetch` without texts and without superseded revisions, each turn once.

        With `around`, also what stands up to so many slots before and after each on its
        branch, as far as `scope` sees it. Without the turns `known` to the caller.
        """
        ...

    def top(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """The most important human, ai and tool messages with terms, first come first at ties.

        As first recorded or last revised, like `read`.
        """
        ...

    def search(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """Records after `after_seq` with any of `terms`, best BM25 score first, ties by `seq`.

        Scored among the records `scope` sees.
        """
        ...

    def tenants(self) -> list[str]:
        """Every tenant an index may have something of, in a fixed order."""
        ...

    def pending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """The next `limit` records of a tenant after `after_seq`, for an index.

        A record recorded later never has a `seq` up to `until_seq`, whatever is being
        appended meanwhile, so an index that goes on from there misses none.
        """
        ...

    def last_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """The `seq` of the tenant's newest record, up to `until_seq` if given; 0 for none."""
        ...

    def marks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """How far an index has followed a tenant's log; zeros for an unknown one."""
        ...

    def set_marks(self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int) -> None:
        """Note how far an index has taken in a tenant's records."""
        ...

    def erasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """What was erased of a tenant after the erasure `after_id`, oldest first.

        One that is noted later never has a lower id.
        """
        ...

    def set_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """Note that an index has carried out a tenant's erasures up to `erasure_id`, at least."""
        ...

    def unfollowed(self, index_id: str, limit: int) -> list[str]:
        """Up to `limit` tenants with an erasure that an index has not carried out."""
        ...

    def claim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """Whether `holder` alone may do `task` for a tenant during the next `duration`.

        Its holder may claim a task again, which prolongs it; another one may once the
        duration is over by the store's clock, or after `release`.
        """
        ...

    def release(self, tenant_id: str, task: str, holder: str) -> None:
        """Give a claimed task back; nothing happens where `holder` does not hold it."""
        ...

    def get_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """What `put_derived` stored for the thread, if it is still kept."""
        ...

    def put_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """Store a choice made from what `branch` shows; the newest `keep` of its kind stay.

        Nothing is stored once the head of `branch` is erased, whatever has been recorded in
        the thread since: what was made from erased text does not come back.
        """
        ...

    def put_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """Keep what records state, by their `seq`s, for as long as they are recorded.

        All that was kept of the tenant's records after `after_seq` up to `until_seq` makes way.
        Records that are erased by now, or another tenant's, are left out.
        """
        ...

    def stated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """What the records that `scope` sees state, in the order recorded.

        All branches, without superseded revisions; only of records after `after_seq`.
        """
        ...

    def stated_count(self, scope: Scope) -> int:
        """How many records `stated` gives."""
        ...

    def weigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """Pin, boost or mute a message of a thread; whether the thread has it.

        Kept until the message is erased, for all of its revisions.
        """
        ...

    def weighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """What is pinned, boosted or muted of the records that `scope` sees, last marked last.

        With `beside`, also of the tenant's threads whose names start with it, of whichever user.
        """
        ...

    def threads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """The threads with records, or those that a user spoke in, by name.

        Args:
            scope: A tenant, narrowed to a user or a thread where these are given.
            prefix: Only those whose names start with it.
        """
        ...

    def history(self, scope: Scope) -> Iterator[LogRecord]:
        """Every record of a thread in the order recorded: all revisions, all branches."""
        ...

    def verify(self, scope: Scope | None = None) -> Verification:
        """Re-derive every hash and total of a thread, a tenant or the whole log."""
        ...

    def erase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """Remove a thread or a whole tenant: nothing of it is left in the store's files.

        With a thread, the threads named in `also` go too.

        In the same transaction it is noted among `erasures`, so that every index follows,
        whatever happens to this process. May be called again: a scope without records
        adds no erasure. The thread can be recorded into afterwards, from position 0.

        Raises:
            ValueError: If the scope names a user.
            StorageError: If the rows are gone but other connections keep the files from
                being cleaned; the next `erase` finishes it.
        """
        ...

    def withdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """Remove single messages of a tenant, a user or a thread, with all their revisions.

        Their places in the chain stay, as hashes, so that `verify` holds and whoever has a
        message can prove that it was there; so do their ids, times and sizes: a message with such
        an id that is recorded again stays erased. It is noted among `erasures`, and what was
        stored of a branch of these threads is removed.

        Raises:
            ValueError: If the scope has no tenant.
            StorageError: As `erase`.
        """
        ...

    def tenant_stats(self, scope: Scope) -> LogStats:
        """How much a tenant, or one of its threads, has recorded."""
        ...

    async def asetup(self) -> None:
        """`setup` without blocking the event loop."""
        ...

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        ...

    async def aappend(self, scope: Scope, drafts: Sequence[Draft]) -> list[LogRecord]:
        """`append` without blocking the event loop."""
        ...

    async def abranch(self, scope: Scope, *, head: str | None = None) -> Branch:
        """`branch` without blocking the event loop."""
        ...

    async def aread(
        self,
        branch: Branch,
        *,
        from_slot: int = 0,
        before_slot: int | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        roles: Collection[str] | None = None,
    ) -> list[LogRecord]:
        """`read` without blocking the event loop."""
        ...

    async def alocate(self, branch: Branch, total_tokens: int) -> int | None:
        """`locate` without blocking the event loop."""
        ...

    async def afind(self, branch: Branch, message_id: str) -> LogRecord | None:
        """`find` without blocking the event loop."""
        ...

    async def arevised(self, branch: Branch, *, before_slot: int) -> int | None:
        """`revised` without blocking the event loop."""
        ...

    async def afetch(self, scope: Scope, seqs: Sequence[int]) -> list[LogRecord]:
        """`fetch` without blocking the event loop."""
        ...

    async def aturns(
        self,
        scope: Scope,
        seqs: Sequence[int],
        *,
        around: int = 0,
        known: Turns = NO_TURNS,
    ) -> Turns:
        """`turns` without blocking the event loop."""
        ...

    async def atop(self, branch: Branch, *, before_slot: int, limit: int) -> list[Turn]:
        """`top` without blocking the event loop."""
        ...

    async def asearch(
        self, scope: Scope, terms: Sequence[int], *, limit: int, after_seq: int = 0
    ) -> list[TermHit]:
        """`search` without blocking the event loop."""
        ...

    async def atenants(self) -> list[str]:
        """`tenants` without blocking the event loop."""
        ...

    async def apending(self, tenant_id: str, after_seq: int, limit: int) -> PendingRecords:
        """`pending` without blocking the event loop."""
        ...

    async def alast_seq(self, tenant_id: str, *, until_seq: int | None = None) -> int:
        """`last_seq` without blocking the event loop."""
        ...

    async def amarks(self, tenant_id: str, index_id: str) -> IndexMarks:
        """`marks` without blocking the event loop."""
        ...

    async def aset_marks(
        self, tenant_id: str, index_id: str, *, words_seq: int, dense_seq: int
    ) -> None:
        """`set_marks` without blocking the event loop."""
        ...

    async def aerasures(self, tenant_id: str, after_id: int) -> list[Erasure]:
        """`erasures` without blocking the event loop."""
        ...

    async def aset_erased(self, tenant_id: str, index_id: str, erasure_id: int) -> None:
        """`set_erased` without blocking the event loop."""
        ...

    async def aunfollowed(self, index_id: str, limit: int) -> list[str]:
        """`unfollowed` without blocking the event loop."""
        ...

    async def aclaim(self, tenant_id: str, task: str, holder: str, duration: timedelta) -> bool:
        """`claim` without blocking the event loop."""
        ...

    async def arelease(self, tenant_id: str, task: str, holder: str) -> None:
        """`release` without blocking the event loop."""
        ...

    async def aget_derived(self, scope: Scope, kind: str, key: str) -> bytes | None:
        """`get_derived` without blocking the event loop."""
        ...

    async def aput_derived(
        self, branch: Branch, kind: str, key: str, value: bytes, *, keep: int = 8
    ) -> None:
        """`put_derived` without blocking the event loop."""
        ...

    async def aput_stated(
        self, tenant_id: str, values: Mapping[int, bytes], *, after_seq: int, until_seq: int
    ) -> None:
        """`put_stated` without blocking the event loop."""
        ...

    async def astated(self, scope: Scope, *, after_seq: int = 0) -> list[Stated]:
        """`stated` without blocking the event loop."""
        ...

    async def astated_count(self, scope: Scope) -> int:
        """`stated_count` without blocking the event loop."""
        ...

    async def aweigh(self, scope: Scope, message_id: str, given: Weighing) -> bool:
        """`weigh` without blocking the event loop."""
        ...

    async def aweighed(self, scope: Scope, *, beside: str | None = None) -> list[Weighed]:
        """`weighed` without blocking the event loop."""
        ...

    async def athreads(self, scope: Scope, *, prefix: str = "") -> list[ThreadUse]:
        """`threads` without blocking the event loop."""
        ...

    def ahistory(self, scope: Scope) -> AsyncIterator[LogRecord]:
        """`history` without blocking the event loop."""
        ...

    async def averify(self, scope: Scope | None = None) -> Verification:
        """`verify` without blocking the event loop."""
        ...

    async def aerase(self, scope: Scope, *, also: Sequence[str] = ()) -> Erased:
        """`erase` without blocking the event loop."""
        ...

    async def awithdraw(self, scope: Scope, which: Withdrawal) -> Erased:
        """`withdraw` without blocking the event loop."""
        ...

    async def atenant_stats(self, scope: Scope) -> LogStats:
        """`tenant_stats` without blocking the event loop."""
        ...


def tenant_of(scope: Scope) -> str:
    """The tenant a scope names.

    Raises:
        ValueError: If it names none.
    """
    if scope.tenant_id is None:
        raise ValueError(f"scope must have a tenant_id, got {scope}")
    return scope.tenant_id


def require_whole(scope: Scope, doing: str) -> None:
    """Return when `scope` names a whole thread or tenant: what is done takes all of it.

    Raises:
        ValueError: If it names no tenant, or a user: their records cannot be told apart there,
            and taking everyone's for them would be far too much.
    """
    tenant_of(scope)
    if scope.user_id is not None:
        raise ValueError(
            f"scope must name a thread or a tenant to {doing}, without a user, "
            f"got user_id={scope.user_id!r}"
        )


def user_of(scope: Scope) -> str | None:
    """The user whose records alone a scope sees; None if it sees every user's."""
    return scope.user_id if scope.thread_id is None else None


def thread_of(scope: Scope) -> tuple[str, str]:
    """The tenant and thread a scope names.

    Raises:
        ValueError: If it lacks one.
    """
    tenant_id = tenant_of(scope)
    if scope.thread_id is None:
        raise ValueError(f"scope must have a thread_id, got {scope}")
    return tenant_id, scope.thread_id
