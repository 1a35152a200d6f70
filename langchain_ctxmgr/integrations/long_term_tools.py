"""Tools with which an agent keeps memories across threads: recall them, save one, forget one.

They work within the user of the run, else within its thread. What the agent saves has the
agent's authority: it replaces nothing that the user said. It can forget what was saved as a
memory, not what was said.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, cast

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt import ToolRuntime

from langchain_ctxmgr._plans import Plan, arun, call, run
from langchain_ctxmgr.integrations.following import turn_of
from langchain_ctxmgr.integrations.memory_tools import Query, Whose
from langchain_ctxmgr.manager import ContextManager
from langchain_ctxmgr.memory.facts.service import memory_id_of
from langchain_ctxmgr.memory.facts.values import Authority, Fact
from langchain_ctxmgr.prompt.layout import remembered
from langchain_ctxmgr.records import Memory, Scope

Text: TypeAlias = Annotated[str, "What to remember, as a sentence that stands by itself."]
MemoryId: TypeAlias = Annotated[str, "The memory's id, as it stands behind a recalled memory."]
_RECALLED = 8


def long_term_tools(manager: ContextManager, whose: Whose) -> list[BaseTool]:
    """`recall_memory`, `save_memory` and `forget_memory`, for the user of the run, else its thread.

    Args:
        manager: Keeps the memories.
        whose: The scope of the run that a tool is called in.
    """

    def recalled(query: str, runtime: ToolRuntime[Any, Any]) -> Plan[str]:
        messages = cast("list[BaseMessage]", runtime.state["messages"])
        now = {message.id for message in messages[turn_of(messages) :]}
        scope = _across(whose(runtime))
        found = yield from call(manager.facts, query, scope=scope, k=_RECALLED)
        facts = [fact for fact in found if not fact.is_flagged]
        k = _RECALLED + len(now)
        memories = yield from call(manager.recall, query, scope=scope, k=k)
        lines = [_fact_line(fact) for fact in facts]
        told = {source.message_id for fact in facts for source in fact.sources}
        lines += [
            _line(memory)
            for memory in memories
            if memory.id not in now | told and memory.role != "tool"
        ]
        return "".join(lines[: 2 * _RECALLED]) or "Nothing is remembered that fits that."

    def saved(text: str, runtime: ToolRuntime[Any, Any]) -> Plan[str]:
        scope = whose(runtime)
        memory_id = yield from call(manager.remember, text, scope=scope, authority=Authority.AGENT)
        return f"Saved as memory {memory_id}."

    def forgotten(memory_id: str, runtime: ToolRuntime[Any, Any]) -> Plan[str]:
        receipt = yield from call(manager.forget, scope=whose(runtime), memory=memory_id)
        return "Forgotten." if receipt.messages else f"There is no memory {memory_id}."

    def recall_memory(query: Query, runtime: ToolRuntime[Any, Any]) -> str:
        """Search what is known of the user from all their conversations.

        Each line opens with a day and who said so; a memory that can be forgotten has its id.
        """
        return run(recalled(query, runtime))

    async def arecall_memory(query: Query, runtime: ToolRuntime[Any, Any]) -> str:
        return await arun(recalled(query, runtime))

    def save_memory(text: Text, runtime: ToolRuntime[Any, Any]) -> str:
        """Remember something across all conversations with the user."""
        return run(saved(text, runtime))

    async def asave_memory(text: Text, runtime: ToolRuntime[Any, Any]) -> str:
        return await arun(saved(text, runtime))

    def forget_memory(memory_id: MemoryId, runtime: ToolRuntime[Any, Any]) -> str:
        """Forget one saved memory for good."""
        return run(forgotten(memory_id, runtime))

    async def aforget_memory(memory_id: MemoryId, runtime: ToolRuntime[Any, Any]) -> str:
        return await arun(forgotten(memory_id, runtime))

    return [
        StructuredTool.from_function(recall_memory, arecall_memory),
        StructuredTool.from_function(save_memory, asave_memory),
        StructuredTool.from_function(forget_memory, aforget_memory),
    ]


def _across(scope: Scope) -> Scope:
    """All threads of the user, where one is named."""
    if scope.user_id is None:
        return scope
    return Scope(tenant_id=scope.tenant_id, user_id=scope.user_id)


def _fact_line(fact: Fact) -> str:
    ids = (memory_id_of(source.thread_id) for source in fact.sources)
    memory_id = next((each for each in ids if each is not None), None)
    return remembered(at=fact.recorded_at, by=fact.authority, text=fact.text, memory_id=memory_id)


def _line(memory: Memory) -> str:
    memory_id = memory_id_of(memory.thread_id)
    by = "memory" if memory_id is not None else memory.role
    return remembered(at=memory.at, by=by, text=memory.text, memory_id=memory_id)
