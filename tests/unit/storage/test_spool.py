"""Messages that wait on this machine for the log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr.errors import LogError
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.spool import Spool
from tests.contracts.message_log import ALICE, BOB, NOON, OTHER, draft, talk


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "deep" / "spool.sqlite3")


class TestSpool:
    def test_entries_come_back_as_they_went_in_and_in_order(self, spool):
        said = draft(
            message=AIMessage("é\ud800", id="a", tool_calls=[{"name": "f", "args": {}, "id": "c"}]),
            terms=(1, 2, 2**31),
            importance=0.25,
        )._replace(at=NOON + timedelta(microseconds=7))
        spool.put(ALICE, [said])
        spool.put(BOB, talk(2))
        first = spool.first()
        assert (first.scope, first.drafts) == (ALICE, [said])
        spool.remove(first.entries)
        assert spool.first().scope == BOB
        assert [each.message.id for each in spool.first().drafts] == ["m0", "m1"]

    def test_a_thread_comes_at_once_up_to_where_another_user_speaks(self, spool):
        nobody = replace(ALICE, user_id=None)
        for scope, text in ((ALICE, "a"), (BOB, "b"), (ALICE, "c"), (nobody, "d"), (ALICE, "e")):
            spool.put(scope, [draft(message=HumanMessage(text, id=text))])
        handed = []
        while waiting := spool.first():
            said = "".join(str(each.message.content) for each in waiting.drafts)
            handed.append((waiting.scope, said))
            spool.remove(waiting.entries)
        assert handed == [(ALICE, "ac"), (BOB, "b"), (nobody, "d"), (ALICE, "e")]

    def test_each_message_is_given_an_id_so_that_the_log_knows_it_again(self, spool):
        (named,) = spool.put(ALICE, [draft(message=HumanMessage("hello"))])
        assert named.message.id
        assert spool.first().drafts == [named]

    def test_what_another_process_left_is_found(self, spool):
        assert spool.is_empty
        spool.put(ALICE, talk(1))
        again = Spool(spool.path)
        assert not again.is_empty
        again.remove(again.first().entries)
        assert again.first() is None
        assert again.is_empty

    def test_erasing_leaves_no_byte_and_no_other_scope(self, spool):
        spool.put(ALICE, [draft(message=HumanMessage("gonecanary", id="x"))])
        spool.put(OTHER, talk(1))
        assert spool.erase(Scope(tenant_id="acme")) == 1
        assert b"gonecanary" not in spool.path.read_bytes()
        assert spool.first().scope == OTHER

    def test_a_file_that_cannot_be_used_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "file").write_text("x" * 4_096)
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(LogError, match=r"spool .* cannot be used"):
                Spool(path).put(ALICE, talk(1))

    async def test_many_tasks_share_one(self, spool):
        scopes = [replace(ALICE, thread_id=f"t{n}") for n in range(20)]
        await asyncio.gather(*(spool.aput(scope, talk(2)) for scope in scopes))
        seen = set()
        while waiting := await spool.afirst():
            seen.add(waiting.scope)
            await spool.aremove(waiting.entries)
        assert seen == set(scopes)
