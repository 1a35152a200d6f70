"""Messages as bytes, and the hashes that hold the log together.

A message is stored as JSON in UTF-8: its class, the fields that differ from their
defaults, and whatever extra attributes it carries, so a new LangChain release that adds
a field does not change what older messages look like. What JSON lacks is tagged: tuples,
bytes, sets, dates, decimals, big integers, dictionaries with other keys than text.
Lone surrogates are kept (`surrogatepass`), which is why text is not ASCII-escaped: JSON
would join two lone halves into one character.

Reading never imports a class by name. A message of a class of the host's own comes back
as the nearest LangChain class, its own fields as extra attributes and the class named in
`message_class`. A value that cannot be stored (an open file, an array, what is nested over
100 deep) is replaced by a dictionary with its `type` and what can be told of it: `data` for
pydantic models and dataclasses, else up to 1,000 characters of `repr`.
"""

from __future__ import annotations

import base64
import json
import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from pydantic import BaseModel

GENESIS: Final = bytes(32)
"""The chain before a thread's first record."""

_CLASSES: Final[dict[str, type[BaseMessage]]] = {
    known.__name__: known
    for known in (
        AIMessage,
        AIMessageChunk,
        BaseMessage,
        BaseMessageChunk,
        ChatMessage,
        ChatMessageChunk,
        FunctionMessage,
        FunctionMessageChunk,
        HumanMessage,
        HumanMessageChunk,
        SystemMessage,
        SystemMessageChunk,
        ToolMessage,
        ToolMessageChunk,
    )
}
_TAG: Final = "$"
_CLASS_NOTE: Final = "message_class"
_PLAIN_INT: Final = 1 << 64
"""Integers from here on are tagged: Python refuses to print or read very long decimals."""
_MAX_DEPTH: Final = 100
"""Deeper values are described, not stored: a cycle must end, and the stack is the host's."""
_MAX_REPR_CHARS: Final = 1_000
_ADDRESS: Final = re.compile(r" at 0x[0-9A-Fa-f]+")
_AS_IS: Final = frozenset({str, bool, float, type(None)})

_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


def encode(message: BaseMessage) -> bytes:
    """The stored form of `message`: the same for equal messages whose keys are in one order.

    Raises:
        ValueError: For a `RemoveMessage`: the log forgets nothing on a host's command.
    """
    if isinstance(message, RemoveMessage):
        raise ValueError(f"message must have content to record, got {message!r}")
    return _dumps(_pack_message(message, 0)).encode("utf-8", "surrogatepass")


def decode(payload: bytes) -> BaseMessage:
    """The message whose stored form is `payload`.

    Raises:
        ValueError: If `payload` is not what `encode` writes.
    """
    text = payload.decode("utf-8", "surrogatepass")
    state = (_TAGGED if f'"{_TAG}"' in text else _PLAIN)(text)
    if not isinstance(state, dict) or "class" not in state:
        raise ValueError(f"payload must be a stored message, got {text[:60]!r}")
    return _build_message(cast("dict[str, Any]", state))


def digest(payload: bytes) -> bytes:
    """SHA-256 of a stored message."""
    return sha256(payload).digest()


def row_digest(row: Iterable[object], terms: bytes) -> bytes:
    """SHA-256 of a record's own fields (text, integers, floats, None) in a fixed order."""
    return sha256(ascii(tuple(row)).encode("ascii") + terms).digest()


def link(previous: bytes, content_digest: bytes, fields_digest: bytes) -> bytes:
    """The next link of a thread's chain: SHA-256 over the one before and a record's digests.

    Of digests alone, so that the chain holds where a record's text and fields are erased.
    """
    return sha256(previous + content_digest + fields_digest).digest()


def role_of(message: BaseMessage) -> str:
    """LangChain's message type, such as human, ai or tool; a chunk has its message's."""
    role = message.type
    if role.endswith("MessageChunk"):
        role = role.removesuffix("MessageChunk").lower()
    return role.encode("utf-8", "replace").decode()


# Packing: values to what JSON holds.


def _pack_message(message: BaseMessage, depth: int) -> dict[str, Any]:
    cls = type(message)
    known, extra = _CLASSES.get(cls.__name__), message.__pydantic_extra__ or {}
    if known is not cls:
        known = next(parent for parent in cls.__mro__ if parent in _FIELDS)
        own = {
            name: value
            for name, value in message.__dict__.items()
            if name in cls.model_fields and name not in _FIELDS[known]
        }
        extra = {**own, **extra, _CLASS_NOTE: f"{cls.__module__}.{cls.__qualname__}"}
    packed: dict[str, Any] = {}
    for name, default in _FIELDS[known].items():
        value = message.__dict__.get(name, default)
        if value is not default and not (type(value) is type(default) and value == default):
            packed[name] = value if type(value) in _AS_IS else _pack(value, depth)
    state: dict[str, Any] = {"class": known.__name__, "fields": packed}
    if extra:
        state["extra"] = {name: _pack(value, depth) for name, value in extra.items()}
    return state


def _pack(value: Any, depth: int) -> Any:
    kind = cast("type[Any]", type(value))
    if kind in _AS_IS:
        return value
    if kind is int:
        return value if -_PLAIN_INT < value < _PLAIN_INT else _tagged("int", hex(value))
    if depth >= _MAX_DEPTH:
        return _described(value)
    if kind is list:
        return [_pack(item, depth + 1) for item in value]
    if kind is dict:
        return _pack_dict(value, depth + 1)
    return _pack_rare(value, depth + 1)


