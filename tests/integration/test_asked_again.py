"""The current turn: a question and its tool traffic, or the question alone when asked again."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextManager, Scope
from tests.histories import assert_valid

SCOPE = Scope(tenant_id="acme", thread_id="t")
BEFORE = [HumanMessage("Hi", id="hi"), AIMessage("Hello", id="hello")]
QUESTION = HumanMessage("What is the weather?", id="q")


def calls(name: str, *ids: str, text: str = "") -> AIMessage:
    tool_calls = [{"name": "look", "args": {}, "id": one} for one in ids]
    return AIMessage(text, tool_calls=tool_calls, id=name)


def result(of: str) -> ToolMessage:
    return ToolMessage(f"result of {of}", tool_call_id=of, id=f"r-{of}")


def answer(name: str = "answer") -> AIMessage:
    return AIMessage(f"It rains ({name}).", id=name)


def shown(context) -> list[str | None]:
    return [message.id for message in context.messages]


@pytest.fixture
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as opened:
        opened.record(BEFORE, scope=SCOPE)
        yield opened


ANSWERED: list[list[BaseMessage]] = [
    [answer()],
    [calls("c", "1"), result("1"), answer()],
    [calls("c", "1", text="Let me look."), result("1"), answer()],
    [answer("one"), answer("two"), answer("three")],
    [answer(), ToolMessage("late", tool_call_id="gone", id="stray")],
    [calls("c", "1"), result("1"), answer("one"), calls("d", "2"), result("2"), answer("two")],
    [calls("c", "1"), answer()],
    [answer(), calls("c", "1")],
]


class TestAnswered:
    @pytest.mark.parametrize("after", ANSWERED)
    @pytest.mark.parametrize("query", [QUESTION, None])
    def test_asking_again_shows_the_question_alone(self, manager, after, query):
        manager.record([QUESTION, *after], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query=query, max_tokens=1_000)
        assert shown(context) == ["hi", "hello", "q"]
        assert_valid(context.messages, question=QUESTION)

    def test_an_edited_question_is_shown_as_edited(self, manager):
        manager.record([QUESTION, answer()], scope=SCOPE)
        edited = HumanMessage("What was the weather?", id="q")
        context = manager.prepare(scope=SCOPE, query=edited, max_tokens=1_000)
        assert shown(context) == ["hi", "hello", "q"]
        assert context.messages[-1].content == "What was the weather?"

    def test_the_same_words_without_an_id_are_a_new_question(self, manager):
        manager.record([QUESTION, answer()], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query=QUESTION.text, max_tokens=1_000)
        assert shown(context) == ["hi", "hello", "q", "answer", None]

    @pytest.mark.parametrize("query", [QUESTION, None, QUESTION.text])
    def test_the_tool_loop_of_asking_again_is_shown_without_the_old_answer(self, manager, query):
        manager.record([QUESTION, calls("c", "1"), result("1"), answer()], scope=SCOPE)
        manager.record([calls("d", "2"), result("2")], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query=query, max_tokens=1_000)
        assert shown(context) == ["hi", "hello", "q", "d", "r-2"]


THOUGHT = AIMessage([{"type": "reasoning", "reasoning": "hm"}], id="thought")
UNANSWERED: list[tuple[list[BaseMessage], list[str]]] = [
    ([], []),
    ([calls("c", "1"), result("1")], ["c", "r-1"]),
    ([calls("c", "1", text="Let me look."), result("1")], ["c", "r-1"]),
    ([calls("c", "1", "2"), result("1"), result("2")], ["c", "r-1", "r-2"]),
    ([calls("c", "1"), result("1"), calls("d", "2"), result("2")], ["c", "r-1", "d", "r-2"]),
    ([calls("c", "1"), answer("meanwhile"), result("1")], ["c", "r-1"]),
    (
        [calls("c", "1"), answer("meanwhile"), result("1"), calls("d", "2"), result("2")],
        ["c", "r-1", "meanwhile", "d", "r-2"],
    ),
    ([THOUGHT, calls("c", "1"), result("1")], ["thought", "c", "r-1"]),
    ([calls("c", "1"), result("1"), THOUGHT], ["c", "r-1"]),
    ([calls("c", "1"), result("1"), calls("d", "2")], ["c", "r-1"]),
    ([ToolMessage("late", tool_call_id="gone", id="stray")], []),
    ([calls("c", "1"), result("1"), AIMessage("", id="blank")], ["c", "r-1"]),
]


class TestUnanswered:
    @pytest.mark.parametrize(("after", "traffic"), UNANSWERED)
    @pytest.mark.parametrize("query", [QUESTION, None, QUESTION.text, HumanMessage(QUESTION.text)])
    def test_the_question_is_followed_by_its_tool_traffic(self, manager, after, traffic, query):
        manager.record([QUESTION, *after], scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query=query, max_tokens=1_000)
        assert shown(context) == ["hi", "hello", "q", *traffic]

    def test_a_question_in_words_keeps_the_id_and_name_it_was_recorded_with(self, manager):
        manager.record(HumanMessage("Who am I?", id="who", name="Ann"), scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="Who am I?", max_tokens=1_000)
        assert (context.messages[-1].id, context.messages[-1].name) == ("who", "Ann")
        assert [item.id for item in context.receipt.included][-1] == "who"

    def test_a_question_recorded_without_an_id_goes_by_the_one_the_log_gave_it(self, manager):
        (record,) = manager.record(HumanMessage("Who am I?"), scope=SCOPE)
        context = manager.prepare(scope=SCOPE, query="Who am I?", max_tokens=1_000)
        assert context.messages[-1].id is None
        assert [item.id for item in context.receipt.included][-1] == record.message_id
