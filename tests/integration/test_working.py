"""What the user asked for from then on stays in view, within its share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.records import ItemKind
from tests.scripted_summarizer import ScriptedSummarizer

THREAD = Scope(tenant_id="acme", thread_id="t1")
MARCH = datetime(2025, 3, 1, tzinfo=UTC)
WISH = "Always answer in metric units."
IDS = count()


def talk(manager, wish=WISH, turns=120):
    said = [HumanMessage(wish, id="wish"), AIMessage("I will.", id="ok")]
    for n in range(turns):
        said += [
            HumanMessage(f"The boat number {n} came in with the tide at noon.", id=f"h{n}"),
            AIMessage(f"Good to hear of boat {n} and its crew.", id=f"a{n}"),
        ]
    at = [MARCH + timedelta(minutes=n) for n in range(len(said))]
    manager.record(said, scope=THREAD, at=at)


def asked(manager, text="Which boat came in last?", limit=2_500):
    query = HumanMessage(text, id=f"q{next(IDS)}")
    return manager.prepare(scope=THREAD, query=query, max_tokens=limit)


def standing(context):
    return [item for item in context.receipt if item.kind is ItemKind.STANDING]


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        yield manager


def test_a_standing_request_is_in_view_once_with_its_number(manager):
    talk(manager)
    context = asked(manager)
    last = context.messages[-1].content
    assert f"Standing requests:\n1 Mar 2025, 0 user: {WISH}\n" in last
    assert str([m.content for m in context.messages]).count(WISH) == 1
    [item] = standing(context)
    assert (item.id, item.included, item.reason) == ("wish", True, "asked for from then on")
    assert context.sections[ItemKind.STANDING] == item.tokens
    assert sum(context.sections.values()) == context.tokens <= 2_500


def test_of_a_longer_message_the_sentence_is_shown(manager):
    talk(manager, f"The shed is done and painted green. {WISH} It took a week.")
    context = asked(manager)
    assert f"user: {WISH}\n" in context.messages[-1].content


def test_it_gives_way_where_it_is_muted_pinned_or_the_view_is_small(manager):
    talk(manager)
    assert standing(asked(manager, limit=800)) == []
    manager.pin("wish", scope=THREAD)
    context = asked(manager)
    assert standing(context) == []
    assert str([m.content for m in context.messages]).count(WISH) == 1
    manager.unpin("wish", scope=THREAD)
    manager.weigh("wish", 0, scope=THREAD)
    assert WISH not in str([m.content for m in asked(manager).messages])


def test_notes_by_a_model_tell_it_already(tmp_path):
    summarizer = ChatSummarizer(
        model=ScriptedSummarizer(), section_tokens=500, trigger_tokens=500, read_share=1.0
    )
    budget = ContextBudget(max_input_tokens=12_000, keep_full_history=False)
    with ContextManager.open(
        tmp_path, model="gpt-4o-mini", budget=budget, summarizer=summarizer
    ) as manager:
        talk(manager)
        assert standing(asked(manager))
        manager.summarize(scope=THREAD)
        assert standing(asked(manager)) == []


def test_what_another_user_of_the_thread_asked_for_is_theirs(manager):
    talk(manager)
    bob = Scope(tenant_id="acme", thread_id="t1", user_id="bob")
    wish = HumanMessage("From now on always answer in rhyme.", id="rhyme")
    manager.record([wish], scope=bob, at=MARCH + timedelta(days=1))
    talk_on = [HumanMessage(f"A tide of {n} feet.", id=f"x{n}") for n in range(120)]
    manager.record(talk_on, scope=THREAD, at=MARCH + timedelta(days=2))

    def wishes(user):
        scope = Scope(tenant_id="acme", thread_id="t1", user_id=user)
        query = HumanMessage("Which boat came in last?", id=f"q{next(IDS)}")
        context = manager.prepare(scope=scope, query=query, max_tokens=2_500)
        return {item.id for item in standing(context) if item.included}

    assert wishes("ana") == {"wish"}
    assert wishes("bob") == {"wish", "rhyme"}
