"""Conversations from files: chat logs as other tools write them.

`read_conversation` looks at what a file holds, not at its name, and returns LangChain
messages with their times. It reads OpenAI's chat format, serialised LangChain messages,
ChatGPT's data export and LoCoMo files; each as JSON or as JSON Lines. Nothing in a file
decides which class is loaded: names are looked up in a fixed list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from langchain_ctxmgr.importers.chatgpt import chatgpt
from langchain_ctxmgr.importers.documents import (
    FORMATS,
    Candidate,
    Conversation,
    Item,
    describe,
    is_object,
    parse,
)
from langchain_ctxmgr.importers.locomo import locomo
from langchain_ctxmgr.importers.messages import from_messages, message_list

__all__ = ["Conversation", "read_conversation"]

_LISTED = 20
"""How many conversations an error lists before it stops."""


def read_conversation(path: str | Path, *, conversation: str | None = None) -> Conversation:
    """The conversation in a file, in order, with the time of each message.

    Args:
        path: A JSON or JSON Lines file in UTF-8.
        conversation: Which one, where the file holds several: its title, or its number
            counted from 1.

    Raises:
        ValueError: If the file holds no conversation, several and no choice was made, or
            something that cannot be read; the message names file, place and finding.
        OSError: If the file cannot be opened.
    """
    source = Path(path)
    candidates = _candidates(source, parse(source))
    chosen = _choose(source, candidates, conversation)
    try:
        found = chosen.load()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: the conversation cannot be read, {error!r}") from error
    if not found.messages:
        raise ValueError(f"{source}: the conversation has no messages")
    return found


def _candidates(source: Path, items: Sequence[Item]) -> list[Candidate]:
    if not items:
        raise ValueError(f"{source}: the file holds an empty list")
    if _holder(items[0].value) is None and isinstance(items[0].value, dict):
        return [Candidate(None, lambda: from_messages(items))]
    return [_candidate(item) for item in items]


def _candidate(item: Item) -> Candidate:
    kind = _holder(item.value)
    if kind is None:
        raise ValueError(f"{item.where}: {FORMATS}, found {describe(item.value)}")
    return kind(item)


def _holder(value: Any) -> Callable[[Item], Candidate] | None:
    """What reads `value` as a whole conversation; None for a message or anything else."""
    if isinstance(value, list):
        return message_list
    if not is_object(value):
        return None
    if "mapping" in value:
        return chatgpt
    if is_object(value.get("conversation")) or "speaker_a" in value:
        return locomo
    if isinstance(value.get("messages"), list):
        return message_list
    return None


def _choose(source: Path, candidates: list[Candidate], wanted: str | None) -> Candidate:
    if wanted is None and len(candidates) == 1:
        return candidates[0]
    if wanted is not None:
        named = [c for c in candidates if (c.title or "").casefold() == wanted.casefold()]
        if len(named) == 1:
            return named[0]
        if not named and wanted.isdecimal() and 1 <= int(wanted) <= len(candidates):
            return candidates[int(wanted) - 1]
    listed = "".join(
        f"\n  {number}: {candidate.title or '(no title)'}"
        for number, candidate in enumerate(candidates[:_LISTED], 1)
    )
    more = f"\n  … and {len(candidates) - _LISTED} more" if len(candidates) > _LISTED else ""
    asked = "" if wanted is None else f", and {wanted!r} names none or several of them"
    raise ValueError(
        f"{source} holds {len(candidates)} conversation(s){asked}; "
        f"choose one by number or title:{listed}{more}"
    )
