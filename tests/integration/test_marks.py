"""What users pin, boost and mute, over SQLite and over PostgreSQL."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.records import ItemKind

THREAD = Scope(tenant_id="acme", thread_id="t1")
USERS = Scope(tenant_id="acme", thread_id="t1", user_id="u1")
USER = Scope(tenant_id="acme", user_id="u1")
OTHER = Scope(tenant_id="globex", thread_id="t1")
MARCH = datetime(2025, 3, 1, tzinfo=UTC)
CODE = "I prefer the new gate: its code is 4711 and the caretaker is Mrs Ellwood."
TALK = (
    "The ferry to the northern island leaves in the morning.",
    "We talked about tomatoes and how to water them in a dry summer.",
    "The red bicycle needs a new chain before the trip.",
    "A choir sang in the old harbour hall until midnight.",
)


@pytest.fixture(params=["sqlite", "postgres"])
def manager(request):
    if request.param == "sqlite":
        with ContextManager.open(None, model="gpt-4o-mini") as manager:
            yield manager
        return
    database = request.getfixturevalue("postgres")
    database.empty()
    with ContextManager(log=database.url(database.app), model="gpt-4o-mini") as manager:
        yield manager


def talk(manager, scope=THREAD, *, turns=60):
    said = [HumanMessage(CODE, id="code")]
    for n in range(turns):
        said.append(AIMessage(f"Noted, number {n}.", id=f"a{n}"))
        said.append(HumanMessage(f"{TALK[n % 4]} That is note {n}.", id=f"h{n}"))
    said.append(AIMessage("Noted.", id="end"))
    at = [MARCH + timedelta(minutes=n) for n in range(len(said))]
    manager.record(said, scope=scope, at=at)


IDS = count()


def asked(manager, text="Which tomatoes did we talk about?", scope=THREAD, **given):
    """A view for a question of its own: what was settled for another does not hold for it."""
    query = HumanMessage(text, id=given.pop("id", f"question {next(IDS)}"))
    return manager.prepare(scope=scope, query=query, **{"max_tokens": 600} | given)


def shown(context):
    return "\n".join(str(message.content) for message in context.messages)


class TestPinning:
    def test_a_pinned_message_is_in_every_view_and_an_unpinned_one_is_not(self, manager):
        talk(manager)
        assert "4711" not in shown(asked(manager))
        manager.pin("code", scope=THREAD)
        for limit in (400, 600, 1_000):
            context = asked(manager, max_tokens=limit)
            assert context.tokens <= limit
            assert "4711" in shown(context)
            [item] = [item for item in context.receipt if item.kind is ItemKind.PINNED]
            assert (item.id, item.included, item.reason) == ("code", True, "pinned")
            assert context.sections[ItemKind.PINNED] == item.tokens > 0
            assert sum(context.sections.values()) == context.tokens
        manager.unpin("code", scope=THREAD)
        assert "4711" not in shown(asked(manager))

    def test_it_stands_once_ahead_of_the_question_inside_the_fence(self, manager):
        talk(manager)
        manager.pin("code", scope=THREAD)
        context = asked(manager, "What is the gate code, and who is the caretaker?")
        last = context.messages[-1].content
        assert shown(context).count("4711") == 1
        assert last.index("<recalled") < last.index("\nPinned:\n") < last.index("4711")
        assert last.index("4711") < last.index("</recalled>") < last.index("What is the gate")

    def test_what_the_window_shows_is_not_shown_twice(self, manager):
        talk(manager)
        manager.pin("h59", scope=THREAD)
        context = asked(manager)
        assert shown(context).count("That is note 59.") == 1

    def test_pins_over_their_share_give_way_to_those_made_last(self, manager):
        talk(manager)
        for n in range(30):
            manager.pin(f"h{n}", scope=THREAD)
        context = asked(manager, "Anything else?")
        pins = [item for item in context.receipt if item.kind is ItemKind.PINNED]
        kept = [item.id for item in pins if item.included]
        assert 0 < len(kept) < 30
        assert kept == [f"h{n}" for n in reversed(range(30 - len(kept), 30))]
        assert all("its share" in item.reason for item in pins if not item.included)
        assert context.tokens <= 600

    def test_a_pin_longer_than_its_share_is_cut_in_its_middle(self, manager):
        talk(manager)
        manager.record(HumanMessage(f"Start. {'word ' * 3_000} End.", id="long"), scope=THREAD)
        talk(manager, turns=0)
        manager.record(
            [HumanMessage(f"More of {each}", id=each) for each in map(str, range(80))], scope=THREAD
        )
        manager.pin("long", scope=THREAD)
        context = asked(manager, max_tokens=1_200)
        [item] = [item for item in context.receipt if item.kind is ItemKind.PINNED]
        assert item.included
        assert "cut in the middle" in item.reason
        assert "Start." in shown(context)
        assert "End." in shown(context)
        assert context.tokens <= 1_200

    def test_nothing_changes_within_a_tool_loop(self, manager):
        talk(manager)
        manager.pin("code", scope=THREAD)
        question = HumanMessage("What is the gate code?", id="q")
        first = manager.prepare(scope=THREAD, query=question, max_tokens=900)
        call = {"name": "look", "args": {}, "id": "c1"}
        manager.record([question, AIMessage("", id="call", tool_calls=[call])], scope=THREAD)
        manager.unpin("code", scope=THREAD)
        manager.pin("h3", scope=THREAD)
        second = manager.prepare(scope=THREAD, query=question, max_tokens=900)
        assert second.messages[: len(first.messages)] == first.messages

    def test_a_pin_shown_with_an_earlier_question_stays_there(self, manager):
        now = MARCH + timedelta(minutes=200)
        talk(manager, turns=120)
        manager.pin("code", scope=THREAD)
        for n in range(3):
            at = now + timedelta(minutes=n)
            context = asked(manager, f"Question number {n}?", id=f"q{n}", max_tokens=2_500)
            assert shown(context).count("4711") == 1, n
            said = [HumanMessage(f"Question number {n}?", id=f"q{n}"), AIMessage("Ok.", id=f"r{n}")]
            manager.record(said, scope=THREAD, at=at)

    def test_a_pinned_memory_is_in_every_thread_of_its_user(self, manager):
        memory = manager.remember("I am allergic to hazelnuts.", scope=USER)
        manager.pin(memory, scope=USER)
        for thread, user, is_in in (
            ("new", "u1", True),
            ("new", "u2", False),
            ("new", None, False),
        ):
            scope = Scope(tenant_id="acme", thread_id=thread, user_id=user)
            assert ("hazelnuts" in shown(asked(manager, "Hello", scope=scope))) is is_in
        abroad = Scope(tenant_id="globex", thread_id="new", user_id="u1")
        assert "hazelnuts" not in shown(asked(manager, "Hello", scope=abroad))

    def test_a_pinned_memory_beside_a_thread_is_in_that_thread(self, manager):
        memory = manager.remember("The kiln fires at 1040 degrees.", scope=THREAD)
        manager.pin(memory, scope=THREAD)
        assert "1040" in shown(asked(manager, "Hello"))
        elsewhere = Scope(tenant_id="acme", thread_id="t10")
        assert "1040" not in shown(asked(manager, "Hello", scope=elsewhere))

    def test_forgetting_takes_the_pin(self, manager):
        talk(manager)
        memory = manager.remember("I am allergic to hazelnuts.", scope=USER)
        manager.pin(memory, scope=USER)
        manager.pin("code", scope=THREAD)
        manager.forget(scope=THREAD, message_ids=["code"])
        manager.forget(scope=USER, memory=memory)
        assert manager.weighed(scope=Scope(tenant_id="acme")) == []
        context = asked(manager, scope=USERS)
        assert "4711" not in shown(context)
        assert "hazelnuts" not in shown(context)
        assert manager.verify().ok

    def test_only_what_is_recorded_there_can_be_pinned(self, manager):
        talk(manager, turns=2)
        for name, scope, named in (
            ("none", THREAD, "message_id"),
            ("code", OTHER, "message_id"),
            ("code", Scope(tenant_id="acme"), "a thread or a user"),
            ("code", Scope(thread_id="t1"), "tenant_id"),
            (" ", THREAD, "message_id"),
            (None, THREAD, "message_id"),
        ):
            with pytest.raises(ValueError, match=named):
                manager.pin(name, scope=scope)


class TestWeighing:
    def test_a_muted_message_is_not_recalled_and_stays_in_the_log(self, manager):
        talk(manager)
        question = "What is the gate code of Mrs Ellwood?"
        assert manager.recall(question, scope=THREAD)[0].id == "code"
        assert "4711" in shown(asked(manager, question))
        manager.weigh("code", 0, scope=THREAD)
        assert "code" not in [memory.id for memory in manager.recall(question, scope=THREAD)]
        assert "code" not in [
            memory.id for memory in manager.recall(question, scope=Scope(tenant_id="acme"))
        ]
        assert "4711" not in shown(asked(manager, question))
        assert CODE in [message.content for message in manager.history(scope=THREAD)]
        manager.weigh("code", 1, scope=THREAD)
        assert manager.recall(question, scope=THREAD)[0].id == "code"

    def test_a_muted_message_is_in_no_summary_and_a_boosted_one_is(self, manager):
        talk(manager)
        whole = shown(asked(manager, "", max_tokens=500))
        assert "4711" in whole
        manager.weigh("code", 0, scope=THREAD)
        assert "4711" not in shown(asked(manager, "", max_tokens=500))
        plain = shown(asked(manager, "", max_tokens=300))
        hidden = next(n for n in range(40) if f"That is note {n}." not in plain)
        manager.weigh(f"h{hidden}", 16, scope=THREAD)
        assert f"That is note {hidden}." in shown(asked(manager, "", max_tokens=300))

    def test_a_boosted_message_ranks_higher(self, manager):
        talk(manager)
        question = "Which tomatoes did we talk about, and how did we water them?"
        before = [memory.id for memory in manager.recall(question, scope=THREAD, k=20)]
        last = before[-1]
        manager.weigh(last, 4, scope=THREAD)
        found = manager.recall(question, scope=THREAD, k=20, explain=True)
        ranks = [memory.id for memory in found]
        assert ranks.index(last) < before.index(last)
        [memory] = [memory for memory in found if memory.id == last]
        assert memory.arms["weight"] > 0
        assert sum(memory.arms.values()) == pytest.approx(memory.score)
        manager.weigh(last, 0.25, scope=THREAD)
        lower = [memory.id for memory in manager.recall(question, scope=THREAD, k=60)]
        assert last not in lower[: ranks.index(last) + 1]

    @pytest.mark.parametrize("weight", [-1, 17, float("nan"), float("inf"), "2", None, True])
    def test_a_wrong_weight_is_named(self, manager, weight):
        talk(manager, turns=1)
        with pytest.raises(ValueError, match="weight"):
            manager.weigh("code", weight, scope=THREAD)
        assert manager.weighed(scope=THREAD) == []


async def test_on_an_event_loop_and_exported(manager):
    talk(manager, USERS, turns=2)
    await manager.apin("code", scope=USERS)
    await manager.aweigh("h0", 2, scope=USERS)
    await manager.aweigh("h1", 0.5, scope=USERS)
    await manager.aunpin("code", scope=USERS)
    await manager.apin("h1", scope=USERS)
    marks = await manager.aweighed(scope=USER)
    assert [(mark.message_id, mark.is_pinned, mark.weight) for mark in marks] == [
        ("h0", False, 2.0),
        ("h1", True, 0.5),
    ]
    entries = [entry for entry in manager.export(scope=USER) if entry["kind"] == "mark"]
    assert [(entry["id"], entry["is_pinned"], entry["weight"]) for entry in entries] == [
        ("h0", False, 2.0),
        ("h1", True, 0.5),
    ]
    assert json.loads(json.dumps(entries)) == entries
    exported = await manager.aexport(scope=USER)
    assert [entry for entry in exported if entry["kind"] == "mark"] == entries


class TestRoom:
    @pytest.mark.parametrize("limit", [400, 1_000, 4_000])
    def test_a_pin_stands_without_a_question_too(self, manager, limit):
        talk(manager)
        manager.pin("code", scope=THREAD)
        context = manager.prepare(scope=THREAD, query="", max_tokens=limit)
        assert "4711" in shown(context)
        assert context.tokens <= limit

    def test_one_pin_that_is_too_long_leaves_room_for_the_others(self, manager):
        talk(manager)
        manager.record([HumanMessage("A very long tale. " * 2_000, id="tale")], scope=THREAD)
        talk_on = [HumanMessage(f"The tide of day {n} was high.", id=f"t{n}") for n in range(60)]
        manager.record(talk_on, scope=THREAD)
        manager.pin("code", scope=THREAD)
        manager.pin("tale", scope=THREAD)
        context = asked(manager)
        assert "4711" in shown(context)
        pins = {item.id: item.included for item in context.receipt if item.kind is ItemKind.PINNED}
        assert pins["code"]
