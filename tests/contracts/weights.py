"""What every message log must do with what is pinned, boosted or muted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Weighing, Withdrawal
from tests.contracts.message_log import ALICE, ALICES, BOB, NOON, OTHER, draft, talk

ACME = Scope(tenant_id="acme")
PIN, UNPIN = Weighing(NOON, is_pinned=True), Weighing(NOON, is_pinned=False)
LATER = NOON + timedelta(hours=1)


def marks(log, scope):
    return [(each.message_id, each.is_pinned, each.weight) for each in log.weighed(scope)]


class WeightsContract:
    """A part of `MessageLogContract`."""

    def test_what_is_marked_says_where_it_is_and_as_what(self, log):
        records = log.append(ALICE, talk(3))
        assert log.weigh(ALICE, "m1", PIN)
        [mark] = log.weighed(ALICE)
        assert mark == (records[1].seq, "t1", 0, 1, "alice", "m1", True, 1.0, NOON)
        assert log.weighed(BOB) == []

    def test_the_newest_mark_counts_and_leaves_the_other_kind_as_it_was(self, log):
        log.append(ALICE, talk(3))
        for name, given in (("m0", PIN), ("m1", PIN), ("m0", Weighing(LATER, weight=2.0))):
            assert log.weigh(ALICE, name, given)
        assert marks(log, ALICE) == [("m1", True, 1.0), ("m0", True, 2.0)]
        log.weigh(ALICE, "m1", UNPIN)
        log.weigh(ALICE, "m0", UNPIN)
        assert marks(log, ALICE) == [("m0", False, 2.0)]
        log.weigh(ALICE, "m0", Weighing(LATER, weight=1.0))
        assert log.weighed(ALICE) == []

    def test_what_is_not_there_cannot_be_marked(self, log):
        log.append(ALICE, talk(1))
        for scope, name in ((ALICE, "none"), (BOB, "m0"), (OTHER, "m0")):
            assert not log.weigh(scope, name, PIN)
        assert log.weighed(ACME) == []

    def test_a_mark_stays_with_the_message_through_its_revisions(self, log):
        log.append(ALICE, talk(2))
        log.weigh(ALICE, "m0", PIN)
        [better] = log.append(ALICE, [draft("better", "m0")])
        assert [(each.seq, each.message_id) for each in log.weighed(ALICE)] == [(better.seq, "m0")]

    def test_marks_are_seen_in_their_scope_alone(self, log):
        for scope in (ALICE, BOB, OTHER):
            log.append(scope, talk(1))
            log.weigh(scope, "m0", PIN)
        assert [each.thread_id for each in log.weighed(ACME)] == ["t1", "t2"]
        assert [e.thread_id for e in log.weighed(Scope(tenant_id="acme", user_id="bob"))] == ["t2"]
        assert len(log.weighed(OTHER)) == 1
        assert log.weighed(Scope(tenant_id="acme", user_id="eve")) == []
        for ask in (
            lambda: log.weighed(Scope(thread_id="t1")),
            lambda: log.weigh(Scope(thread_id="t1"), "m0", PIN),
        ):
            with pytest.raises(ValueError, match="tenant_id"):
                ask()
        with pytest.raises(ValueError, match="thread_id"):
            log.weigh(ACME, "m0", PIN)

    def test_threads_beside_one_are_seen_where_they_are_named(self, log):
        for name, user in (("t1", "alice"), ("t1/memories/a", None), ("t10", None)):
            scope = Scope(tenant_id="acme", thread_id=name, user_id=user)
            log.append(scope, talk(1))
            log.weigh(scope, "m0", PIN)
        beside = log.weighed(ALICE, beside="t1/memories/")
        assert [each.thread_id for each in beside] == ["t1", "t1/memories/a"]
        assert log.weighed(OTHER, beside="t1/memories/") == []
        assert [each.thread_id for each in log.weighed(ALICE)] == ["t1"]

    def test_a_mark_goes_with_its_message(self, log):
        log.append(ALICE, talk(2))
        log.append(BOB, talk(1))
        for scope, name in ((ALICE, "m0"), (ALICE, "m1"), (BOB, "m0")):
            log.weigh(scope, name, PIN)
        log.withdraw(ALICES, Withdrawal(message_ids=("m0",)))
        assert marks(log, ACME) == [("m1", True, 1.0), ("m0", True, 1.0)]
        assert not log.weigh(ALICE, "m0", PIN)
        log.append(ALICE, talk(1))
        assert marks(log, ALICE) == [("m1", True, 1.0)]
        log.erase(ALICES)
        log.append(ALICE, talk(2))
        assert log.weighed(ALICE) == []
        log.erase(ACME)
        assert log.weighed(ACME) == []
        assert log.verify().ok