def _pack_dict(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if _TAG not in value and all(isinstance(key, str) for key in value):
        return {str.__str__(key): _pack(item, depth) for key, item in value.items()}
    pairs = [[_pack(key, depth), _pack(item, depth)] for key, item in value.items()]
    return _tagged("dict", pairs)


def _pack_rare(value: Any, depth: int) -> Any:  # noqa: PLR0911 - one line a kind
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return _pack_dict(cast("Mapping[Any, Any]", value), depth)
    if isinstance(value, list):
        return [_pack(item, depth) for item in cast("list[Any]", value)]
    for kind, name, pack in _PACKERS:
        if isinstance(value, kind):
            return _tagged(name, pack(value, depth))
    if isinstance(value, numbers.Integral):
        return _pack(int(value), depth)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    return _described(value, depth)


def _pack_set(value: Iterable[Any], depth: int) -> list[Any]:
    """Items in the order of their JSON: a set has none of its own that lasts."""
    return sorted((_pack(item, depth) for item in value), key=_dumps)


def _pack_items(value: Iterable[Any], depth: int) -> list[Any]:
    return [_pack(item, depth) for item in value]


def _pack_document(value: Document, depth: int) -> dict[str, Any]:
    return {
        "page_content": value.page_content,
        "metadata": _pack(value.metadata, depth),
        "id": value.id,
    }


_PACKERS: Final[tuple[tuple[Any, str, Callable[[Any, int], Any]], ...]] = (
    (tuple, "tuple", _pack_items),
    (bytes, "bytes", lambda value, _: base64.b64encode(value).decode("ascii")),
    (bytearray, "bytearray", lambda value, _: base64.b64encode(value).decode("ascii")),
    (memoryview, "bytes", lambda value, _: base64.b64encode(value).decode("ascii")),
    (datetime, "datetime", lambda value, _: value.isoformat()),
    (date, "date", lambda value, _: value.isoformat()),
    (time, "time", lambda value, _: value.isoformat()),
    (timedelta, "timedelta", lambda value, _: [value.days, value.seconds, value.microseconds]),
    (Decimal, "decimal", lambda value, _: str(value)),
    (UUID, "uuid", lambda value, _: value.hex),
    (frozenset, "frozenset", _pack_set),
    (set, "set", _pack_set),
    (complex, "complex", lambda value, _: [value.real, value.imag]),
    (RemoveMessage, "removal", lambda value, _: value.id),
    (BaseMessage, "message", _pack_message),
    (Document, "document", _pack_document),
)


def _tagged(name: str, value: Any) -> dict[str, Any]:
    return {_TAG: name, "v": value}


def _described(value: Any, depth: int = _MAX_DEPTH) -> dict[str, Any]:
    cls = cast("type[Any]", type(value))
    description: dict[str, Any] = {"type": f"{cls.__module__}.{cls.__qualname__}"}
    if depth < _MAX_DEPTH and isinstance(value, BaseModel):
        description["data"] = _pack(dict(value), depth)
    elif depth < _MAX_DEPTH and is_dataclass(value):
        data = {field.name: getattr(value, field.name, None) for field in fields(value)}
        description["data"] = _pack(data, depth)
    else:
        description["repr"] = _shown(value)
    return description


def _shown(value: object) -> str:
    """`repr` without memory addresses, so that the same value gives the same bytes.

    The boundary for foreign `repr`s: one that raises is left out.
    """
    try:
        return _ADDRESS.sub("", repr(value))[:_MAX_REPR_CHARS]
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything
        return ""


# Building: what JSON held to values.


def _build_message(state: dict[str, Any]) -> BaseMessage:
    cls = _CLASSES.get(state["class"], BaseMessage)
    stored: dict[str, Any] = state["fields"]
    extra: dict[str, Any] = state.get("extra", {})
    known = _FIELDS[cls]
    if not stored.keys() <= known.keys():  # written by another LangChain release
        extra = {name: value for name, value in stored.items() if name not in known} | extra
    values: dict[str, Any] = {}
    for name, default in known.items():
        value = stored.get(name, default)
        if value is default and isinstance(default, (dict, list)):
            value = cast("dict[str, Any] | list[Any]", default).copy()
        if value is not _REQUIRED:
            values[name] = value
    if state["class"] not in _CLASSES:
        values.setdefault("type", state["class"])
        extra = {**extra, _CLASS_NOTE: state["class"]}
    message = cls.__new__(cls)
    message.__setstate__(
        {
            "__dict__": values,
            "__pydantic_extra__": extra,
            "__pydantic_fields_set__": {*stored.keys() & known.keys(), "type"},
            "__pydantic_private__": None,
        }
    )
    return message


_BUILDERS: Final[dict[str, Callable[[Any], Any]]] = {
    "dict": lambda pairs: {key: value for key, value in pairs},  # noqa: C416 - keeps pairs lists
    "int": lambda text: int(text, 16),
    "tuple": tuple,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "decimal": Decimal,
    "uuid": UUID,
    "frozenset": frozenset,
    "set": set,
    "complex": lambda parts: complex(*parts),
    "removal": lambda name: RemoveMessage(id=name),
    "message": _build_message,
    "document": lambda state: Document(**state),
}


def _build(state: dict[str, Any]) -> Any:
    name = state.get(_TAG)
    return state if name is None else _BUILDERS[name](state["v"])


_PLAIN = json.JSONDecoder().decode
_TAGGED = json.JSONDecoder(object_hook=_build).decode
_REQUIRED: Final = object()
_FIELDS: Final[dict[type[BaseMessage], dict[str, Any]]] = {
    cls: {
        name: _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
    }
    for cls in _CLASSES.values()
}
"""Each class's fields in order, with their defaults."""
