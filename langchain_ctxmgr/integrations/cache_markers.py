"""Marks in a prompt for models that cache only up to a mark: Anthropic's `cache_control`.

Four at most, where the layout stands still: after the system text (tools, which come before it,
included), before the current question, where the last step of a tool loop ended, and at the end,
where the next step goes on. Anthropic looks back 20 blocks from a mark for an earlier one, so a
step that adds more finds its own beginning by the third.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage

from langchain_ctxmgr.prompt.validity import asked_by, is_blank, role_of

MARK: Mapping[str, str] = {"type": "ephemeral"}
_UNMARKABLE = frozenset({"thinking", "redacted_thinking", "reasoning", "tool_use"})
"""Thinking cannot be marked, and `langchain-anthropic` writes tool calls anew."""


def takes_markers(model: object) -> bool:
    """Whether `model` is a chat model of `langchain-anthropic`, or over it on another cloud."""
    kind = str(getattr(model, "_llm_type", ""))
    return "anthropic" in kind and "chat" in kind


def with_cache_markers(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """`messages` with marks; the given ones are not changed.

    A mark that finds no text goes to the message before. Messages that are marked already are
    left as they are, all of them: a request takes four marks.
    """
    marked = list(messages)
    if any(_is_marked(message) for message in messages):
        return marked
    for place in dict.fromkeys(_boundaries(messages)):
        found = next((i for i in range(place, -1, -1) if _holder(marked[i]) is not None), None)
        if found is not None:
            marked[found] = _marked(messages[found])
    return marked


def _boundaries(messages: Sequence[BaseMessage]) -> list[int]:
    """Places of the last messages of what stands still."""
    last = len(messages) - 1
    if last < 0:
        return []
    asked = max((i for i, m in enumerate(messages) if role_of(m) == "human"), default=0)
    step = max((i for i in range(asked, last) if asked_by(messages[i])), default=asked + 1) - 1
    lead = 0 if role_of(messages[0]) == "system" else -1
    return [place for place in (lead, asked - 1, step, last) if place >= 0]


def _is_marked(message: BaseMessage) -> bool:
    return any("cache_control" in block for block in _blocks(message))


def _blocks(message: BaseMessage) -> list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return [] if is_blank(message) else [{"type": "text", "text": content}]
    return [
        {"type": "text", "text": block} if isinstance(block, str) else cast("dict[str, Any]", block)
        for block in content
    ]


def _holder(message: BaseMessage) -> int | None:
    """Which of the blocks can be marked: the last one that says something."""
    blocks = _blocks(message)
    places = (i for i in reversed(range(len(blocks))) if _can_hold(blocks[i]))
    return next(places, None)


def _can_hold(block: Mapping[str, Any]) -> bool:
    if block.get("type") == "text":
        return bool(str(block.get("text") or "").strip())
    return block.get("type") not in _UNMARKABLE


def _marked(message: BaseMessage) -> BaseMessage:
    blocks, place = _blocks(message), _holder(message)
    content = [
        {**block, "cache_control": dict(MARK)} if i == place else block
        for i, block in enumerate(blocks)
    ]
    return message.model_copy(update={"content": content})
