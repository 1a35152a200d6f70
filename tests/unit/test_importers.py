from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)

from langchain_ctxmgr.importers import read_conversation

CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "id": "u1", "name": "Ana", "content": "Weather in Ghent?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"place": "Ghent"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "9 degrees"},
    {"role": "assistant", "content": [{"type": "text", "text": "Nine degrees."}]},
]

MESSAGES: list[BaseMessage] = [
    SystemMessage("Be brief.", id="s"),
    HumanMessage("Two things at once", id="h", name="Ana"),
    AIMessage(
        "",
        id="a",
        tool_calls=[{"name": "f", "args": {"x": [1, 2]}, "id": "c1"}],
        usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        response_metadata={"model_name": "m"},
    ),
    ToolMessage("done", tool_call_id="c1", artifact={"rows": [1]}, status="success"),
    ChatMessage("aside", role="narrator"),
    AIMessageChunk("piece"),
]


def write(folder: Path, content: Any, name: str = "chat.json") -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return path


def lines(values: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(value) for value in values) + "\n"


class TestOpenAIFormat:
    @pytest.mark.parametrize(
        "content", [CHAT, {"messages": CHAT}, [{"messages": CHAT}], lines(CHAT), [CHAT]]
    )
    def test_each_container_gives_the_same_messages(self, tmp_path: Path, content: Any):
        read = read_conversation(write(tmp_path, content))

        assert [m.type for m in read.messages] == ["system", "human", "ai", "tool", "ai"]
        human, call, result = read.messages[1:4]
        assert (human.id, human.name) == ("u1", "Ana")
        assert isinstance(call, AIMessage)
        assert call.content == ""
        assert [(c["name"], c["args"], c["id"]) for c in call.tool_calls] == [
            ("weather", {"place": "Ghent"}, "c1")
        ]
        assert isinstance(result, ToolMessage)
        assert result.tool_call_id == "c1"
        assert read.messages[4].content == [{"type": "text", "text": "Nine degrees."}]
        assert read.at == [None] * 5

    def test_times_are_read_and_stay_out_of_the_message(self, tmp_path: Path):
        values = [
            {"role": "user", "content": "a", "at": "2026-02-02T08:00:00+01:00"},
            {"role": "user", "content": "b", "timestamp": "2026-02-02T08:00:00"},
            {"role": "user", "content": "c", "created_at": 1_770_000_000},
            {"role": "user", "content": "d", "create_time": 1_770_000_000_000},
        ]
        read = read_conversation(write(tmp_path, lines(values)))

        assert read.at[0] == datetime(2026, 2, 2, 7, tzinfo=UTC)
        assert read.at[1] == datetime(2026, 2, 2, 8, tzinfo=UTC)
        assert read.at[2] == read.at[3] == datetime.fromtimestamp(1_770_000_000, UTC)
        assert all(not m.additional_kwargs for m in read.messages)

    def test_broken_tool_arguments_are_kept_as_an_invalid_call(self, tmp_path: Path):
        calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{x"}}]
        read = read_conversation(write(tmp_path, [{"role": "assistant", "tool_calls": calls}]))

        message = read.messages[0]
        assert isinstance(message, AIMessage)
        assert message.tool_calls == []
        assert message.invalid_tool_calls[0]["args"] == "{x"

    def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(self, tmp_path: Path):
        text = "\ufeff" + lines(CHAT).replace("\n", "\r\n")
        assert len(read_conversation(write(tmp_path, text)).messages) == 5


class TestSerialisedLangChain:
    @pytest.mark.parametrize(
        "content",
        [
            messages_to_dict(MESSAGES),
            [dumpd(message) for message in MESSAGES],
            [message.model_dump() for message in MESSAGES],
            lines(messages_to_dict(MESSAGES)),
            {"messages": [dumpd(message) for message in MESSAGES]},
        ],
    )
    def test_every_field_comes_back(self, tmp_path: Path, content: Any):
        assert read_conversation(write(tmp_path, content)).messages == MESSAGES

    def test_no_class_is_loaded_by_name(self, tmp_path: Path):
        value = {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"a": "b"}}
        with pytest.raises(ValueError, match=r"item 1: expected a serialised message"):
            read_conversation(write(tmp_path, [value]))

    def test_what_nests_in_a_message_stays_plain_data(self, tmp_path: Path):
        inner = {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}}
        value = dumpd(ToolMessage("x", tool_call_id="c"))
        value["kwargs"]["artifact"] = inner
        message = read_conversation(write(tmp_path, [value])).messages[0]
        assert isinstance(message, ToolMessage)
        assert message.artifact == inner

    def test_a_message_with_missing_fields_is_named(self, tmp_path: Path):
        with pytest.raises(ValueError, match=r"item 1: the message lacks 'tool_call_id'"):
            read_conversation(write(tmp_path, [{"type": "tool", "data": {"content": "x"}}]))


