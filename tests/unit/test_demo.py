from __future__ import annotations

from datetime import timedelta
from itertools import chain, pairwise

import tiktoken
from langchain_core.messages import AIMessage, ToolMessage

from langchain_ctxmgr.demo import demo_conversation, demo_questions

CONVERSATION = demo_conversation()
MESSAGES = CONVERSATION.messages


class TestTheConversationIsLongAndReal:
    def test_it_outgrows_small_windows(self):
        encoding = tiktoken.get_encoding("o200k_base")
        said = [message.text for message in MESSAGES]
        calls = [str(m.tool_calls) for m in MESSAGES if isinstance(m, AIMessage) and m.tool_calls]
        tokens = sum(len(encoding.encode_ordinary(text)) for text in said + calls)
        assert len(MESSAGES) >= 350
        assert tokens >= 25_000

    def test_it_spans_weeks_in_order(self):
        times = [at for at in CONVERSATION.at if at is not None]
        assert len(times) == len(MESSAGES)
        assert all(before < after for before, after in pairwise(times))
        assert times[-1] - times[0] > timedelta(weeks=7)

    def test_every_message_has_its_own_id_and_speaker(self):
        assert len({message.id for message in MESSAGES}) == len(MESSAGES)
        assert all(message.name for message in MESSAGES)

    def test_every_tool_call_is_answered_at_once(self):
        waiting: list[str | None] = []
        for message in MESSAGES:
            if isinstance(message, ToolMessage):
                assert message.tool_call_id == waiting.pop(0)
            else:
                assert not waiting
            if isinstance(message, AIMessage):
                assert not message.invalid_tool_calls
                waiting = [call["id"] for call in message.tool_calls]
        assert not waiting

    def test_tools_are_called_alone_and_side_by_side(self):
        counts = [len(m.tool_calls) for m in MESSAGES if isinstance(m, AIMessage)]
        assert counts.count(1) > 20
        assert sum(count > 1 for count in counts) > 10

    def test_no_message_is_said_twice_by_the_user(self):
        said = [message.text for message in MESSAGES if message.type == "human"]
        assert len(set(said)) == len(said)


class TestTheQuestions:
    def test_each_names_messages_that_exist(self):
        ids = {message.id for message in MESSAGES}
        questions = demo_questions()
        assert len(questions) >= 6
        assert all(set(chain(*question.evidence)) <= ids for question in questions)
        assert all(question.evidence and question.answer for question in questions)

    def test_the_answers_lie_far_back(self):
        places = {message.id: place for place, message in enumerate(MESSAGES)}
        first = [min(places[name] for name in chain(*q.evidence)) for q in demo_questions()]
        assert min(first) < 50
        assert sum(place < len(MESSAGES) - 100 for place in first) >= 5
