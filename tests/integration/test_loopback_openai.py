"""The loopback server itself: it refuses what OpenAI refuses, and langchain-openai reads it."""

from __future__ import annotations

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.loopback_openai import Fault, LoopbackOpenAI, Reply, scripted

CALL = {"name": "look", "args": {"query": "x"}, "id": "c1"}


def look(query: str) -> str:
    """Look something up."""
    return query


def chat(server, **settings):
    return ChatOpenAI(
        model="gpt-4o-mini", base_url=server.url, api_key="none", max_retries=0, **settings
    )


@pytest.fixture
def server():
    with LoopbackOpenAI() as server:
        yield server


class TestRefusals:
    @pytest.mark.parametrize(
        ("messages", "said"),
        [
            ([], "too short"),
            ([HumanMessage("x"), ToolMessage("r", tool_call_id="c1")], "preceeding"),
            ([HumanMessage("x"), AIMessage("", tool_calls=[CALL])], "did not have response"),
            (
                [HumanMessage("x"), AIMessage("", tool_calls=[CALL]), HumanMessage("y")],
                "did not have response messages: c1",
            ),
            ([HumanMessage("x"), SystemMessage("be kind")], "must come first"),
            ([HumanMessage("")], "not empty"),
            ([HumanMessage("x"), AIMessage("")], "not empty"),
            (
                [
                    HumanMessage("x"),
                    *(AIMessage("", tool_calls=[CALL]), ToolMessage("r", tool_call_id="c1")) * 2,
                ],
                "Duplicate value",
            ),
        ],
    )
    def test_what_openai_refuses(self, server, messages, said):
        with pytest.raises(openai.BadRequestError, match=said):
            chat(server).bind_tools([look]).invoke(messages)
        assert server.account.exchanges == []
        assert len(server.account.refused) == 1

    def test_a_prompt_over_the_window(self, server):
        server.window_tokens = 50
        with pytest.raises(openai.BadRequestError) as caught:
            chat(server).invoke("word " * 60)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.status_code == 400

    def test_a_fault(self, server):
        server.faults.append(Fault(503, {"error": {"message": "overloaded"}}))
        with pytest.raises(openai.InternalServerError):
            chat(server).invoke("hello")
        assert chat(server).invoke("hello").text == "You said: hello"


class TestAnswers:
    def test_parallel_calls_then_text(self, server):
        model = chat(server).bind_tools([look])
        asked = [HumanMessage("[use look(a)] [use look(b)]")]
        reply = model.invoke(asked)
        assert [call["args"] for call in reply.tool_calls] == [{"query": "a"}, {"query": "b"}]
        results = [
            ToolMessage(call["args"]["query"], tool_call_id=call["id"]) for call in reply.tool_calls
        ]
        assert model.invoke([*asked, reply, *results]).text == "Done: b"

    async def test_a_stream_adds_up_to_the_answer(self, server):
        server.rule = scripted(Reply("one two three"), Reply(calls=(("look", {"query": "a"}),)))
        model = chat(server, stream_usage=True).bind_tools([look])
        whole = None
        async for chunk in model.astream("hello"):
            whole = chunk if whole is None else whole + chunk
        assert whole.text == "one two three"
        assert whole.usage_metadata["input_tokens"] == server.account.exchanges[0].prompt_tokens
        whole = None
        for chunk in model.stream("hello"):
            whole = chunk if whole is None else whole + chunk
        assert whole.tool_calls[0]["args"] == {"query": "a"}

    def test_a_common_beginning_is_cached_in_steps_of_128_from_1024(self, server):
        model = chat(server)
        for text, cached in (
            ("word " * 2_000 + "a", 0),
            ("word " * 2_000 + "b", 1_920),
            ("word " * 1_000, 0),
            ("other " * 2_000, 0),
        ):
            usage = model.invoke(text).usage_metadata
            assert usage["input_token_details"]["cache_read"] == cached
