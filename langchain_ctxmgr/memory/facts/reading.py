"""What a recorded message states, and on whose authority."""

from __future__ import annotations

from typing import Any, Final, cast

from langchain_core.messages import ChatMessage

from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.memory.facts.extraction import statements
from langchain_ctxmgr.memory.facts.instructions import is_instruction
from langchain_ctxmgr.memory.facts.values import (
    MEMORY_ROLE,
    STATED,
    USER,
    Authority,
    Category,
    Statement,
)
from langchain_ctxmgr.prompt.layout import is_plain
from langchain_ctxmgr.records import LogRecord

_NOTED: Final = "noted"
"""How a memory without a subject of its own stands in a relation."""
RECALLING_TOOLS: Final = frozenset(
    ("recall_conversation", "read_message", "recall_memory", "save_memory", "forget_memory")
)
"""What they give back is recalled, and states nothing anew."""
AUTHORITIES: Final = {"human": Authority.USER, "tool": Authority.TOOL, "function": Authority.TOOL}


def stated_in(record: LogRecord) -> list[Statement]:
    """What `record` states; an assistant's own text states nothing: it may repeat what it read."""
    message = record.message
    if isinstance(message, ChatMessage):
        return _learned(record) if message.role == MEMORY_ROLE else []
    authority = AUTHORITIES.get(record.role)
    if authority is None or (authority is Authority.TOOL and message.name in RECALLING_TOOLS):
        return []
    speaker = record.speaker if authority is Authority.USER else None
    if speaker is not None and not is_plain(speaker):
        speaker = None  # what poses as a name is nobody's, and no subject of a fact
    return statements(message_text(message), at=record.at, speaker=speaker, authority=authority)


def _learned(record: LogRecord) -> list[Statement]:
    """What `learn` was told, as it was told, or read from its words."""
    text = message_text(record.message)
    given = cast("dict[str, Any]", record.message.additional_kwargs.get(STATED, {}))
    authority = Authority(given.get("authority", Authority.AGENT))
    category = given.get("category")
    if not given.get("is_fact", True):
        return []
    if given.get("subject"):
        found = [_stated(given, text, authority)]
    else:
        found = statements(text, at=record.at, authority=authority)
    if not found:
        noted = {"subject": USER, "relation": _NOTED, "object": text, "category": category}
        found = [_stated(given | noted, text, authority)]
    return found


def _stated(given: dict[str, Any], text: str, authority: Authority) -> Statement:
    is_flagged = authority is not Authority.HOST and is_instruction(text, authority)
    return Statement(
        subject=given["subject"],
        relation=given["relation"],
        object=given["object"],
        text=text,
        category=Category(given.get("category") or Category.OTHER),
        confidence=given.get("confidence", 1.0),
        authority=authority,
        topic=given["relation"] if given.get("is_single") else None,
        is_flagged=is_flagged,
    )