def node(
    name: str, parent: str | None, role: str, content: dict[str, Any] | None, **more: Any
) -> dict[str, Any]:
    author = more.pop("author", {"role": role})
    message = None
    if content is not None:
        message = {"id": name, "author": author, "content": content, **more}
    return {"id": name, "parent": parent, "children": [], "message": message}


def said(*parts: Any) -> dict[str, Any]:
    return {"content_type": "text", "parts": list(parts)}


def chatgpt(title: str, *nodes: dict[str, Any], current: str | None) -> dict[str, Any]:
    mapping = {entry["id"]: entry for entry in nodes}
    for entry in nodes:
        if entry["parent"]:
            mapping[entry["parent"]]["children"].append(entry["id"])
    found: dict[str, Any] = {"title": title, "create_time": 1.0, "mapping": mapping}
    return found | ({"current_node": current} if current else {})


TREE = (
    node("root", None, "system", None),
    node("sys", "root", "system", said("")),
    node(
        "hid",
        "sys",
        "system",
        said("settings"),
        metadata={"is_visually_hidden_from_conversation": True},
    ),
    node("q", "hid", "user", said("Plot it"), create_time=100.0),
    node("old", "q", "assistant", said("First try"), create_time=110.0),
    node(
        "code",
        "q",
        "assistant",
        {"content_type": "code", "language": "python", "text": "plot()"},
        recipient="python",
        create_time=120.0,
    ),
    node(
        "out",
        "code",
        "tool",
        {"content_type": "execution_output", "text": "ok"},
        author={"role": "tool", "name": "python"},
        create_time=121.0,
    ),
    node("think", "out", "assistant", {"content_type": "thoughts", "thoughts": [{"content": "x"}]}),
    node(
        "ans",
        "think",
        "assistant",
        {
            "content_type": "multimodal_text",
            "parts": ["Here.", {"content_type": "image_asset_pointer", "asset_pointer": "file-1"}],
        },
        create_time=125.5,
    ),
)


class TestChatGPTExport:
    def test_the_branch_that_was_shown_last_is_followed(self, tmp_path: Path):
        read = read_conversation(write(tmp_path, [chatgpt("Plot", *TREE, current="ans")]))

        assert read.title == "Plot"
        assert [(m.type, m.text, m.id) for m in read.messages] == [
            ("human", "Plot it", "q"),
            ("ai", "", "code"),
            ("tool", "ok", "out"),
            ("ai", "Here.\n[image: file-1]", "ans"),
        ]
        call, result = read.messages[1], read.messages[2]
        assert isinstance(call, AIMessage)
        assert isinstance(result, ToolMessage)
        assert call.tool_calls[0]["args"] == {"input": "plot()"}
        assert call.tool_calls[0]["id"] == result.tool_call_id
        assert read.at[3] == datetime.fromtimestamp(125.5, UTC)

    def test_without_a_current_node_the_newest_leaf_counts(self, tmp_path: Path):
        read = read_conversation(write(tmp_path, [chatgpt("Plot", *TREE, current=None)]))
        assert read.messages[-1].id == "ans"

    def test_a_tool_message_without_its_call_stays_readable(self, tmp_path: Path):
        tree = chatgpt("T", node("t", None, "tool", said("loose")), current="t")
        assert [m.type for m in read_conversation(write(tmp_path, tree)).messages] == ["ai"]

    @pytest.mark.parametrize("wanted", ["2", "Trip", "trip"])
    def test_one_of_several_is_chosen_by_number_or_title(self, tmp_path: Path, wanted: str):
        both = [
            chatgpt("Plot", *TREE, current="ans"),
            chatgpt("Trip", node("x", None, "user", said("Lyon")), current="x"),
        ]
        read = read_conversation(write(tmp_path, both), conversation=wanted)
        assert [m.text for m in read.messages] == ["Lyon"]

    @pytest.mark.parametrize("wanted", [None, "3", "0", "Nowhere"])
    def test_without_a_valid_choice_the_titles_are_listed(self, tmp_path: Path, wanted: str | None):
        both = [
            chatgpt(title, node("x", None, "user", said("a")), current="x")
            for title in ("Plot", "Trip")
        ]
        with pytest.raises(ValueError, match=r"holds 2 conversation.*\n  1: Plot\n  2: Trip"):
            read_conversation(write(tmp_path, both), conversation=wanted)

    @pytest.mark.parametrize("current", ["gone", "loop"])
    def test_a_broken_tree_is_an_error(self, tmp_path: Path, current: str):
        broken = chatgpt("T", node("loop", None, "user", said("a")), current=current)
        broken["mapping"]["loop"]["parent"] = "loop"
        with pytest.raises(ValueError, match="no path"):
            read_conversation(write(tmp_path, broken))


