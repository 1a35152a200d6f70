from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel

from langchain_ctxmgr.storage.codec import (
    GENESIS,
    decode,
    digest,
    encode,
    link,
    role_of,
    row_digest,
)

texts = st.text(st.characters(codec=None, categories=None), max_size=12)
numbers = st.one_of(
    st.integers(), st.integers(-(2**200), 2**200), st.floats(allow_nan=False), st.booleans()
)
scalars = st.one_of(
    st.none(),
    texts,
    numbers,
    st.binary(max_size=8),
    st.builds(bytearray, st.binary(max_size=4)),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.frozensets(st.one_of(texts, numbers), max_size=3),
    st.sets(st.binary(max_size=3), max_size=3),
)
keys = st.one_of(texts, st.just("$"), st.integers(), st.tuples(texts, st.none()), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(texts, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=10,
)
fields = st.dictionaries(texts, values, max_size=3)
contents = st.one_of(texts, st.lists(st.one_of(texts, fields), max_size=3))
shared = {
    "content": contents,
    "additional_kwargs": fields,
    "response_metadata": fields,
    "id": st.none() | texts,
    "name": st.none() | texts,
}
calls = st.lists(
    st.builds(
        lambda name, args, key: {"name": name, "args": args, "id": key, "type": "tool_call"},
        texts,
        fields,
        st.none() | texts,
    ),
    max_size=2,
)
broken_calls = st.lists(
    st.builds(
        lambda name, error: {
            "name": name,
            "args": "{",
            "id": "x",
            "error": error,
            "type": "invalid_tool_call",
        },
        st.none() | texts,
        texts,
    ),
    max_size=1,
)
usage = st.none() | st.builds(
    lambda n: {
        "input_tokens": n,
        "output_tokens": 1,
        "total_tokens": n + 1,
        "input_token_details": {"cache_read": n},
    },
    st.integers(0, 9),
)
ai = {**shared, "tool_calls": calls, "invalid_tool_calls": broken_calls, "usage_metadata": usage}
tool = {
    **shared,
    "tool_call_id": texts,
    "artifact": values,
    "status": st.sampled_from(["success", "error"]),
}
# Built without validators, which rewrite odd values: what a message holds must come back.
messages = st.one_of(
    *(
        st.builds(lambda cls=cls, **held: cls.model_construct(**held), **given)
        for cls, given in (
            (HumanMessage, shared),
            (HumanMessageChunk, shared),
            (SystemMessage, shared),
            (SystemMessageChunk, shared),
            (AIMessage, ai),
            (AIMessageChunk, ai),
            (ToolMessage, tool),
            (ToolMessageChunk, tool),
            (FunctionMessage, shared),
            (FunctionMessageChunk, shared),
            (ChatMessage, {**shared, "role": texts}),
            (ChatMessageChunk, {**shared, "role": texts}),
        )
    )
)


@settings(max_examples=300, deadline=None)
@given(messages)
def test_any_message_comes_back_byte_for_byte(message: BaseMessage):
    stored = encode(message)
    back = decode(stored)
    assert type(back) is type(message)
    assert back == message
    assert encode(back) == stored


@settings(max_examples=200, deadline=None)
@given(values)
def test_any_value_comes_back_with_its_types(value):
    message = ToolMessage.model_construct(content="", tool_call_id="c", artifact=value)
    back: Any = decode(encode(message))
    assert_same(back.artifact, value)


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, float):
        assert math.copysign(1, left) == math.copysign(1, right)
        assert left == right
    else:
        assert left == right


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [
            "\ud83d",
            "\ud83d\ude00",
            chr(0xDE00) + chr(0xD83D),
            {"\ud800\udc00": "\udfff"},
            {"$": 1},
            {"$": "bytes", "v": "AA=="},
            {1: "a", "1": "b", None: "c", (1, ("x",)): "d"},
            2**64,
            -(10**5000),
            float("inf"),
            -0.0,
            (1, [2, (3,)], ()),
            b"\x00\xff",
            bytearray(b"x"),
            {"a", "b"},
            frozenset({(1, 2)}),
            datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
            date(2024, 1, 2),
            time(1, 2, 3, 4),
            timedelta(days=-1, microseconds=7),
            Decimal("1.10"),
            UUID(int=7),
            3 + 4j,
            [Document("text", id="d", metadata={"page": (1, 2)})],
            HumanMessage("nested", additional_kwargs={"b": b"x"}),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_json_lacks_survives(self, value):
        message = ToolMessage("x", tool_call_id="c", artifact=value)
        back: Any = decode(encode(message))
        assert_same(back.artifact, value)
        assert encode(back) == encode(message)

    def test_nan_survives(self):
        back = decode(encode(AIMessage("x", response_metadata={"p": float("nan")})))
        assert math.isnan(back.response_metadata["p"])

    def test_numbers_and_texts_of_other_types_are_stored_as_pythons_own(self):
        class Colour(StrEnum):
            RED = "red"

        held = {"colour": Colour.RED, "f": np.float64(0.5), "g": np.float32(0.5), "i": np.int64(3)}
        back = decode(encode(AIMessage("x", response_metadata=held)))
        assert back.response_metadata == held
        assert [type(v) for v in back.response_metadata.values()] == [str, float, float, int]


class TestWhatCannotBeStored:
    def test_an_open_file_is_described_the_same_every_time(self):
        one, other = (ToolMessage("x", tool_call_id="c", artifact=object()) for _ in range(2))
        assert encode(one) == encode(other)
        back: Any = decode(encode(ToolMessage("x", tool_call_id="c", artifact=io.BytesIO(b"x"))))
        assert back.artifact["type"] == "_io.BytesIO"
        assert "BytesIO" in back.artifact["repr"]
        assert encode(back) == encode(decode(encode(back)))

    def test_a_model_and_a_dataclass_keep_their_data(self):
        class Answer(BaseModel):
            total: Decimal

        @dataclass
        class Point:
            x: int

        held = {"parsed": Answer(total=Decimal("1.5")), "point": Point(3)}
        back = decode(encode(AIMessage("x", additional_kwargs=held)))
        assert back.additional_kwargs["parsed"]["data"] == {"total": Decimal("1.5")}
        assert back.additional_kwargs["parsed"]["type"].endswith("Answer")
        assert back.additional_kwargs["point"]["data"] == {"x": 3}

    def test_a_cycle_ends(self):
        loop: list[Any] = []
        loop.append(loop)
        back: Any = decode(encode(ToolMessage("x", tool_call_id="c", artifact=loop)))
        assert isinstance(back.artifact, list)

    def test_a_long_or_failing_repr_is_cut_or_left_out(self):
        class Failing:
            def __repr__(self):
                raise RuntimeError

        class Long:
            def __repr__(self):
                return "x" * 5_000

        held = {"failing": Failing(), "long": Long()}
        back = decode(encode(AIMessage("x", additional_kwargs=held)))
        assert back.additional_kwargs["failing"]["repr"] == ""
        assert len(back.additional_kwargs["long"]["repr"]) == 1_000

    def test_a_removal_is_no_message(self):
        with pytest.raises(ValueError, match="RemoveMessage"):
            encode(RemoveMessage(id="m1"))


class Mood(AIMessage):
    mood: str = "calm"


class TestClasses:
    def test_a_class_of_the_hosts_own_becomes_the_nearest_known_one(self):
        own = Mood("hi", id="m", mood="glad", extra_note=(1, 2))  # type: ignore[call-arg]
        back: Any = decode(encode(own))
        assert type(back) is AIMessage
        assert (back.content, back.id, back.mood, back.extra_note) == ("hi", "m", "glad", (1, 2))
        assert back.message_class == f"{__name__}.Mood"
        assert encode(back) == encode(own)

    def test_a_class_or_field_of_another_release_is_kept(self):
        stored = json.dumps(
            {"class": "PoemMessage", "fields": {"content": "x", "metre": 5}}
        ).encode()
        back: Any = decode(stored)
        assert isinstance(back, BaseMessage)
        assert (back.content, back.metre, back.type) == ("x", 5, "PoemMessage")
        newer = json.dumps({"class": "AIMessage", "fields": {"content": "x", "new": [1]}}).encode()
        back = decode(newer)
        assert (type(back), back.new, back.tool_calls) == (AIMessage, [1], [])

    def test_nothing_is_imported_by_name(self):
        stored = b'{"class":"os.system","fields":{"content":"x"}}'
        assert type(decode(stored)) is BaseMessage

    def test_a_decoded_message_works_like_any_other(self):
        said = AIMessageChunk("a", id="m", usage_metadata=None)
        back: Any = decode(encode(said))
        assert (back + AIMessageChunk("b")).content == "ab"
        assert back.model_copy(update={"content": "z"}).content == "z"
        assert back.model_dump() == said.model_dump()
        assert back.pretty_repr() == said.pretty_repr()

    def test_defaults_are_not_shared_between_messages(self):
        one, other = (decode(encode(AIMessage("x"))) for _ in range(2))
        one.additional_kwargs["a"] = 1
        assert other.additional_kwargs == {}

    def test_a_field_left_at_its_default_is_not_stored(self):
        explicit = HumanMessage("x", id=None, additional_kwargs={}, name=None)
        assert encode(explicit) == encode(HumanMessage("x"))

    def test_chunks_have_the_role_of_their_message(self):
        assert role_of(AIMessageChunk("x")) == role_of(AIMessage("x")) == "ai"
        assert role_of(HumanMessageChunk("x")) == "human"
        assert role_of(BaseMessage(content="x", type="odd \ud800")) == "odd ?"

    @pytest.mark.parametrize("bad", [b"[]", b"{", b"null", b"\xff", b'{"fields":{}}'])
    def test_other_bytes_are_no_message(self, bad):
        with pytest.raises(ValueError, match=r"."):
            decode(bad)


def test_a_link_depends_on_everything_it_covers():
    content, row = digest(b"x"), row_digest(("a", 1, None, 0.5), b"t")
    first = link(GENESIS, content, row)
    assert first == link(GENESIS, content, row_digest(("a", 1, None, 0.5), b"t"))
    others = {
        link(first, content, row),
        link(GENESIS, digest(b"y"), row),
        link(GENESIS, content, row_digest(("a", "1", None, 0.5), b"t")),
        link(GENESIS, content, row_digest(("a", 1, None, 0.25), b"t")),
        link(GENESIS, content, row_digest(("a", 1, None, 0.5), b"u")),
    }
    assert len(others | {first}) == 6
