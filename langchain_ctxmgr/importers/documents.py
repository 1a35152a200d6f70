"""What every format shares: a parsed file, a place to name in errors, times."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, cast

from langchain_core.messages import BaseMessage

JsonObject = dict[str, Any]

_MILLISECONDS = 100_000_000_000
"""Epoch numbers from here on are milliseconds: as seconds they lie after the year 5100."""

FORMATS = (
    "expected OpenAI chat messages, serialised LangChain messages, "
    "a ChatGPT export or a LoCoMo file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One conversation out of a file."""

    messages: list[BaseMessage]
    at: list[datetime | None]
    """When each message was said: aware, None where the file does not say."""
    title: str | None = None


class Item(NamedTuple):
    """A JSON value and where it stands, for errors."""

    where: str
    value: Any


class Candidate(NamedTuple):
    """A conversation in a file, read only when it is the one that is wanted."""

    title: str | None
    load: Callable[[], Conversation]


def parse(source: Path) -> list[Item]:
    """The values of a JSON list or of JSON Lines; a single other value stands alone.

    Raises:
        ValueError: If the file is empty, not UTF-8 or not JSON.
    """
    text = _decode(source)
    if not text.strip():
        raise ValueError(f"{source}: the file is empty")
    try:
        whole = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{source}: the JSON is nested too deeply") from error
    except ValueError as error:
        return _parse_lines(source, text, error)
    if isinstance(whole, list):
        items = cast("list[Any]", whole)
        return [Item(f"{source}, item {n}", item) for n, item in enumerate(items, 1)]
    return [Item(str(source), whole)]


def _decode(source: Path) -> str:
    raw = source.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x}"
        raise ValueError(f"{source}, line {line}: not UTF-8, found {found}") from error


def _parse_lines(source: Path, text: str, whole_error: ValueError) -> list[Item]:
    """JSON Lines, or the error that the file gave as one JSON document."""
    items: list[Item] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            items.append(Item(where, json.loads(line)))
        except RecursionError as error:
            raise ValueError(f"{where}: the JSON is nested too deeply") from error
        except ValueError as error:
            if not items:
                raise _not_json(source, whole_error) from error
            raise ValueError(f"{where}: not JSON, {_excerpt(line)}") from error
    return items


def _not_json(source: Path, error: ValueError) -> ValueError:
    if isinstance(error, json.JSONDecodeError):
        found = _excerpt(error.doc.split("\n")[error.lineno - 1])
        if not error.doc[error.pos :].strip():
            found = "found the end of the file"
        reason = error.msg[:1].lower() + error.msg[1:]
        return ValueError(f"{source}, line {error.lineno}: not JSON, {reason}: {found}")
    return ValueError(f"{source}: not JSON, {error}")


def _excerpt(line: str) -> str:
    shown = line.strip()
    limit = 60
    return f"found {shown[:limit] + '…' if len(shown) > limit else shown!r}"


def is_object(value: Any) -> TypeGuard[JsonObject]:
    """Whether `value` is a JSON object."""
    return isinstance(value, dict)


def member(value: Any, *keys: str) -> Any:
    """What stands under `keys`, one object inside the other; None where a step is missing."""
    for key in keys:
        value = value.get(key) if is_object(value) else None
    return value


def text_or_none(value: Any) -> str | None:
    """`value` where it is text with something in it."""
    return value if isinstance(value, str) and value else None


def first_lines(error: ValueError) -> str:
    """The start of a long error on one line."""
    return ": ".join(line.strip() for line in str(error).splitlines()[:3])


def describe(value: Any) -> str:
    """What `value` is, for an error that says what was found."""
    if is_object(value):
        keys = ", ".join(list(value)[:6])
        return f"an object with {keys or 'no keys'}"
    if isinstance(value, list):
        return "a list"
    return f"{type(value).__name__} {_excerpt(str(value))[6:]}" if value is not None else "null"


def instant(where: str, value: Any) -> datetime:
    """An aware time from ISO text or an epoch number; text without a zone is UTC."""
    try:
        if isinstance(value, str):
            read = datetime.fromisoformat(value)
            return read if read.tzinfo else read.replace(tzinfo=UTC)
        seconds = float(value) / 1_000 if float(value) >= _MILLISECONDS else float(value)
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise ValueError(
            f"{where}: a time in ISO format or epoch seconds was expected, found {value!r}"
        ) from error
