from __future__ import annotations

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_ctxmgr.integrations.cache_markers import takes_markers, with_cache_markers


def marked(messages):
    """Places of the messages that carry a mark."""
    return [
        place
        for place, message in enumerate(messages)
        if isinstance(message.content, list)
        and any("cache_control" in block for block in message.content)
    ]


def called(*names):
    calls = [{"name": "look_up", "args": {}, "id": name} for name in names]
    results = [ToolMessage(f"about {name}", tool_call_id=name) for name in names]
    return [AIMessage("", tool_calls=calls), *results]


TALK = [
    SystemMessage("Be terse."),
    HumanMessage("Who?"),
    AIMessage("Ann."),
    HumanMessage("Where?"),
]


class TestMarks:
    def test_stand_after_system_text_before_the_question_and_at_the_end(self):
        assert marked(with_cache_markers(TALK)) == [0, 2, 3]

    def test_stand_where_the_last_step_ended_too(self):
        loop = [*TALK, *called("a"), *called("b", "c")]
        assert marked(with_cache_markers(loop)) == [0, 2, 5, 8]

    def test_are_four_at_most(self):
        loop = [*TALK, *(m for n in range(9) for m in called(f"a{n}", f"b{n}"))]
        assert len(marked(with_cache_markers(loop))) == 4

    def test_go_to_the_message_before_where_a_message_has_no_text(self):
        thought = AIMessage([{"type": "thinking", "thinking": "hm", "signature": "s"}])
        assert marked(with_cache_markers([*TALK[:2], thought, TALK[3]])) == [0, 1, 3]

    def test_keep_text_ids_and_the_messages_given(self):
        given = [HumanMessage("Who?", id="q")]
        shown = with_cache_markers(given)
        assert given[0].content == "Who?"
        assert shown[0].id == "q"
        assert shown[0].content == [
            {"type": "text", "text": "Who?", "cache_control": {"type": "ephemeral"}}
        ]

    def test_stand_on_the_last_block_with_something_in_it(self):
        image = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
        blocks = [{"type": "text", "text": "Look:"}, image, {"type": "text", "text": " "}]
        shown = with_cache_markers([HumanMessage(blocks)])[0].content
        assert [place for place, block in enumerate(shown) if "cache_control" in block] == [1]

    def test_are_left_to_a_host_that_sets_its_own(self):
        own = HumanMessage([{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}])
        assert with_cache_markers([own, *TALK[1:]]) == [own, *TALK[1:]]

    def test_of_nothing_are_none(self):
        assert with_cache_markers([]) == []


def test_only_models_that_take_marks_are_given_them():
    class Claude(GenericFakeChatModel):
        @property
        def _llm_type(self):
            return "anthropic-chat"

    assert takes_markers(Claude(messages=iter(())))
    assert not takes_markers(GenericFakeChatModel(messages=iter(())))
    assert not takes_markers(None)