LOCOMO = {
    "sample_id": "demo-1",
    "conversation": {
        "speaker_a": "Uma",
        "speaker_b": "Ravi",
        "session_10_date_time": "9:05 am on 1 June, 2025",
        "session_10": [{"speaker": "Uma", "dia_id": "D10:1", "text": "Later."}],
        "session_2_date_time": "1:56 pm on 8 May, 2025",
        "session_2": [
            {"speaker": "Ravi", "dia_id": "D2:1", "text": "Look!", "blip_caption": "a red kite"},
            {"speaker": "Uma", "dia_id": "D2:2", "text": "Nice."},
        ],
        "session_11_date_time": "9:05 am on 2 June, 2025",
    },
    "qa": [],
}


class TestLoCoMo:
    @pytest.mark.parametrize("content", [LOCOMO, [LOCOMO], LOCOMO["conversation"]])
    def test_sessions_come_in_order_with_speakers_and_captions(self, tmp_path: Path, content: Any):
        read = read_conversation(write(tmp_path, content))

        assert [(m.type, m.name, m.text, m.id) for m in read.messages] == [
            ("ai", "Ravi", "Look! [a red kite]", "D2:1"),
            ("human", "Uma", "Nice.", "D2:2"),
            ("human", "Uma", "Later.", "D10:1"),
        ]
        assert read.at[0] == datetime(2025, 5, 8, 13, 56, tzinfo=UTC)
        assert read.at[2] == datetime(2025, 6, 1, 9, 5, tzinfo=UTC)

    def test_a_third_speaker_is_an_error(self, tmp_path: Path):
        broken = json.loads(json.dumps(LOCOMO))
        broken["conversation"]["session_2"][0]["speaker"] = "Zoe"
        with pytest.raises(ValueError, match=r"session_2: speaker 'Zoe' is neither"):
            read_conversation(write(tmp_path, broken))

    def test_an_unreadable_date_is_an_error(self, tmp_path: Path):
        broken = json.loads(json.dumps(LOCOMO))
        broken["conversation"]["session_2_date_time"] = "a Thursday"
        with pytest.raises(ValueError, match=r"session_2: .*found 'a Thursday'"):
            read_conversation(write(tmp_path, broken))


class TestErrorsNameTheFileThePlaceAndTheFinding:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", r"chat\.json: the file is empty"),
            (" \n\n", r"chat\.json: the file is empty"),
            ("[]", r"chat\.json: the file holds an empty list"),
            ('{"messages": []}', r"chat\.json: the conversation has no messages"),
            ('[{"role": "user",\n "content": nope}]', r"chat\.json, line 2: not JSON, .*nope"),
            ('{"role": "user", "content": "a"}\n{"role"', r"chat\.json, line 2: not JSON, found"),
            (b'[{"role": "user",\n"content": "\xff"}]', r"chat\.json, line 2: not UTF-8.*0xff"),
            ("Hello, world", r"chat\.json, line 1: not JSON"),
            ('{"messages": [', r"chat\.json, line 1: not JSON, .*found the end of the file"),
            ('{"a": 1, "b": 2}', r"expected OpenAI chat messages.*found an object with a, b"),
            ("42", r"chat\.json: expected OpenAI .*found int '42'"),
            ("null", r"found null"),
            ('["hi"]', r"item 1: expected OpenAI .*found str 'hi'"),
            ('[{"role": "user", "content": "a"}, 7]', r"item 2: expected a message, found int"),
            ('[{"role": "wizard", "content": "a"}]', r"item 1: unknown role 'wizard'"),
            ('[{"role": ["user"], "content": "a"}]', r"item 1: cannot be read as a message"),
            ('[{"role": "user"}]', r"item 1: content must be text or parts, found null"),
            ('[{"role": "user", "content": 3}]', r"item 1: content must be .*found int '3'"),
            ('[{"role": "tool", "content": "a"}]', r"item 1: the message lacks 'tool_call_id'"),
            ('[{"role": "user", "content": "a", "at": "soon"}]', r"item 1: a time .*'soon'"),
            ('[{"type": "alien", "data": {}}]', r"item 1: .*found type 'alien'"),
            ('{"messages": [{"role": "user", "content": 1}]}', r"chat\.json, message 1: content"),
            ('{"mapping": []}', r"mapping must be an object"),
            ('{"mapping": {}}', r"the conversation has no messages"),
            ('{"mapping": {}, "current_node": ["x"]}', r"no path from node"),
            ("[" * 100_000, r"nested too deeply"),
            ('[{"role": "user", "content": "' + "9" * 10 + '", "at": ' + "9" * 5_000, r"not JSON"),
        ],
    )
    def test_one_clear_error(self, tmp_path: Path, content: str | bytes, message: str):
        with pytest.raises(ValueError, match=message) as caught:
            read_conversation(write(tmp_path, content))
        assert "chat.json" in str(caught.value)

    def test_a_missing_file_is_the_systems_own_error(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match=r"gone\.json"):
            read_conversation(tmp_path / "gone.json")
