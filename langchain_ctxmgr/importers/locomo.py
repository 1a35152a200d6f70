"""LoCoMo files: two people, numbered sessions, pictures as captions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from langchain_ctxmgr.importers.documents import (
    Candidate,
    Conversation,
    Item,
    JsonObject,
    describe,
    is_object,
    text_or_none,
)

_SESSION = re.compile(r"session_(\d+)$")


def locomo(item: Item) -> Candidate:
    """The conversation of one LoCoMo sample."""
    title = text_or_none(item.value.get("sample_id"))
    held = item.value.get("conversation")
    sessions = held if is_object(held) else item.value
    return Candidate(title, lambda: _from_locomo(item.where, sessions, title))


def _from_locomo(where: str, sessions: JsonObject, title: str | None) -> Conversation:
    speakers = {sessions.get("speaker_a"): HumanMessage, sessions.get("speaker_b"): AIMessage}
    messages: list[BaseMessage] = []
    at: list[datetime | None] = []
    for name in _locomo_sessions(sessions):
        when = sessions.get(f"{name}_date_time")
        instant = None if when is None else _locomo_time(f"{where}, {name}", when)
        for turn in sessions[name]:
            place = f"{where}, {name}"
            if not is_object(turn):
                raise ValueError(f"{place}: expected a turn, found {describe(turn)}")
            speaker = turn.get("speaker")
            if not isinstance(speaker, str) or speaker not in speakers:
                known = " and ".join(repr(each) for each in speakers)
                raise ValueError(f"{place}: speaker {speaker!r} is neither of {known}")
            text, caption = turn.get("text") or "", turn.get("blip_caption")
            content = f"{text} [{caption}]".strip() if caption else text
            messages.append(speakers[speaker](content, name=speaker, id=turn.get("dia_id")))
            at.append(instant)
    return Conversation(messages=messages, at=at, title=title)


def _locomo_sessions(sessions: JsonObject) -> Iterator[str]:
    numbered = [
        (int(found[1]), name)
        for name in sessions
        if (found := _SESSION.match(name)) and isinstance(sessions[name], list)
    ]
    return (name for _, name in sorted(numbered))


def _locomo_time(where: str, text: Any) -> datetime:
    try:
        return datetime.strptime(str(text), "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(
            f"{where}: a time such as '1:56 pm on 8 May, 2023' was expected, found {text!r}"
        ) from error
