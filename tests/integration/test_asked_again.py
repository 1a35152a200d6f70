"""The current turn: a question and its tool traffic, or the question alone when asked again."""

from __future__ import annotations

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.records import ItemKind
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


OLD = HumanMessage("My password for the vault is zanzibar.", id="pw")
SMALL_TALK = [
    message
    for n in range(60)
    for message in (
        HumanMessage(f"Tell me something about topic {n} and the river.", id=f"h{n}"),
        AIMessage(f"Topic {n} is about the river and a boat, nothing else to say.", id=f"a{n}"),
    )
]
ASKED = HumanMessage("What is my password for the vault?", id="vault")
EDITED = HumanMessage("My password for the vault is [removed].", id="pw")
STEP = [calls("c", "1"), result("1")]
OTHER_STEP = [calls("d", "2"), result("2")]
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def text_of(context) -> str:
    return "\n".join(str(message.content) for message in context.messages)


@pytest.fixture
def long(manager):
    manager.record([OLD, *SMALL_TALK], scope=SCOPE)
    return manager


class TestTheFrameOfAnotherTurn:
    @pytest.mark.parametrize("after", [[], STEP, [*STEP, answer()]])
    def test_what_was_edited_since_is_shown_as_edited(self, long, after):
        first = long.prepare(scope=SCOPE, query=ASKED, max_tokens=600)
        assert "zanzibar" in text_of(first)
        long.record([ASKED, *after, EDITED], scope=SCOPE)
        then = long.prepare(scope=SCOPE, query=ASKED, max_tokens=600)
        assert "zanzibar" not in text_of(then)
        assert "[removed]" in text_of(then)

    def test_what_is_edited_within_the_turn_leaves_the_frame_alone(self, long):
        first = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900, tools=[LOOK])
        edited = ToolMessage("another result", tool_call_id="1", id="r-1")
        long.record([ASKED, *STEP], scope=SCOPE)
        long.record([edited, *OTHER_STEP], scope=SCOPE)
        then = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900)
        assert then.messages[: len(first.messages)] == first.messages

    @pytest.mark.parametrize("loop", [OTHER_STEP, [ASKED, *OTHER_STEP]])
    def test_asking_again_settles_a_frame_that_its_own_tool_loop_keeps(self, long, loop):
        """`loop`: the new tool traffic follows the old answer, or forks off at the question."""
        long.record([ASKED, *STEP], scope=SCOPE)
        first = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900)
        long.record(answer(), scope=SCOPE)
        again = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900, tools=[LOOK])
        long.record(loop, scope=SCOPE)
        then = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900)
        before = first.sections[ItemKind.HISTORY], again.sections[ItemKind.HISTORY]
        assert before[0] > before[1]
        assert then.messages[: len(again.messages)] == again.messages
        assert shown(then)[-2:] == ["d", "r-2"]

    @pytest.mark.parametrize("revised", ["a59", "h30", "pw"])
    def test_recording_the_question_after_an_edit_leaves_its_frame_alone(self, long, revised):
        kind = AIMessage if revised == "a59" else HumanMessage
        long.record(kind("Said otherwise about the river.", id=revised), scope=SCOPE)
        first = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900, tools=[LOOK])
        long.record([ASKED, *STEP], scope=SCOPE)
        then = long.prepare(scope=SCOPE, query=ASKED, max_tokens=900)
        assert then.messages[: len(first.messages)] == first.messages


class TestNoQuestion:
    @pytest.mark.parametrize(
        "recorded",
        [AIMessage("Hello", id="taken"), SystemMessage("Be kind.", id="taken"), result("taken")],
    )
    def test_the_id_of_a_message_that_is_no_users_is_told(self, manager, recorded):
        manager.record(recorded, scope=SCOPE)
        question = HumanMessage("What?", id=recorded.id)
        with pytest.raises(ValueError, match=rf"query .*'{recorded.id}'.* {recorded.type} message"):
            manager.prepare(scope=SCOPE, query=question, max_tokens=1_000)

    @pytest.mark.parametrize("role", ["system", "developer", "tool", "assistant", "critic"])
    def test_the_role_of_a_chat_message_that_is_no_users_is_told(self, manager, role):
        with pytest.raises(ValueError, match=f"query .* ChatMessage of role '{role}'"):
            manager.prepare(
                scope=SCOPE, query=ChatMessage(role=role, content="What?"), max_tokens=1_000
            )

    @pytest.mark.parametrize("role", ["user", "human", "User"])
    def test_a_chat_message_of_a_user_is_one(self, manager, role):
        question = ChatMessage(role=role, content="What?")
        context = manager.prepare(scope=SCOPE, query=question, max_tokens=1_000)
        assert context.messages[-1].content == "What?"
