"""What of a message is sent, and what each part costs.

The figures are OpenAI's for chat completions; other providers' are close, and
`Calibration` learns the difference. Where a provider documents nothing the count errs on
the high side, so that a prompt that fits here fits there.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_ctxmgr.budget import media

TextCounter: TypeAlias = Callable[[str], int]

MESSAGE_TOKENS = 3
"""Around each message. Source: OpenAI cookbook, "How to count tokens with tiktoken"."""
ROLE_TOKENS = 1
"""`system`, `user`, `assistant`, `tool`: one token each in OpenAI's vocabularies."""
NAME_TOKENS = 1
"""Beside the tokens of the name. Source: the same."""
REPLY_TOKENS = 3
"""What opens the reply. Source: the same."""
TOOL_CALL_TOKENS = 8
"""Around each call: recipient, channel and `functions.`, which OpenAI does not document."""
TOOL_RESULT_TOKENS = 3
"""What ties a result to its call, as langchain-openai counts it."""
TOOLS_TOKENS = 12
"""Around the tool schemas as a whole. Source: the cookbook's `func_end`."""

_CALL_TYPES = frozenset(
    {"tool_use", "tool_call", "function_call", "tool_call_chunk", "invalid_tool_call"}
)
_REASONING_TYPES = frozenset({"reasoning", "thinking", "redacted_thinking", "reasoning_content"})
_OPAQUE_KEYS = frozenset(
    {"signature", "encrypted_content", "data", "redactedContent", "redacted_content"}
)
_UNSENT_KEYS = frozenset({"type", "id", "index", "status"})
_SENT_KWARGS = ("reasoning_content", "reasoning", "refusal")
"""Entries of `additional_kwargs` that some integration sends back, beside calls and audio."""


def message_tokens(message: BaseMessage, count: TextCounter) -> int:
    """Tokens of one message with what stands around it."""
    total = MESSAGE_TOKENS + _role_tokens(message, count)
    if isinstance(message.name, str) and message.name:
        total += NAME_TOKENS + count(message.name)
    call_ids: frozenset[str] = frozenset()
    if isinstance(message, AIMessage):
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        call_ids = frozenset(str(call.get("id")) for call in calls if call.get("id"))
        total += sum(_call_tokens(call.get("name"), call.get("args"), count) for call in calls)
        total += _raw_call_tokens(message.additional_kwargs, bool(calls), count)
    elif isinstance(message, ToolMessage):
        total += TOOL_RESULT_TOKENS
    for key in _SENT_KWARGS:
        value = message.additional_kwargs.get(key)
        if value:
            total += _reasoning_tokens(value, count)
    spoken = message.additional_kwargs.get("audio")
    if isinstance(spoken, Mapping):
        total += media.audio_tokens(cast("Mapping[str, Any]", spoken))
    return total + _content_tokens(cast("object", message.content), call_ids, count)


def tool_tokens(tool: object, count: TextCounter) -> int:
    """Tokens of one tool's schema, as JSON text.

    OpenAI renders schemas more tightly, others send them as they are; JSON under-counts
    neither.

    Raises:
        ValueError: If `tool` is nothing that a chat model's `bind_tools` takes.
    """
    return count(schema_text(tool))


def schema_text(tool: object) -> str:
    """The schema of `tool` as OpenAI takes it, in JSON."""
    if isinstance(tool, Mapping):
        found = cast("Mapping[str, Any]", tool)
        try:
            return to_json(convert_to_openai_tool(dict(found)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return to_json(dict(found))
    if isinstance(tool, (type, BaseTool)) or inspect.isroutine(tool) or callable(tool):
        try:
            return to_json(convert_to_openai_tool(cast("Callable[..., Any]", tool)))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"tools must hold what bind_tools takes, got {tool!r}") from error
    raise ValueError(f"tools must hold what bind_tools takes, got {tool!r}")


def to_json(value: object) -> str:
    """`value` as JSON text, with what JSON lacks by its `repr`."""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except (TypeError, ValueError):
        return repr(value)


def _role_tokens(message: BaseMessage, count: TextCounter) -> int:
    if isinstance(message, ChatMessage):
        return max(ROLE_TOKENS, count(message.role))
    return ROLE_TOKENS


def _call_tokens(name: object, args: object, count: TextCounter) -> int:
    text = args if isinstance(args, str) else to_json(args)
    return TOOL_CALL_TOKENS + count(str(name or "")) + count(text)


def _raw_call_tokens(kwargs: Mapping[str, Any], is_parsed: bool, count: TextCounter) -> int:
    """Calls in a provider's own form; `tool_calls` there repeats what LangChain parsed."""
    total = 0
    function = kwargs.get("function_call")
    if isinstance(function, Mapping) and not is_parsed:
        call = cast("Mapping[str, Any]", function)
        total += _call_tokens(call.get("name"), call.get("arguments"), count)
    raw = kwargs.get("tool_calls")
    if raw and not is_parsed:
        total += TOOL_CALL_TOKENS + count(to_json(raw))
    return total


def _content_tokens(content: object, call_ids: frozenset[str], count: TextCounter) -> int:
    if isinstance(content, str):
        return count(content)
    if content is None:
        return 0
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        blocks = cast("Sequence[object]", content)
        return sum(_block_tokens(block, call_ids, count) for block in blocks)
    return _block_tokens(content, call_ids, count)


def _block_tokens(block: object, call_ids: frozenset[str], count: TextCounter) -> int:
    if isinstance(block, str):
        return count(block)
    if not isinstance(block, Mapping):
        return count(to_json(block))
    fields = cast("Mapping[str, Any]", block)
    kind = str(fields.get("type"))
    if kind in _CALL_TYPES and str(fields.get("call_id") or fields.get("id")) in call_ids:
        return 0
    if kind in {"tool_result", "function_call_output"}:
        inner = fields.get("content", fields.get("output"))
        return TOOL_RESULT_TOKENS + _content_tokens(inner, call_ids, count)
    return _known_block_tokens(kind, fields, count)


def _known_block_tokens(kind: str, fields: Mapping[str, Any], count: TextCounter) -> int:
    text = fields.get("text")
    if kind in {"text", "input_text", "output_text"} and isinstance(text, str):
        return count(text)
    if kind in _REASONING_TYPES:
        return _reasoning_tokens(fields, count)
    if kind in media.IMAGE_TYPES:
        return media.image_tokens(fields, count)
    if kind in media.AUDIO_TYPES:
        return media.audio_tokens(fields)
    if kind in media.FILE_TYPES:
        return media.file_tokens(fields, count)
    return count(to_json(fields if isinstance(fields, dict) else dict(fields)))


def _reasoning_tokens(value: object, count: TextCounter) -> int:
    if isinstance(value, str):
        return count(value)
    if isinstance(value, Mapping):
        total = 0
        for key, entry in cast("Mapping[str, object]", value).items():
            if key in _UNSENT_KEYS:
                continue
            if key in _OPAQUE_KEYS and isinstance(entry, (str, bytes)):
                total += media.opaque_tokens(entry)
            else:
                total += _reasoning_tokens(entry, count)
        return total
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return sum(_reasoning_tokens(entry, count) for entry in cast("Sequence[object]", value))
    return 0 if value is None else count(to_json(value))
