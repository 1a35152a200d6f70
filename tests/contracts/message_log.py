"""What every message log must do, blocking and on an event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.records import Draft, LogRecord, Scope
from langchain_ctxmgr.storage.message_log import IndexMarks, MessageLog, PendingRecords
from langchain_ctxmgr.turns import Turns

ALICE = Scope(tenant_id="acme", thread_id="t1", user_id="alice")
BOB = Scope(tenant_id="acme", thread_id="t2", user_id="bob")
OTHER = Scope(tenant_id="globex", thread_id="t1")
ALICES = Scope(tenant_id="acme", thread_id="t1")
"""The whole of a thread, as what takes all of it wants it named."""
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
CANARY = "canaryword"


def draft(
    text="hello", key=None, *, message=None, minutes=0, tokens=10, importance=0.5, terms=(1, 2, 2)
):
    return Draft(
        message=message or HumanMessage(text, id=key),
        at=NOON + timedelta(minutes=minutes),
        tokens=tokens,
        encoding="o200k_base",
        importance=importance,
        terms=tuple(terms),
        cues=5,
    )


def talk(count, first=0, **given):
    return [draft(f"m{n}", f"m{n}", minutes=n, **given) for n in range(first, first + count)]


def most_important(log, branch, *, before_slot, limit):
    scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
    best = log.top(branch, before_slot=before_slot, limit=limit)
    return log.fetch(scope, [turn.seq for turn in best])


def terms_of(log, seqs):
    """Every term of the records: all of them match."""
    tenants = log.tenants()
    found = [log.pending(name, min(seqs) - 1, len(seqs)) for name in tenants]
    return sorted({term for page in found for entry in page.entries for term in entry.terms})


def texts(records):
    return [record.message.content for record in records]


def ids(records):
    return [record.message_id for record in records]


class AsyncLog:
    """A log whose methods run their async twins to the end: the same tests hold it to them."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self._log, f"a{name}")

        def run(*args, **kwargs):
            answer = twin(*args, **kwargs)
            if inspect.isasyncgen(answer):
                return iter(self._loop.run_until_complete(self._all(answer)))
            return self._loop.run_until_complete(answer)

        return run

    async def _all(self, records) -> list[LogRecord]:
        return [record async for record in records]

    def stop(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class MessageLogContract:
    """Subclass it and say how to make a log."""

    def make(self, tmp_path: Any) -> MessageLog:
        raise NotImplementedError

    @pytest.fixture
    def plain(self, tmp_path) -> Iterator[MessageLog]:
        log = self.make(tmp_path)
        log.setup()
        yield log
        log.close()

    @pytest.fixture(params=["blocking", "async"])
    def log(self, request, plain) -> Iterator[Any]:
        if request.param == "blocking":
            yield plain
            return
        twin = AsyncLog(plain)
        yield twin
        twin.stop()

    # Appending

    def test_an_appended_message_comes_back_as_it_was(self, log):
        said = AIMessage(
            "It is 7:40.",
            id="m1",
            name="Ann \ud83d",
            tool_calls=[{"name": "clock", "args": {"zone": ("a", b"\x00")}, "id": "c1"}],
            usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            response_metadata={"logprobs": [float("inf"), 2**70]},
        )
        given = Draft(said, NOON.astimezone(timezone(timedelta(hours=9))), 12, "x", 0.25, (7, 9), 3)
        [new] = log.append(ALICE, [given])
        [kept] = log.history(ALICE)
        assert kept == new
        assert kept.message == said
        assert (kept.role, kept.speaker, kept.message_id) == ("ai", "Ann \ud83d", "m1")
        assert (kept.tenant_id, kept.thread_id, kept.user_id) == ("acme", "t1", "alice")
        assert kept.at == NOON
        assert kept.at.utcoffset() == timedelta(0)
        assert (kept.tokens, kept.encoding, kept.importance, kept.cues) == (12, "x", 0.25, 3)
        assert (kept.position, kept.slot, kept.revision, kept.parent) == (0, 0, 0, None)
        assert (kept.branch, kept.session) == (0, 0)
        assert len(kept.digest) == len(kept.chain) == 32

    def test_positions_are_dense_and_totals_run_along_the_thread(self, log):
        log.append(ALICE, talk(3))
        log.append(BOB, talk(2))
        records = log.append(ALICE, talk(2, first=3))
        records = [*log.history(ALICE)]
        assert [r.position for r in records] == [0, 1, 2, 3, 4]
        assert [r.slot for r in records] == [0, 1, 2, 3, 4]
        assert [r.parent for r in records] == [None, 0, 1, 2, 3]
        assert [r.total_tokens for r in records] == [10, 20, 30, 40, 50]
        assert [r.total_importance for r in records] == [0.5, 1.0, 1.5, 2.0, 2.5]
        seqs = [r.seq for r in records]
        assert seqs == sorted(set(seqs))

    def test_a_message_recorded_again_adds_nothing(self, log):
        log.append(ALICE, talk(3))
        assert log.append(ALICE, talk(3)) == []
        assert ids(log.append(ALICE, talk(4))) == ["m3"]
        assert ids(log.append(ALICE, [*talk(1, first=4), *talk(1, first=4)])) == ["m4"]
        assert len(list(log.history(ALICE))) == 5

    def test_the_same_id_with_other_content_is_a_revision_in_the_same_slot(self, log):
        log.append(ALICE, talk(3))
        [revision] = log.append(ALICE, [draft("edited", "m1", tokens=30)])
        assert (revision.slot, revision.position, revision.revision) == (1, 3, 1)
        assert (revision.parent, revision.branch, revision.total_tokens) == (0, 0, 40)
        branch = log.branch(ALICE)
        assert texts(log.read(branch)) == ["m0", "edited", "m2"]
        assert texts(log.history(ALICE)) == ["m0", "m1", "m2", "edited"]
        assert log.find(branch, "m1") == revision
        [back] = log.append(ALICE, [draft("m1", "m1")])
        assert back.revision == 2
        assert texts(log.read(log.branch(ALICE))) == ["m0", "m1", "m2"]
        assert log.tenant_stats(ALICE).revisions == 2

    def test_a_revised_last_message_is_the_head_and_sets_the_totals(self, log):
        log.append(ALICE, talk(2))
        log.append(ALICE, [draft("longer", "m1", tokens=25)])
        head = log.branch(ALICE).head
        assert (head.message.content, head.total_tokens) == ("longer", 35)
        [after] = log.append(ALICE, [draft("next", "m2")])
        assert (after.total_tokens, after.branch, after.parent) == (45, 0, head.position)

    def test_a_message_without_an_id_is_always_new_and_stays_without(self, log):
        log.append(ALICE, [draft("hi"), draft("hi")])
        first, second = log.history(ALICE)
        assert first.message_id
        assert first.message_id != second.message_id
        assert first.message.id is None

    def test_one_bad_draft_keeps_the_whole_batch_out(self, log):
        naive = NOON.replace(tzinfo=None)
        for bad in (
            draft(message=RemoveMessage(id="m0")),
            draft()._replace(at=naive),
            draft(importance=1.5),
            draft(importance=float("nan")),
            draft(tokens=-1),
            draft(terms=(2**40,)),
            draft()._replace(cues=-1),
        ):
            with pytest.raises(ValueError, match=r"must|RemoveMessage"):
                log.append(ALICE, [*talk(2), bad])
        assert list(log.history(ALICE)) == []
        assert log.append(ALICE, []) == []
        assert log.last_seq("acme") == 0

    def test_a_long_pause_starts_a_session_and_a_clock_set_back_does_not(self, log):
        minutes = (0, 240, 481, 100, 200, 900)
        log.append(ALICE, [draft(str(m), minutes=m) for m in minutes])
        assert [r.session for r in log.history(ALICE)] == [0, 0, 1, 1, 1, 2]

    def test_every_text_may_hold_any_character(self, log):
        odd = "\ud83d\ude00 \udc00 \0 \u202e"
        scope = Scope(tenant_id="a'b\"; --", thread_id="%_ \u2028", user_id="ü")
        log.append(scope, [draft(odd, odd, message=HumanMessage(odd, id=odd, name=odd))])
        [kept] = log.history(scope)
        assert (kept.message.content, kept.message_id, kept.speaker) == (odd, odd, odd)
        assert log.find(log.branch(scope), odd) == kept

    # Branches

    def test_a_thread_without_records_is_an_empty_branch(self, log):
        branch = log.branch(ALICE)
        assert (branch.spans, branch.head) == ((), None)
        assert log.read(branch) == []
        assert log.top(branch, before_slot=10, limit=5) == []
        assert log.locate(branch, 0) is None
        assert log.find(branch, "m0") is None
        assert list(log.history(ALICE)) == []

    def test_a_message_after_one_in_the_middle_starts_a_branch(self, log):
        log.append(ALICE, talk(4))
        [other] = log.append(ALICE, [*talk(2), draft("other", "x2")])
        assert (other.branch, other.parent, other.slot, other.total_tokens) == (1, 1, 4, 30)
        log.append(ALICE, [*talk(2), draft("other", "x2"), draft("more", "x3")])
        assert texts(log.read(log.branch(ALICE))) == ["m0", "m1", "other", "more"]
        assert texts(log.read(log.branch(ALICE, head="m3"))) == ["m0", "m1", "m2", "m3"]
        assert texts(log.read(log.branch(ALICE, head="m1"))) == ["m0", "m1"]
        assert log.find(log.branch(ALICE), "m2") is None
        assert log.find(log.branch(ALICE, head="m3"), "x2") is None
        log.append(ALICE, talk(5))
        assert texts(log.read(log.branch(ALICE))) == ["m0", "m1", "m2", "m3", "m4"]
        assert log.verify().ok

    def test_a_branch_can_fork_again(self, log):
        log.append(ALICE, talk(2))
        for fork in range(5):
            log.append(ALICE, [draft("m0", "m0", minutes=0), draft(f"f{fork}", f"f{fork}")])
            log.append(ALICE, [draft(f"f{fork}", f"f{fork}"), draft(f"g{fork}", f"g{fork}")])
        log.append(ALICE, [draft("f2", "f2"), draft("h", "h")])
        assert texts(log.read(log.branch(ALICE))) == ["m0", "f2", "h"]
        assert texts(log.read(log.branch(ALICE), newest_first=True)) == ["h", "f2", "m0"]
        assert texts(log.read(log.branch(ALICE), newest_first=True, limit=2)) == ["h", "f2"]

    def test_a_message_without_a_known_one_before_it_follows_the_newest_head(self, log):
        log.append(ALICE, talk(3))
        [new] = log.append(ALICE, [draft("alone", "x")])
        assert (new.parent, new.branch) == (2, 0)

    def test_an_unknown_head_is_named(self, log):
        log.append(ALICE, talk(1))
        for scope in (ALICE, BOB, OTHER):
            with pytest.raises(ValueError, match="nope"):
                log.branch(scope, head="nope")

    def test_a_head_in_another_thread_is_unknown(self, log):
        log.append(ALICE, talk(2))
        log.append(OTHER, talk(1))
        with pytest.raises(ValueError, match="m1"):
            log.branch(OTHER, head="m1")

    # Reading

    def test_read_takes_a_range_from_either_end_and_by_role(self, log):
        drafts = [
            draft(message=HumanMessage("q", id="q")),
            draft(message=AIMessage("", id="a", tool_calls=[{"name": "f", "args": {}, "id": "c"}])),
            draft(message=ToolMessage("r", id="r", tool_call_id="c")),
            draft(message=AIMessage("end", id="e")),
        ]
        log.append(ALICE, drafts)
        branch = log.branch(ALICE)
        assert ids(log.read(branch, from_slot=1, before_slot=3)) == ["a", "r"]
        assert ids(log.read(branch, limit=2)) == ["q", "a"]
        assert ids(log.read(branch, limit=2, newest_first=True)) == ["e", "r"]
        assert ids(log.read(branch, roles={"human", "tool"})) == ["q", "r"]
        assert ids(log.read(branch, roles={"ai"}, newest_first=True, limit=1)) == ["e"]
        assert log.read(branch, limit=0) == []
        assert log.read(branch, roles=()) == []
        assert log.read(branch, from_slot=9) == []

    def test_a_branch_is_read_as_it_was_when_asked_for(self, log):
        log.append(ALICE, talk(2))
        branch = log.branch(ALICE)
        log.append(ALICE, talk(4))
        assert texts(log.read(branch)) == ["m0", "m1"]

    def test_locate_finds_where_so_many_tokens_have_been_said(self, log):
        log.append(ALICE, talk(10))
        log.append(ALICE, [draft("edited", "m4", tokens=1_000)])
        branch = log.branch(ALICE)
        assert [log.locate(branch, n) for n in (0, 1, 10, 11, 89, 90, 91)] == [
            *(0, 1, 1, 2, 9, 9),
            None,
        ]
        log.append(ALICE, [draft("m2", "m2", minutes=2), draft("x", "x", tokens=50)])
        branch = log.branch(ALICE)
        assert [log.locate(branch, n) for n in (20, 30, 31)] == [2, 11, None]

    def test_fetch_and_turns_keep_the_order_asked_for(self, log):
        records = log.append(ALICE, talk(5))
        seqs = [records[n].seq for n in (3, 0, 4)]
        assert ids(log.fetch(ALICE, [*seqs, 999])) == ["m3", "m0", "m4"]
        turns = log.turns(ALICE, [*seqs, 999])
        assert [turn.seq for turn in turns] == seqs
        kept = records[3]
        assert turns[0].thread_id == "t1"
        for name in ("slot", "branch", "session", "role", "speaker", "at", "tokens", "cues"):
            assert getattr(turns[0], name) == getattr(kept, name)

    def test_without_a_thread_a_user_sees_their_own_records_only(self, log):
        alice, bob = (
            log.append(Scope(tenant_id="acme", thread_id=name, user_id=name), [draft(name, name)])
            for name in ("alice", "bob")
        )
        nobody = log.append(Scope(tenant_id="acme", thread_id="none"), [draft("none", "none")])
        seqs = [record.seq for records in (alice, bob, nobody) for record in records]
        own = Scope(tenant_id="acme", user_id="alice")
        assert ids(log.fetch(own, seqs)) == ["alice"]
        assert [turn.seq for turn in log.turns(own, seqs)] == seqs[:1]
        assert [turn.seq for turn in log.turns(own, seqs, around=2)] == seqs[:1]
        found = log.search(own, [*draft("x", "x").terms, *terms_of(log, seqs)], limit=9)
        assert [hit.seq for hit in found] == seqs[:1]

    def test_turns_come_with_what_stands_around_them_in_their_own_thread(self, log):
        for number in range(8):
            log.append(ALICE, [draft(f"m{number}", f"m{number}")])
            log.append(BOB, [draft(f"b{number}", f"b{number}")])
        by_slot = {turn.slot: turn.seq for turn in log.read(log.branch(ALICE))}
        for scope in (ALICE, Scope(tenant_id="acme")):
            near = log.turns(scope, [by_slot[0], by_slot[5], by_slot[6]], around=1)
            assert sorted(turn.slot for turn in near) == [0, 1, 4, 5, 6, 7]
            assert {turn.thread_id for turn in near} == {ALICE.thread_id}

    def test_turns_come_without_those_the_caller_knows(self, log):
        log.append(ALICE, talk(8))
        by_slot = {turn.slot: turn.seq for turn in log.read(log.branch(ALICE))}
        asked = [by_slot[slot] for slot in (0, 4, 5)]
        log.append(ALICE, [draft("edited", "m3")])
        [edited] = [turn.seq for turn in log.read(log.branch(ALICE), from_slot=3, before_slot=4)]
        for scope in (ALICE, Scope(tenant_id="acme"), Scope(tenant_id="acme", user_id="alice")):
            known = log.turns(scope, asked[:2])
            assert [turn.seq for turn in log.turns(scope, asked, known=known)] == asked[2:]
            near = log.turns(scope, asked, around=2, known=known)
            assert sorted(turn.slot for turn in near) == [1, 2, 3, 5, 6, 7]
            assert edited in {turn.seq for turn in near}
            assert not log.turns(scope, asked, around=2, known=Turns.joined([known, near]))
        assert not log.turns(BOB, asked, around=2, known=known)
        assert not log.turns(OTHER, asked, around=2, known=known)

    def test_a_superseded_revision_is_no_turn_but_can_be_fetched(self, log):
        [old, _] = log.append(ALICE, talk(2))
        [new] = log.append(ALICE, [draft("edited", "m0")])
        assert [t.seq for t in log.turns(ALICE, [old.seq, new.seq])] == [new.seq]
        assert texts(log.fetch(ALICE, [old.seq, new.seq])) == ["m0", "edited"]

    def test_top_gives_the_most_important_with_words_first_come_first(self, log):
        log.append(
            ALICE,
            [
                draft("a", "a", importance=0.5),
                draft("b", "b", importance=0.9),
                draft("c", "c", importance=0.5),
                draft("none", "none", importance=1.0, terms=()),
                draft(message=SystemMessage("s", id="s"), importance=1.0),
                draft("late", "late", importance=1.0),
            ],
        )
        log.append(ALICE, [draft("a2", "a", importance=0.6)])
        branch = log.branch(ALICE)
        assert texts(most_important(log, branch, before_slot=5, limit=9)) == ["b", "a2", "c"]
        assert texts(most_important(log, branch, before_slot=5, limit=1)) == ["b"]
        assert texts(most_important(log, branch, before_slot=6, limit=1)) == ["late"]

    # Finding by terms

    def test_search_scores_rare_and_repeated_terms_higher(self, log):
        log.append(
            ALICE,
            [
                draft("common", "a", terms=(1, 1, 2)),
                draft("rare", "b", terms=(1, 3, 4)),
                draft("twice", "c", terms=(3, 3, 4)),
                draft("none", "d", terms=(8, 9)),
                draft("empty", "e", terms=()),
                draft("common", "f", terms=(1, 5, 2)),
            ],
        )
        hits = log.search(ALICE, (3, 77), limit=9)
        assert ids(log.fetch(ALICE, [hit.seq for hit in hits])) == ["c", "b"]
        assert hits[0].score > hits[1].score > 0
        hits = log.search(ALICE, (3, 1), limit=2)
        assert ids(log.fetch(ALICE, [hit.seq for hit in hits])) == ["b", "c"]
        assert log.search(ALICE, (), limit=9) == []
        assert log.search(ALICE, (77,), limit=9) == []
        assert log.search(ALICE, (3,), limit=0) == []

    def test_equal_scores_come_in_the_order_recorded(self, log):
        records = log.append(ALICE, talk(6))
        hits = log.search(ALICE, (1,), limit=4)
        assert [hit.seq for hit in hits] == [record.seq for record in records[:4]]

    def test_search_sees_one_thread_or_one_tenant_and_never_another(self, log):
        for scope in (ALICE, BOB, OTHER):
            log.append(scope, [draft(CANARY, "m", terms=(42,))])
        tenant = Scope(tenant_id="acme")
        for scope, threads in ((ALICE, {"t1"}), (tenant, {"t1", "t2"}), (OTHER, {"t1"})):
            seqs = [hit.seq for hit in log.search(scope, (42,), limit=9)]
            found = log.fetch(Scope(tenant_id=scope.tenant_id), seqs)
            assert {record.thread_id for record in found} == threads
            assert {record.tenant_id for record in found} == {scope.tenant_id}
        assert log.search(Scope(tenant_id="acme", thread_id="t9"), (42,), limit=9) == []
        assert log.search(Scope(tenant_id="nobody"), (42,), limit=9) == []

    def test_search_after_a_record_sees_only_what_is_newer(self, log):
        records = log.append(ALICE, talk(4))
        hits = log.search(ALICE, (1,), limit=9, after_seq=records[1].seq)
        assert {hit.seq for hit in hits} == {record.seq for record in records[2:]}
        assert log.search(ALICE, (1,), limit=9, after_seq=records[3].seq) == []

    # Isolation

    def test_another_tenants_records_are_never_returned(self, log):
        seqs = [record.seq for record in log.append(ALICE, talk(3))]
        log.append(OTHER, talk(1))
        assert log.fetch(OTHER, seqs) == []
        assert not log.turns(OTHER, seqs)
        assert not log.turns(BOB, seqs)
        assert log.fetch(BOB, seqs) == []
        assert len(log.turns(Scope(tenant_id="acme"), seqs)) == 3
        assert ids(log.history(OTHER)) == ["m0"]
        assert log.tenant_stats(OTHER).records == 1

    def test_a_user_without_a_thread_sees_their_own_records_in_every_thread(self, log):
        shared = {name: Scope(tenant_id="acme", thread_id="all", user_id=name) for name in "ab"}
        nobody = Scope(tenant_id="acme", thread_id="all")
        abroad = Scope(tenant_id="globex", thread_id="all", user_id="a")
        private = Scope(tenant_id="acme", thread_id="own", user_id="a")
        writers = (shared["a"], shared["b"], nobody, shared["a"], private, abroad)
        said = [
            log.append(scope, [draft(f"s{n}", f"s{n}", terms=(42,))])[0]
            for n, scope in enumerate(writers)
        ]
        seqs = [record.seq for record in said]
        user = Scope(tenant_id="acme", user_id="a")
        own = [seqs[n] for n in (0, 3, 4)]
        assert [hit.seq for hit in log.search(user, (42,), limit=9)] == own
        assert [hit.seq for hit in log.search(user, (42,), limit=9, after_seq=seqs[0])] == own[1:]
        assert [record.seq for record in log.fetch(user, seqs)] == own
        assert [turn.seq for turn in log.turns(user, seqs)] == own
        assert sorted(log.turns(user, seqs, around=2).seq) == own
        assert not log.turns(user, [seqs[1], seqs[2]], around=2)
        assert log.search(Scope(tenant_id="acme", user_id="c"), (42,), limit=9) == []
        in_thread = seqs[:4]
        assert [hit.seq for hit in log.search(shared["a"], (42,), limit=9)] == in_thread
        assert [record.seq for record in log.fetch(shared["a"], seqs)] == in_thread
        assert [turn.seq for turn in log.turns(shared["a"], seqs[:1], around=3)] == in_thread

    def test_a_users_scores_do_not_depend_on_what_others_say(self, log):
        log.append(ALICE, [*talk(3), draft("rare", "rare", terms=(3, 4))])
        user = Scope(tenant_id="acme", user_id="alice")
        before = log.search(user, (1, 3), limit=9)
        assert before == log.search(ALICE, (1, 3), limit=9)
        log.append(BOB, talk(30, terms=(3,)))
        assert log.search(user, (1, 3), limit=9) == before

    def test_a_scope_without_a_tenant_is_an_error_everywhere(self, log):
        empty = Scope(thread_id="t1")
        for ask in (
            lambda: log.append(empty, talk(1)),
            lambda: log.append(empty, []),
            lambda: log.branch(empty),
            lambda: log.fetch(empty, [1]),
            lambda: log.turns(empty, [1]),
            lambda: log.search(empty, [1], limit=1),
            lambda: log.get_derived(empty, "k", "a"),
            lambda: log.stated(empty),
            lambda: log.stated_count(empty),
            lambda: log.threads(empty),
            lambda: list(log.history(empty)),
            lambda: log.verify(empty),
            lambda: log.erase(empty),
            lambda: log.tenant_stats(empty),
        ):
            with pytest.raises(ValueError, match="tenant_id"):
                ask()

    def test_a_scope_without_a_thread_is_an_error_where_one_is_needed(self, log):
        tenant = Scope(tenant_id="acme")
        for ask in (
            lambda: log.append(tenant, talk(1)),
            lambda: log.branch(tenant),
            lambda: log.get_derived(tenant, "k", "a"),
            lambda: list(log.history(tenant)),
        ):
            with pytest.raises(ValueError, match="thread_id"):
                ask()

    # What indexes need

    def test_pending_hands_an_index_a_tenants_records_in_order(self, log):
        assert log.last_seq("acme") == 0
        assert log.pending("acme", 0, 5) == PendingRecords([], 0, ())
        first = log.append(ALICE, [draft("a", "a", terms=(5, 6, 5))])
        other = log.append(OTHER, talk(2))
        second = log.append(BOB, talk(2, 7))
        page = log.pending("acme", 0, 2)
        assert [entry.record for entry in page.entries] == [*first, second[0]]
        assert page.entries[0].terms == (5, 6, 5)
        assert page.until_seq == second[0].seq
        rest = log.pending("acme", page.until_seq, 9)
        assert [entry.record.seq for entry in rest.entries] == [second[1].seq]
        assert log.pending("acme", rest.until_seq, 9) == PendingRecords([], rest.until_seq, ())
        assert log.last_seq("acme") == second[1].seq
        assert log.last_seq("acme", until_seq=second[0].seq) == second[0].seq
        assert log.last_seq("globex") == other[1].seq
        assert set(log.tenants()) == {"acme", "globex"}

    def test_marks_are_kept_for_each_tenant_and_index(self, log):
        log.append(ALICE, talk(1))
        log.append(OTHER, talk(1))
        assert log.marks("acme", "edge-1") == IndexMarks(0, 0, 0)
        log.set_marks("acme", "edge-1", words_seq=7, dense_seq=2)
        log.set_marks("acme", "edge-2", words_seq=3, dense_seq=3)
        log.set_marks("globex", "edge-1", words_seq=9, dense_seq=0)
        log.set_marks("acme", "edge-1", words_seq=5, dense_seq=4)
        assert log.marks("acme", "edge-1") == IndexMarks(5, 4, 0)
        assert log.marks("acme", "edge-2") == IndexMarks(3, 3, 0)
        assert log.marks("globex", "edge-1") == IndexMarks(9, 0, 0)

    def test_every_erasure_is_noted_for_the_indexes_to_follow(self, log):
        assert log.erasures("acme", 0) == []
        log.append(ALICE, talk(1))
        log.append(BOB, talk(1))
        log.append(OTHER, talk(1))
        log.erase(ALICES)
        log.erase(ALICES)
        log.erase(Scope(tenant_id="globex"))
        log.erase(replace(BOB, user_id=None))
        first, second = log.erasures("acme", 0)
        assert first.scope == Scope(tenant_id="acme", thread_id=ALICE.thread_id)
        assert second.scope == Scope(tenant_id="acme", thread_id=BOB.thread_id)
        assert first.id < second.id
        assert log.erasures("acme", first.id) == [second]
        assert [each.scope for each in log.erasures("globex", 0)] == [Scope(tenant_id="globex")]

    def test_an_index_has_followed_as_far_as_was_noted(self, log):
        for scope in (ALICE, BOB, OTHER):
            log.append(scope, talk(1))
            log.erase(replace(scope, user_id=None))
        first, second = log.erasures("acme", 0)
        (other,) = log.erasures("globex", 0)
        assert set(log.unfollowed("edge-1", 9)) == {"acme", "globex"}
        assert len(log.unfollowed("edge-1", 1)) == 1
        log.set_marks("acme", "edge-1", words_seq=7, dense_seq=2)
        log.set_erased("acme", "edge-1", second.id)
        log.set_erased("acme", "edge-1", first.id)
        assert log.marks("acme", "edge-1") == IndexMarks(7, 2, second.id)
        log.set_marks("acme", "edge-1", words_seq=8, dense_seq=8)
        assert log.marks("acme", "edge-1") == IndexMarks(8, 8, second.id)
        assert log.unfollowed("edge-1", 9) == ["globex"]
        log.set_erased("globex", "edge-1", other.id)
        assert log.marks("globex", "edge-1") == IndexMarks(0, 0, other.id)
        assert log.unfollowed("edge-1", 9) == []
        assert set(log.unfollowed("edge-2", 9)) == {"acme", "globex"}

    def test_one_holder_at_a_time_has_a_task(self, log):
        minute = timedelta(minutes=1)
        assert log.claim("acme", "index", "one", minute)
        assert log.claim("acme", "index", "one", minute)
        assert not log.claim("acme", "index", "two", minute)
        assert log.claim("globex", "index", "two", minute)
        assert log.claim("acme", "other", "two", minute)
        log.release("acme", "index", "two")
        assert not log.claim("acme", "index", "two", minute)
        log.release("acme", "index", "one")
        assert log.claim("acme", "index", "two", timedelta(0))
        assert log.claim("acme", "index", "three", minute)

    def test_derived_values_are_kept_by_thread_and_kind_up_to_a_bound(self, log):
        alice, bob = (log.append(scope, talk(1)) and log.branch(scope) for scope in (ALICE, BOB))
        for number in range(12):
            log.put_derived(alice, "choice", f"k{number}", bytes([number]), keep=8)
        log.put_derived(alice, "summary", "k0", b"s")
        log.put_derived(bob, "choice", "k11", b"bob")
        kept = [log.get_derived(ALICE, "choice", f"k{n}") for n in range(12)]
        assert kept == [None] * 4 + [bytes([n]) for n in range(4, 12)]
        log.put_derived(alice, "choice", "k4", b"again", keep=2)
        assert log.get_derived(ALICE, "choice", "k4") == b"again"
        assert log.get_derived(ALICE, "choice", "k11") == bytes([11])
        assert log.get_derived(ALICE, "choice", "k10") is None
        assert log.get_derived(ALICE, "summary", "k0") == b"s"
        assert log.get_derived(BOB, "choice", "k11") == b"bob"
        assert log.get_derived(OTHER, "choice", "k11") is None
        with pytest.raises(ValueError, match="keep"):
            log.put_derived(alice, "choice", "k", b"", keep=0)

    def test_threads_that_go_together_are_erased_at_once(self, log):
        for thread in "abc":
            log.append(Scope(tenant_id="acme", thread_id=thread), talk(2))
        log.append(OTHER, talk(1))
        erased = log.erase(Scope(tenant_id="acme", thread_id="a"), also=["c", "none", "t1"])
        assert (erased.threads, erased.messages) == (2, 4)
        assert [each.scope.thread_id for each in log.erasures("acme", 0)] == ["a", "c"]
        assert [each.thread_id for each in log.threads(Scope(tenant_id="acme"))] == ["b"]
        assert log.tenant_stats(OTHER).records == 1
        assert log.verify().ok

    def test_threads_are_named_with_whether_a_user_shares_them(self, log):
        for thread, users in {"a": "xx", "b": "xy", "b/c": "x", "d": "y", "e": ["x", None]}.items():
            for n, user in enumerate(users):
                scope = Scope(tenant_id="acme", thread_id=thread, user_id=user)
                log.append(scope, talk(1, first=n))
        log.append(OTHER, talk(1))
        tenant, user = Scope(tenant_id="acme"), Scope(tenant_id="acme", user_id="x")
        found = {each.thread_id: each.newest_at for each in log.threads(tenant)}
        assert list(found) == ["a", "b", "b/c", "d", "e"]
        assert (found["a"], found["b/c"]) == (NOON + timedelta(minutes=1), NOON)
        shared = {each.thread_id: each.is_shared for each in log.threads(user)}
        assert shared == {"a": False, "b": True, "b/c": False, "e": True}
        assert [each.thread_id for each in log.threads(tenant, prefix="b/")] == ["b/c"]
        assert [e.thread_id for e in log.threads(Scope(tenant_id="acme", thread_id="d"))] == ["d"]
        log.erase(Scope(tenant_id="acme", thread_id="a"))
        assert [each.thread_id for each in log.threads(user)] == ["b", "b/c", "e"]

    def test_what_records_state_is_seen_in_their_scope_alone(self, log):
        alice, bob = (log.append(scope, talk(2))[0] for scope in (ALICE, BOB))
        theirs = log.append(OTHER, talk(1))[0]
        values = {alice.seq: b"a", bob.seq: b"b", theirs.seq: b"not theirs to say"}
        log.put_stated("acme", values, after_seq=0, until_seq=bob.seq)
        [mine] = log.stated(ALICE)
        assert mine == (alice.seq, "t1", 0, 0, "alice", "m0", alice.at, b"a")
        assert [each.value for each in log.stated(Scope(tenant_id="acme"))] == [b"a", b"b"]
        assert [each.value for each in log.stated(Scope(tenant_id="acme", user_id="bob"))] == [b"b"]
        assert log.stated(OTHER) == log.stated(Scope(tenant_id="acme", user_id="eve")) == []
        after = log.stated(Scope(tenant_id="acme"), after_seq=alice.seq)
        assert [each.value for each in after] == [b"b"]
        for scope in (
            ALICE,
            Scope(tenant_id="acme"),
            Scope(tenant_id="acme", user_id="bob"),
            OTHER,
        ):
            assert log.stated_count(scope) == len(log.stated(scope))

    def test_what_records_state_makes_way_for_what_is_read_from_them_again(self, log):
        first, second = log.append(ALICE, talk(2))
        log.put_stated("acme", {first.seq: b"1", second.seq: b"2"}, after_seq=0, until_seq=99)
        log.put_stated("acme", {}, after_seq=0, until_seq=first.seq)
        assert [each.value for each in log.stated(ALICE)] == [b"2"]
        log.put_stated("acme", {second.seq: b"3"}, after_seq=first.seq, until_seq=second.seq)
        assert [each.value for each in log.stated(ALICE)] == [b"3"]
        log.append(ALICE, [draft("said otherwise", "m1")])
        assert log.stated(ALICE) == []
        assert log.stated_count(ALICE) == 0

    @pytest.mark.parametrize("erased", [ALICES, Scope(tenant_id="acme")])
    def test_what_erased_records_state_is_gone_and_never_stored(self, log, erased):
        alice, bob = (log.append(scope, talk(1))[0] for scope in (ALICE, BOB))
        values = {alice.seq: b"a", bob.seq: b"b"}
        log.put_stated("acme", values, after_seq=0, until_seq=bob.seq)
        assert log.erase(erased).derived == (1 if erased.thread_id else 2)
        log.put_stated("acme", values, after_seq=0, until_seq=bob.seq)
        left = [b"b"] if erased.thread_id else []
        assert [each.value for each in log.stated(Scope(tenant_id="acme"))] == left

    @pytest.mark.parametrize("erased", [ALICES, Scope(tenant_id="acme")])
    def test_what_was_made_of_erased_messages_is_never_stored(self, log, erased):
        log.append(ALICE, talk(3))
        before = log.branch(ALICE)
        log.erase(erased)
        log.put_derived(before, "choice", "k", CANARY.encode())
        assert log.get_derived(ALICE, "choice", "k") is None
        assert log.erase(ALICES).derived == 0
        log.append(ALICE, talk(3))
        log.put_derived(before, "choice", "k", CANARY.encode())
        assert log.get_derived(ALICE, "choice", "k") is None
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        assert log.get_derived(ALICE, "choice", "k") == b"x"

    def test_nothing_is_stored_for_a_thread_without_records(self, log):
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        assert log.get_derived(ALICE, "choice", "k") is None
        assert log.tenants() == []

    def test_a_choice_is_stored_for_none_but_the_thread_it_was_made_from(self, log):
        log.append(OTHER, talk(1))
        theirs = log.branch(OTHER)
        log.append(ALICE, talk(1))
        posing = replace(theirs, tenant_id="acme")
        log.put_derived(posing, "choice", "k", b"x")
        assert log.get_derived(ALICE, "choice", "k") is None
        assert log.get_derived(OTHER, "choice", "k") is None

    def test_the_newest_revision_before_a_slot_is_found(self, log):
        log.append(ALICE, talk(6))
        assert log.revised(log.branch(ALICE), before_slot=6) is None
        log.append(ALICE, [draft("edited", "m2"), draft("edited", "m1"), draft("edited", "m4")])
        line = log.branch(ALICE)
        assert [log.revised(line, before_slot=slot) for slot in range(7)] == [
            None, None, 7, 7, 7, 8, 8,
        ]  # fmt: skip
        assert log.revised(log.branch(BOB), before_slot=6) is None

    def test_what_was_revised_on_another_branch_does_not_count(self, log):
        log.append(ALICE, talk(4))
        log.append(ALICE, [draft("m1", "m1", minutes=1), draft("fork", "f")])
        log.append(ALICE, [draft("edited", "m3"), draft("m1", "m1", minutes=1)])
        fork = log.branch(ALICE, head="f")
        assert log.revised(fork, before_slot=9) is None
        assert log.revised(log.branch(ALICE, head="m3"), before_slot=9) == 5
        log.append(ALICE, [draft("edited", "m0")])
        assert log.revised(fork, before_slot=9) == 6

    def test_history_pages_through_a_long_thread(self, log):
        log.append(ALICE, talk(700))
        assert ids(log.history(ALICE)) == [f"m{n}" for n in range(700)]

    def test_stats_count_a_tenants_threads_records_and_revisions(self, log):
        log.append(ALICE, talk(3))
        log.append(ALICE, [draft("edited", "m0")])
        log.append(BOB, talk(2))
        stats = log.tenant_stats(Scope(tenant_id="acme"))
        assert (stats.threads, stats.records, stats.revisions) == (2, 6, 1)
        assert stats.bytes > 0
        assert log.tenant_stats(BOB).records == 2
        assert log.tenant_stats(Scope(tenant_id="none")).records == 0

    # Verifying and erasing

    def test_what_was_written_verifies(self, log):
        log.append(ALICE, talk(20))
        log.append(ALICE, [draft("edited", "m3"), draft("fork", "f")])
        log.append(OTHER, talk(3))
        whole = log.verify()
        assert whole.ok
        assert whole.records == 25
        assert log.verify(OTHER).records == 3
        assert log.verify(Scope(tenant_id="acme")).records == 22

    def test_an_erased_thread_is_gone_and_the_others_verify(self, log):
        mine = log.append(ALICE, talk(5))
        log.append(BOB, talk(2))
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        erased = log.erase(ALICES)
        assert (erased.threads, erased.messages, erased.derived) == (1, 5, 1)
        assert erased.seqs == tuple(record.seq for record in mine)
        assert list(log.history(ALICE)) == []
        assert log.branch(ALICE).head is None
        assert log.get_derived(ALICE, "choice", "k") is None
        assert log.search(ALICE, (1,), limit=9) == []
        assert log.fetch(ALICE, erased.seqs) == []
        assert ids(log.history(BOB)) == ["m0", "m1"]
        assert log.verify().ok
        assert log.erase(ALICES).messages == 0

    def test_an_erased_thread_can_be_recorded_into_again(self, log):
        old = log.append(ALICE, talk(3))
        log.erase(ALICES)
        new = log.append(ALICE, talk(2))
        assert [record.position for record in new] == [0, 1]
        assert new[0].seq > old[-1].seq
        assert {hit.seq for hit in log.search(ALICE, (1,), limit=9)} == {r.seq for r in new}
        assert log.verify().ok

    def test_erasing_a_user_takes_nobody_elses_records(self, log):
        log.append(ALICE, talk(2))
        for scope in (ALICE, Scope(tenant_id="acme", user_id="alice")):
            with pytest.raises(ValueError, match=r"to erase, without a user, got user_id='alice'"):
                log.erase(scope)
        assert ids(log.history(ALICE)) == ["m0", "m1"]

    def test_erasing_a_tenant_leaves_the_others(self, log):
        for scope in (ALICE, BOB, OTHER):
            log.append(scope, talk(2))
        assert log.erase(Scope(tenant_id="acme")).messages == 4
        assert log.tenant_stats(Scope(tenant_id="acme")).threads == 0
        assert ids(log.history(OTHER)) == ["m0", "m1"]

    # Sharing

    def test_threads_append_at_once_without_gap_or_loss(self, plain):
        def write(worker: int) -> None:
            for number in range(25):
                plain.append(ALICE, [draft("x", f"{worker}-{number}")])
                assert plain.branch(ALICE).head is not None

        workers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        records = list(plain.history(ALICE))
        assert [record.position for record in records] == [*range(200)]
        for worker in range(8):
            own = [i for i in ids(records) if i.startswith(f"{worker}-")]
            assert own == [f"{worker}-{n}" for n in range(25)]
        assert plain.verify().ok

    async def test_tasks_append_at_once_without_gap_or_loss(self, plain):
        async def write(worker: int) -> None:
            for number in range(25):
                await plain.aappend(ALICE, [draft("x", f"{worker}-{number}")])
                await asyncio.sleep(0)

        await asyncio.gather(*(write(n) for n in range(8)))
        assert [r.position async for r in plain.ahistory(ALICE)] == [*range(200)]

    async def test_a_cancelled_append_leaves_nothing_half_done(self, plain):
        for number in range(20):
            task = asyncio.create_task(
                plain.aappend(ALICE, [draft("x", f"{number}-{n}") for n in range(80)])
            )
            await asyncio.sleep(0.001 * (number % 4))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await plain.aappend(ALICE, talk(1))
        assert (await plain.averify()).ok
        records = [record async for record in plain.ahistory(ALICE)]
        for number in range(20):
            assert sum(i.startswith(f"{number}-") for i in ids(records)) in {0, 80}

    def test_use_after_close_says_so_and_closing_twice_is_fine(self, log):
        log.append(ALICE, talk(1))
        log.close()
        log.close()
        with pytest.raises(StorageError, match="closed"):
            log.append(ALICE, talk(2))
        with pytest.raises(StorageError, match="closed"):
            log.branch(ALICE)

    def test_another_log_on_the_same_place_sees_what_was_recorded(self, plain, tmp_path):
        plain.append(ALICE, talk(3))
        other = self.make(tmp_path)
        try:
            assert ids(other.history(ALICE)) == ["m0", "m1", "m2"]
            other.append(ALICE, talk(1, first=3))
            assert ids(plain.history(ALICE)) == ["m0", "m1", "m2", "m3"]
        finally:
            other.close()

    def test_every_method_has_a_twin_with_the_same_arguments(self, plain):
        names = {name for name in vars(MessageLog) if not name.startswith("_")}
        twins = {f"a{name}" for name in names} & names
        assert {"append", "setup"} <= names - twins
        assert twins == {f"a{name}" for name in names - twins}
        for name in names - twins:
            method, twin = getattr(plain, name), getattr(plain, f"a{name}")
            assert inspect.signature(method).parameters == inspect.signature(twin).parameters, name

    # Any history

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
    )
    @given(
        batches=st.lists(
            st.lists(st.tuples(st.integers(0, 7), st.integers(0, 1)), max_size=6), max_size=6
        )
    )
    def test_views_are_a_fold_of_the_history(self, plain, batches: Sequence[Any]):
        """Whatever hosts send, a view is the newest revisions along one line of parents."""
        plain.erase(ALICES)
        for batch in batches:
            plain.append(ALICE, [draft(f"{i}.{v}", f"m{i}", tokens=i + 1) for i, v in batch])
        records = list(plain.history(ALICE))
        assert [record.position for record in records] == [*range(len(records))]
        assert plain.verify(ALICE).ok
        for record in records:
            line = plain.branch(ALICE, head=record.message_id)
            assert line.head is not None
            view = plain.read(line)
            expected = line_to(records, line.head)
            assert texts(view) == texts(expected)
            assert plain.read(line, newest_first=True) == view[::-1]
            firsts = [r for r in records if r.revision == 0 and line.holds(r.branch, r.slot)]
            for mark in (0, 3, 9, 20):
                slots = [r.slot for r in firsts if r.total_tokens - r.tokens >= mark]
                assert plain.locate(line, mark) == (slots[0] if slots else None)


def line_to(records: Sequence[LogRecord], head: LogRecord) -> list[LogRecord]:
    """The view ending at `head`, by following parents."""
    newest = {record.slot: record for record in records}
    line, at = [], head
    while True:
        line.append(newest[at.slot])
        if at.parent is None:
            return line[::-1]
        at = records[at.parent]
