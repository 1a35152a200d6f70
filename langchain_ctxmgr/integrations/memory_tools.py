"""Tools with which an agent looks into its own past: recall by a question, read by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias, cast

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt import ToolRuntime

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.integrations.following import turn_of
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.prompt.layout import day, row
from langchain_ctxmgr.records import Memory, Scope

Whose: TypeAlias = Callable[[ToolRuntime[Any, Any]], Scope]
"""The scope of the run that a tool is called in."""
Query: TypeAlias = Annotated[str, "What to look for, in words."]
Number: TypeAlias = Annotated[int, "The message's number, as it stands ahead of recalled text."]
Start: TypeAlias = Annotated[int, "The character to start from."]
PAGE_CHARS = 8_000
"""Most that is read of a message at a time."""
_RECALLED = 8


def memory_tools(manager: ContextManager, whose: Whose) -> list[BaseTool]:
    """`recall_conversation` and `read_message`, for the thread of the run they are called in."""

    def recalled(query: str, runtime: ToolRuntime[Any, Any]) -> Plan[str]:
        messages = cast("Sequence[BaseMessage]", runtime.state["messages"])
        now = {message.id for message in messages[turn_of(messages) :]}
        k = _RECALLED + len(now)
        found = yield from call(manager.recall, query, scope=whose(runtime), k=k)
        earlier = [memory for memory in found if memory.id not in now][:_RECALLED]
        return "".join(map(_line, earlier)) or "Nothing earlier in this conversation fits that."

    def read(number: int, start: int, runtime: ToolRuntime[Any, Any]) -> Plan[str]:
        message = yield from call(manager.message, number, scope=whose(runtime))
        text = "" if message is None else message_text(message)[start : start + PAGE_CHARS]
        return text or f"There is nothing to read at message {number} from character {start}."

    def recall_conversation(query: Query, runtime: ToolRuntime[Any, Any]) -> str:
        """Search everything said earlier in this conversation.

        Each line of the result opens with the day and the number of its message.
        """
        return run(recalled(query, runtime))

    async def arecall_conversation(query: Query, runtime: ToolRuntime[Any, Any]) -> str:
        return await arun(recalled(query, runtime))

    def read_message(number: Number, runtime: ToolRuntime[Any, Any], start: Start = 0) -> str:
        """Read one earlier message of this conversation in full, 8,000 characters at a time."""
        return run(read(number, start, runtime))

    async def aread_message(
        number: Number, runtime: ToolRuntime[Any, Any], start: Start = 0
    ) -> str:
        return await arun(read(number, start, runtime))

    return [
        StructuredTool.from_function(recall_conversation, arecall_conversation),
        StructuredTool.from_function(read_message, aread_message),
    ]


def _line(memory: Memory) -> str:
    text = row(slot=memory.slot, speaker=memory.speaker, role=memory.role, text=memory.text)
    return f"{day(memory.at).rstrip()}, {text}"
