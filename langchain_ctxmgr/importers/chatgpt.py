"""ChatGPT's data export: a tree of messages for each conversation."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import zip_longest
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_ctxmgr.importers.documents import (
    Candidate,
    Conversation,
    Item,
    JsonObject,
    describe,
    instant,
    is_object,
    member,
    text_or_none,
)
from langchain_ctxmgr.importers.messages import build_message


def chatgpt(item: Item) -> Candidate:
    """The conversation of one entry of `conversations.json`."""
    title = text_or_none(item.value.get("title"))
    return Candidate(title, lambda: _from_chatgpt(item, title))


def _from_chatgpt(item: Item, title: str | None) -> Conversation:
    """The branch that was shown last, without what the interface hid.

    The export has tool results but no call ids: a message sent to a tool becomes a call
    when its answer follows at once, and plain text when none does.
    """
    shown = [node for node in _branch(item) if _text(node) and not _is_hidden(node)]
    messages: list[BaseMessage] = []
    at: list[datetime | None] = []
    for node, following in zip_longest(shown, shown[1:]):
        sender, text = node["author"], _text(node)
        answered = member(following, "author", "role") == "tool"
        entry: JsonObject = {"role": sender.get("role"), "content": text, "id": node.get("id")}
        if sender.get("name"):
            entry["name"] = sender["name"]
        if entry["role"] == "assistant" and node.get("recipient", "all") != "all" and answered:
            function = {"name": node["recipient"], "arguments": json.dumps({"input": text})}
            entry |= {"content": "", "tool_calls": [{"id": node["id"], "function": function}]}
        elif entry["role"] == "tool":
            previous = messages[-1] if messages else None
            if isinstance(previous, AIMessage) and previous.tool_calls:
                entry["tool_call_id"] = previous.tool_calls[0]["id"]
            else:
                entry["role"] = "assistant"
        messages.append(build_message(f"{item.where}, node {node.get('id')}", entry))
        when = node.get("create_time")
        at.append(None if when is None else instant(item.where, when))
    return Conversation(messages=messages, at=at, title=title)


def _branch(item: Item) -> list[JsonObject]:
    mapping = item.value["mapping"]
    if not is_object(mapping):
        raise ValueError(f"{item.where}: mapping must be an object, found {describe(mapping)}")
    node_id: Any = item.value.get("current_node") or _newest_leaf(mapping)
    branch: list[JsonObject] = []
    seen: set[str] = set()
    while node_id is not None:
        node = mapping.get(node_id) if isinstance(node_id, str) else None
        if not is_object(node) or node_id in seen:
            raise ValueError(f"{item.where}: the mapping has no path from node {node_id!r} up")
        seen.add(node_id)
        message = node.get("message")
        if is_object(message) and is_object(message.get("author")):
            branch.append({"id": node_id, **message})
        node_id = node.get("parent")
    return branch[::-1]


def _newest_leaf(mapping: JsonObject) -> str | None:
    def created(node_id: str) -> float:
        return member(mapping[node_id], "message", "create_time") or 0.0

    leaves = (node_id for node_id, node in mapping.items() if not member(node, "children"))
    return max(leaves, key=created, default=None)


def _is_hidden(node: JsonObject) -> bool:
    return bool(member(node, "metadata", "is_visually_hidden_from_conversation"))


def _text(node: JsonObject) -> str:
    """What was said or shown; "" for reasoning, settings and empty messages."""
    content = node.get("content")
    if not is_object(content):
        return ""
    kind = content.get("content_type")
    if kind in {"text", "multimodal_text"}:
        said: list[Any] = content.get("parts") or []
        parts = [_part(part) for part in said]
        attached: list[Any] = member(node, "metadata", "attachments") or []
        parts += [f"[file: {member(entry, 'name')}]" for entry in attached]
        return "\n".join(part for part in parts if part)
    if kind in {"code", "execution_output", "tether_quote", "system_error"}:
        return content.get("text") or ""
    if kind == "tether_browsing_display":
        return content.get("result") or ""
    return ""


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not is_object(part):
        return ""
    if isinstance(part.get("text"), str):
        return part["text"]
    shown = member(part, "metadata", "dalle", "prompt") or part.get("asset_pointer")
    return f"[image: {shown or 'no description'}]"
