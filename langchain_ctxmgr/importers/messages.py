"""OpenAI's chat format and serialised LangChain messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    convert_to_messages,
    messages_from_dict,
)

from langchain_ctxmgr.importers.documents import (
    FORMATS,
    Candidate,
    Conversation,
    Item,
    JsonObject,
    describe,
    first_lines,
    instant,
    is_object,
    member,
    text_or_none,
)

_TIME_KEYS = ("at", "timestamp", "created_at", "create_time")
"""Where a message may carry its time, beside what the chat formats define."""

_LC_TYPES = {
    "HumanMessage": "human",
    "AIMessage": "ai",
    "SystemMessage": "system",
    "ChatMessage": "chat",
    "FunctionMessage": "function",
    "ToolMessage": "tool",
} | {
    name: name
    for name in (
        "HumanMessageChunk",
        "AIMessageChunk",
        "SystemMessageChunk",
        "ChatMessageChunk",
        "FunctionMessageChunk",
        "ToolMessageChunk",
    )
}
"""Serialised class names, and the type tag that `messages_from_dict` knows them by."""

_SERIALISED_TYPES = frozenset(_LC_TYPES.values())

_OPENAI_ROLES = frozenset({"user", "assistant", "system", "developer", "tool", "function"})


def message_list(item: Item) -> Candidate:
    """The conversation in a list of messages, or in an object that holds one."""
    held: Any = member(item.value, "messages") or item.value
    entries = cast("list[Any]", held if isinstance(held, list) else [])
    title = text_or_none(member(item.value, "title"))
    items = [Item(f"{item.where}, message {n}", entry) for n, entry in enumerate(entries, 1)]
    return Candidate(title, lambda: from_messages(items, title))


def from_messages(items: Sequence[Item], title: str | None = None) -> Conversation:
    """The conversation whose messages are `items`, one each."""
    read = [_read_message(item) for item in items]
    return Conversation(
        messages=[message for message, _ in read], at=[at for _, at in read], title=title
    )


def _read_message(item: Item) -> tuple[BaseMessage, datetime | None]:
    if not is_object(item.value):
        raise ValueError(f"{item.where}: expected a message, found {describe(item.value)}")
    value = {key: entry for key, entry in item.value.items() if key not in _TIME_KEYS}
    given = next((item.value[k] for k in _TIME_KEYS if item.value.get(k) is not None), None)
    at = None if given is None else instant(item.where, given)
    try:
        message = build_message(item.where, value)
    except KeyError as error:
        raise ValueError(f"{item.where}: the message lacks {error}") from error
    except TypeError as error:
        raise ValueError(f"{item.where}: cannot be read as a message, {error}") from error
    return message, at


def build_message(where: str, value: JsonObject) -> BaseMessage:
    """The LangChain message that `value` stands for.

    Raises:
        ValueError: If it is no message, or its role or type is unknown.
    """
    if "role" in value and value.get("type") != "chat":
        return _from_openai(where, value)
    if value.get("lc") is not None:
        return _from_constructor(where, value)
    tag = value.get("type")
    if tag not in _SERIALISED_TYPES:
        named = f"type {tag!r}" if tag is not None else describe(value)
        raise ValueError(f"{where}: {FORMATS}, found {named}")
    data = value["data"] if is_object(value.get("data")) else value
    return _from_serialised(where, tag, data)


def _from_constructor(where: str, value: JsonObject) -> BaseMessage:
    """A message in the form that `dumpd` writes. What nests inside stays plain data."""
    name = value["id"][-1] if value.get("id") else None
    if value.get("type") != "constructor" or name not in _LC_TYPES:
        raise ValueError(f"{where}: expected a serialised message, found {name!r}")
    return _from_serialised(where, _LC_TYPES[name], value["kwargs"])


def _from_serialised(where: str, tag: str, data: JsonObject) -> BaseMessage:
    try:
        return messages_from_dict([{"type": tag, "data": data}])[0]
    except ValueError as error:
        raise ValueError(f"{where}: not a {tag} message, {first_lines(error)}") from error


def _from_openai(where: str, value: JsonObject) -> BaseMessage:
    role = value["role"]
    if role not in _OPENAI_ROLES:
        known = ", ".join(sorted(_OPENAI_ROLES))
        raise ValueError(f"{where}: unknown role {role!r}, expected one of {known}")
    fields = {key: entry for key, entry in value.items() if entry is not None}
    content = fields.get("content")
    if content is None and role == "assistant":
        content = fields.get("refusal", "")
    if not isinstance(content, str | list):
        raise ValueError(f"{where}: content must be text or parts, found {describe(content)}")
    calls, invalid = _split_calls(where, fields.pop("tool_calls", []))
    fields |= {"content": content} | ({"tool_calls": calls} if calls else {})
    if "id" in fields:
        fields["id"] = str(fields["id"])
    try:
        message = convert_to_messages([fields])[0]
    except ValueError as error:
        raise ValueError(f"{where}: not a {role} message, {first_lines(error)}") from error
    if invalid and isinstance(message, AIMessage):
        return message.model_copy(update={"invalid_tool_calls": invalid})
    return message


def _split_calls(where: str, calls: Any) -> tuple[list[JsonObject], list[JsonObject]]:
    """Tool calls as they are, and those whose arguments are not a JSON object."""
    if not isinstance(calls, list):
        raise ValueError(f"{where}: tool_calls must be a list, found {describe(calls)}")
    valid: list[JsonObject] = []
    invalid: list[JsonObject] = []
    for call in cast("list[Any]", calls):
        function = call.get("function") if is_object(call) else None
        if not is_object(function) or "name" not in function:
            raise ValueError(f"{where}: a tool call without a function, {describe(call)}")
        text = function.get("arguments") or "{}"
        try:
            arguments = json.loads(text, strict=False) if isinstance(text, str) else text
        except ValueError:
            arguments = None
        entry = {"name": function["name"], "id": call.get("id")}
        if is_object(arguments):
            valid.append({**entry, "args": arguments, "type": "tool_call"})
        else:
            invalid.append(
                {**entry, "args": text, "error": "not a JSON object", "type": "invalid_tool_call"}
            )
    return valid, invalid
