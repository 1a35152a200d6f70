"""What every message log must do where single messages are erased."""

from __future__ import annotations

from datetime import timedelta

import pytest

from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import Withdrawal
from tests.contracts.message_log import ALICE, ALICES, BOB, CANARY, NOON, OTHER, draft, ids, talk

ACME = Scope(tenant_id="acme")
USER = Scope(tenant_id="acme", user_id="alice")


def these(*message_ids: str) -> Withdrawal:
    return Withdrawal(message_ids=message_ids)


class WithdrawalContract:
    """A part of `MessageLogContract`."""

    def test_a_withdrawn_message_is_gone_and_the_others_verify(self, log):
        records = log.append(ALICE, talk(5))
        log.append(BOB, talk(2))
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        log.put_stated("acme", {records[1].seq: b"s"}, after_seq=0, until_seq=records[-1].seq)
        erased = log.withdraw(ALICES, these("m1", "m3", "none"))
        gone = (records[1].seq, records[3].seq)
        assert (erased.threads, erased.messages, erased.derived) == (1, 2, 2)
        assert erased.seqs == gone
        assert ids(log.history(ALICE)) == ids(log.read(log.branch(ALICE))) == ["m0", "m2", "m4"]
        assert ids(log.read(log.branch(ALICE), limit=2, newest_first=True)) == ["m4", "m2"]
        assert log.fetch(ALICE, gone) == []
        assert [turn.slot for turn in log.turns(ALICE, [records[2].seq], around=2)] == [0, 2, 4]
        assert log.find(log.branch(ALICE), "m1") is None
        assert not {hit.seq for hit in log.search(ALICE, (1,), limit=9)} & {*gone}
        assert log.get_derived(ALICE, "choice", "k") is None
        assert log.stated(ACME) == []
        assert log.tenant_stats(ALICES).records == 3
        assert ids(log.history(BOB)) == ["m0", "m1"]
        verified = log.verify()
        assert verified.problems == ()
        assert verified.records == 7
        assert log.withdraw(ALICES, these("m1")).messages == 0

    def test_all_revisions_go(self, log):
        log.append(ALICE, talk(2))
        log.append(ALICE, [draft("better", "m0")])
        assert log.withdraw(ALICES, these("m0")).messages == 2
        assert ids(log.history(ALICE)) == ["m1"]
        assert log.verify().problems == ()

    def test_withdrawn_messages_stay_so_and_the_thread_goes_on(self, log):
        log.append(ALICE, talk(3))
        log.withdraw(ALICES, these("m1", "m2"))
        branch = log.branch(ALICE)
        assert branch.head.message_id == "m0"
        again = log.append(ALICE, [*talk(3), draft("changed", "m1"), draft("new", "m9")])
        assert ids(again) == ["m9"]
        assert again[0].position == 3
        assert ids(log.read(log.branch(ALICE))) == ["m0", "m9"]
        assert log.verify().problems == ()

    def test_a_branch_of_withdrawn_messages_shows_what_it_forked_off(self, log):
        log.append(ALICE, talk(3))
        log.append(ALICE, [draft("m0", "m0"), draft("other", "f")])
        assert ids(log.read(log.branch(ALICE))) == ["m0", "f"]
        log.withdraw(ALICES, these("f"))
        branch = log.branch(ALICE)
        assert branch.head.message_id == "m0"
        assert ids(log.read(branch)) == ["m0"]
        assert ids(log.read(log.branch(ALICE, head="m2"))) == ["m0", "m1", "m2"]
        assert log.verify().problems == ()

    def test_time_travel_to_a_withdrawn_message_leads_to_what_was_before_it(self, log):
        log.append(ALICE, talk(4))
        log.withdraw(ALICES, these("m2"))
        branch = log.branch(ALICE, head="m2")
        assert branch.head.message_id == "m1"
        assert ids(log.read(branch)) == ["m0", "m1"]
        with pytest.raises(ValueError, match="head"):
            log.branch(ALICE, head="none")

    def test_records_can_be_named(self, log):
        records = log.append(ALICE, talk(3))
        log.append(OTHER, talk(3))
        which = Withdrawal(seqs=(records[0].seq, records[2].seq, 10**9))
        assert log.withdraw(OTHER, which).messages == 0
        assert log.withdraw(ACME, which).messages == 2
        assert log.withdraw(ACME, Withdrawal(seqs=())).messages == 0
        assert ids(log.history(ALICE)) == ["m1"]

    def test_where_all_of_a_thread_is_withdrawn_it_is_empty(self, log):
        log.append(ALICE, talk(2))
        assert log.withdraw(ALICES, Withdrawal()).messages == 2
        assert log.branch(ALICE).head is None
        assert list(log.history(ALICE)) == []
        assert log.tenant_stats(ACME).threads == 0
        assert log.verify().problems == ()
        assert log.erase(ALICES).threads == 1
        assert ids(log.append(ALICE, talk(1))) == ["m0"]
        assert log.verify().problems == ()

    def test_a_user_goes_from_all_threads_and_nobody_else(self, log):
        log.append(ALICE, talk(2))
        log.append(BOB, talk(1))
        shared = Scope(tenant_id="acme", thread_id="t3")
        log.append(Scope(tenant_id="acme", thread_id="t3", user_id="alice"), talk(2))
        log.append(Scope(tenant_id="acme", thread_id="t3", user_id="bob"), talk(1, first=2))
        log.append(Scope(tenant_id="globex", thread_id="t1", user_id="alice"), talk(1))
        erased = log.withdraw(USER, Withdrawal())
        assert (erased.threads, erased.messages) == (2, 4)
        assert list(log.history(ALICE)) == []
        assert ids(log.history(shared)) == ["m2"]
        assert ids(log.history(BOB)) == ids(log.history(OTHER)) == ["m0"]
        bobs = Scope(tenant_id="acme", thread_id="t3", user_id="bob")
        log.append(Scope(tenant_id="acme", thread_id="t3", user_id="ann"), talk(1, first=3))
        assert log.withdraw(bobs, Withdrawal()).messages == 1
        assert ids(log.history(shared)) == ["m3"]
        assert log.verify().problems == ()

    def test_a_time_is_from_and_before(self, log):
        log.append(ALICE, talk(5))
        minute = timedelta(minutes=1)
        which = Withdrawal(since=NOON + minute, until=NOON + 3 * minute)
        assert log.withdraw(ACME, which).messages == 2
        assert ids(log.history(ALICE)) == ["m0", "m3", "m4"]
        assert log.withdraw(ACME, Withdrawal(until=NOON + minute)).messages == 1
        assert log.withdraw(OTHER, Withdrawal()).messages == 0

    def test_every_withdrawal_is_noted_for_the_indexes_to_follow(self, log):
        mine = log.append(ALICE, talk(3))
        theirs = log.append(Scope(tenant_id="acme", thread_id="t2", user_id="alice"), talk(1))
        log.withdraw(USER, these("m0"))
        noted = log.erasures("acme", 0)
        assert {(each.scope.thread_id, each.seqs) for each in noted} == {
            ("t1", (mine[0].seq,)),
            ("t2", (theirs[0].seq,)),
        }
        log.erase(ALICES)
        assert log.erasures("acme", noted[-1].id)[0].seqs is None

    def test_what_was_made_of_withdrawn_messages_is_never_stored(self, log):
        log.append(ALICE, talk(3))
        before = log.branch(ALICE)
        log.withdraw(ALICES, these("m1"))
        log.put_derived(before, "choice", "k", CANARY.encode())
        assert log.get_derived(ALICE, "choice", "k") is None
        log.put_derived(log.branch(ALICE), "choice", "k", b"x")
        assert log.get_derived(ALICE, "choice", "k") == b"x"

    def test_a_withdrawal_needs_a_tenant(self, log):
        with pytest.raises(ValueError, match="tenant_id"):
            log.withdraw(Scope(thread_id="t1"), Withdrawal())
