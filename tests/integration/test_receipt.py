"""The account of a view: every token is in a section, every message is named once as it is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_ctxmgr import ContextManager, ContextOverflowError, Scope
from langchain_ctxmgr.records import ItemKind
from tests.histories import asked_in, histories, humans

SCOPE = Scope(tenant_id="acme", thread_id="t")
NUMBERS = itertools.count()
BUDGETS = st.one_of(st.integers(20, 400), st.integers(20, 4_000), st.integers(20, 100_000))
SYSTEM = SystemMessage("Be kind.", id="system-1")


@pytest.fixture(scope="module")
def shared():
    with ContextManager.open(None, model="gpt-4o-mini", tenant_id="acme") as opened:
        yield opened


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as opened:
        yield opened


class TestSections:
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(
        history=histories(recordable=True),
        question=st.one_of(st.none(), humans()),
        max_tokens=BUDGETS,
        system=st.sampled_from((None, "Be brief.")),
    )
    def test_sections_add_up_to_what_is_sent(self, shared, history, question, max_tokens, system):
        scope = Scope(thread_id=f"t{next(NUMBERS)}")
        question = question and asked_in(history, question)
        shared.record(history, scope=scope)
        try:
            context = shared.prepare(
                scope=scope, query=question, max_tokens=max_tokens, system=system
            )
        except ContextOverflowError as error:
            context = shared.prepare(
                scope=scope, query=question, max_tokens=error.needed_tokens, system=system
            )
        assert sum(context.sections.values()) == context.tokens
        sent = {message.id for message in context.messages}
        word_for_word = {ItemKind.SYSTEM, ItemKind.CURRENT}
        assert all(
            item.id in sent
            for item in context.receipt.included
            if item.kind in word_for_word and item.id in {message.id for message in history}
        )

    def test_a_greeting_before_the_first_question_counts_as_history(self, manager):
        manager.record(AIMessage("Welcome! I am Otto.", id="hello"), scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="Who are you?", max_tokens=1_000)
        assert context.sections[ItemKind.HISTORY] > 10
        assert sum(context.sections.values()) == context.tokens


class TestSystem:
    @pytest.mark.parametrize("at", [0, 2])
    def test_a_recorded_system_message_that_leads_stands_in_the_receipt_once(self, manager, at):
        history = [HumanMessage("Hi", id="h"), AIMessage("Hello", id="a")]
        history.insert(at, SYSTEM)
        manager.record(history, scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="And?", max_tokens=1_000)
        (item,) = [item for item in context.receipt if item.id == "system-1"]
        assert (item.kind, item.included) == (ItemKind.SYSTEM, True)

    def test_one_recorded_without_an_id_goes_by_the_one_the_log_gave_it(self, manager):
        record, *_ = manager.record([SystemMessage("Be kind."), HumanMessage("Hi")], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="And?", max_tokens=1_000)
        (item,) = [item for item in context.receipt if item.id == record.message_id]
        assert (item.kind, item.included) == (ItemKind.SYSTEM, True)

    def test_the_hosts_own_is_known_by_its_id(self, manager):
        manager.record([SYSTEM, HumanMessage("Hi", id="h")], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="And?", max_tokens=1_000, system=SYSTEM)
        assert [item.kind for item in context.receipt if item.id == "system-1"] == [ItemKind.SYSTEM]

    def test_one_inside_the_turn_that_is_not_sent_is_not_said_to_be(self, manager):
        call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}], id="c")
        traffic = [call, SYSTEM, ToolMessage("found", tool_call_id="1", id="r")]
        manager.record([HumanMessage("Hi", id="h"), *traffic], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, max_tokens=1_000, system="Be brief.")
        (item,) = [item for item in context.receipt if item.id == "system-1"]
        assert (item.kind, item.included) == (ItemKind.CURRENT, False)
        assert item.reason == "a system message leads the view or none"
        leading = manager.prepare(scope=SCOPE, max_tokens=1_000)
        (item,) = [item for item in leading.receipt if item.id == "system-1"]
        assert (item.kind, item.included) == (ItemKind.SYSTEM, True)


def test_what_is_included_word_for_word_is_what_is_sent(manager):
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}], id="c")
    traffic = [call, SYSTEM, ToolMessage("found", tool_call_id="1", id="r")]
    manager.record([AIMessage("Hello", id="a"), HumanMessage("Hi", id="h"), *traffic], scope=SCOPE)
    context = manager.prepare(scope=SCOPE, max_tokens=1_000)
    included = [item.id for item in context.receipt.included]
    sent = [message.id for message in context.messages]
    assert sent[1].startswith("summary-")
    assert included == ["system-1", "a", "h", "c", "r"]
    assert [sent[0], *sent[2:]] == ["system-1", "h", "c", "r"]


class TestRecalled:
    @pytest.fixture
    def told(self, manager):
        facts = [f"Parcel {n % 30} went to the depot." for n in range(60)]
        manager.record([HumanMessage(fact) for fact in facts], scope=SCOPE)
        return manager

    def test_what_is_in_and_what_is_out_says_what_each_arm_adds(self, told):
        context = told.prepare(scope=SCOPE, query="Where did parcel 7 go?", max_tokens=200)
        weighed = [item for item in context.receipt if item.kind is ItemKind.RECALLED]
        assert {item.included for item in weighed} == {True, False}
        for item in weighed:
            assert sum(item.arms.values()) == pytest.approx(item.score, abs=0.01)

    async def test_recall_explains_itself_when_asked_to(self, told):
        found = told.recall("Where did parcel 7 go?", scope=SCOPE, k=3, explain=True)
        ranks = [memory.explanation.rank for memory in found]
        assert ranks[0] == 1
        assert ranks == sorted(ranks)
        assert found == await told.arecall("Where did parcel 7 go?", scope=SCOPE, k=3, explain=True)
        (plain,) = await told.arecall("Where did parcel 7 go?", scope=SCOPE, k=1)
        assert plain.explanation is None
