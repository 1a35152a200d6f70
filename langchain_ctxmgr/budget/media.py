"""What a picture, a recording or a file costs, from the block that carries it.

Sizes are read from the first bytes of a PNG, JPEG, GIF or WebP; the picture itself is
never decoded and nothing is fetched.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

IMAGE_BASE_TOKENS = 85
"""A picture at low detail, or of unknown size. Source: OpenAI's vision guide."""
IMAGE_TILE_TOKENS = 170
"""Each 512-pixel tile at high detail. Source: the same."""
_LONG_SIDE, _SHORT_SIDE, _TILE = 2_048, 768, 512

OPAQUE_CHARS_PER_TOKEN = 4
"""Encrypted reasoning and signatures: base64 of text, so a fourth is on the high side."""
_AUDIO_BYTES_PER_TOKEN = 400
"""Ten tokens a second (OpenAI) of speech at 4 kB a second, the thinnest in common use."""
_PDF_PAGE_TOKENS = 3_000
"""Text and picture of a dense page. Source: Anthropic's PDF guide (1,500 to 3,000 of text)."""
_PDF_BYTES_PER_TOKEN = 16
"""A PDF whose page list is compressed: fonts and pictures take most of its bytes."""

IMAGE_TYPES = frozenset({"image", "image_url", "input_image"})
AUDIO_TYPES = frozenset({"audio", "input_audio"})
FILE_TYPES = frozenset({"file", "document", "input_file", "video", "media", "text-plain"})

_DESCRIPTIONS = ("description", "caption", "alt", "alt_text")
_DATA_URL = re.compile(r"data:([^;,]*)[^,]{0,200},", re.IGNORECASE)
_PDF_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_BASE64_ALPHABET = str.maketrans("-_", "+/")


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


def tile_tokens(size: Size | None, *, detail: str = "auto") -> int:
    """What OpenAI charges for a picture: 85, plus 170 for each tile at high detail.

    The picture is scaled to fit 2,048 by 2,048, then to a shortest side of at most 768, and
    laid out in tiles of 512. `detail="low"` and an unknown size cost the base alone.

    Source: OpenAI's vision guide, "Calculating costs".
    """
    if detail == "low" or size is None or size.width <= 0 or size.height <= 0:
        return IMAGE_BASE_TOKENS
    fit = min(1.0, _LONG_SIDE / max(size))
    fit *= min(1.0, _SHORT_SIDE / (min(size) * fit))
    tiles = math.prod(max(1, math.ceil(round(side * fit) / _TILE)) for side in size)
    return IMAGE_BASE_TOKENS + IMAGE_TILE_TOKENS * tiles


def image_tokens(block: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """What an image block costs; a description standing in for the picture counts as text."""
    described = sum(count(text) for key in _DESCRIPTIONS if isinstance(text := block.get(key), str))
    source = _source(block)
    if source is None and described:
        return described
    detail = _detail(block)
    return described + tile_tokens(_stated_size(block) or _size_of(source), detail=detail)


def audio_tokens(block: Mapping[str, Any]) -> int:
    """What a recording costs, from its length in bytes; the image base where that is unknown."""
    source = _source(block)
    length = _Content(source).length if source is not None else 0
    return IMAGE_BASE_TOKENS + math.ceil(length / _AUDIO_BYTES_PER_TOKEN)


def file_tokens(block: Mapping[str, Any], count: Callable[[str], int]) -> int:
    """What a file costs: its text, else a PDF by its pages, else by its length in bytes."""
    described = sum(
        count(text)
        for key in ("text", "title", "context", "filename", "name")
        if isinstance(text := block.get(key), str)
    )
    source = _source(block)
    if source is None:
        return described or IMAGE_BASE_TOKENS
    inner = block.get("source")
    if isinstance(source, str) and _is_plain_text(cast("object", inner)):
        return described + count(source)
    content = _Content(source)
    start = content.read(0, 5)
    if start == b"%PDF-":
        pages = len(_PDF_PAGE.findall(content.read(0, content.length)))
        cost = pages * _PDF_PAGE_TOKENS or math.ceil(content.length / _PDF_BYTES_PER_TOKEN)
        return described + IMAGE_BASE_TOKENS + cost
    mime = _mime_type(block, source)
    if mime.startswith("text/") or mime in {"application/json", "application/xml"}:
        return described + count(content.read(0, content.length).decode("utf-8", "replace"))
    return described + IMAGE_BASE_TOKENS + math.ceil(content.length / OPAQUE_CHARS_PER_TOKEN)


def opaque_tokens(value: str | bytes) -> int:
    """What encrypted or signed data costs, from its length."""
    return math.ceil(len(value) / OPAQUE_CHARS_PER_TOKEN)


def _is_plain_text(source: object) -> bool:
    return isinstance(source, Mapping) and cast("Mapping[str, Any]", source).get("type") == "text"


def _source(block: Mapping[str, Any]) -> str | bytes | None:
    """The data or address a block carries, in the spellings of LangChain and the providers."""
    for key in ("base64", "data", "image_url", "url", "file_data", "input_audio", "file", "source"):
        value = block.get(key)
        if isinstance(value, Mapping):
            value = _source(cast("Mapping[str, Any]", value))
        if isinstance(value, (str, bytes)) and value:
            return value
    value = block.get("file_id")
    return value if isinstance(value, str) and value else None


def _mime_type(block: Mapping[str, Any], source: str | bytes) -> str:
    for holder in (block, block.get("source"), block.get("file")):
        if isinstance(holder, Mapping):
            for key in ("mime_type", "media_type"):
                value = cast("Mapping[str, Any]", holder).get(key)
                if isinstance(value, str):
                    return value.lower()
    if isinstance(source, str) and (match := _DATA_URL.match(source)):
        return match[1].lower()
    return ""


def _detail(block: Mapping[str, Any]) -> str:
    for holder in (block, block.get("image_url"), block.get("extras")):
        if isinstance(holder, Mapping):
            value = cast("Mapping[str, Any]", holder).get("detail")
            if isinstance(value, str):
                return value
    return "auto"


def _stated_size(block: Mapping[str, Any]) -> Size | None:
    width, height = block.get("width"), block.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return Size(width, height)
    return None


def _size_of(source: str | bytes | None) -> Size | None:
    if source is None:
        return None
    try:
        return picture_size(_Content(source))
    except (struct.error, IndexError):
        return None


class _Content:
    """Bytes at any offset of a base64 text (or bytes), without decoding the rest of it."""

    def __init__(self, source: str | bytes) -> None:
        self._raw = source if isinstance(source, bytes) else None
        self._text, self._start = "", 0
        self.length = len(source)
        if isinstance(source, str):
            match = _DATA_URL.match(source)
            self._text = source
            self._start = match.end() if match else 0
            if not match and "://" in source[:16]:
                self._start = len(source)
            padding = source.count("=", max(self._start, len(source) - 2))
            self.length = (len(source) - self._start) * 3 // 4 - padding

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; none where the text is not base64."""
        if self._raw is not None:
            return self._raw[offset : offset + length]
        first = self._start + offset // 3 * 4
        last = self._start + math.ceil((offset + length) / 3) * 4
        quartets = self._text[first:last].translate(_BASE64_ALPHABET)
        try:
            found = b64decode(quartets + "=" * (-len(quartets) % 4))
        except (binascii.Error, ValueError):
            return b""
        return found[offset % 3 : offset % 3 + length]


def picture_size(content: _Content) -> Size | None:
    """The size that a PNG, GIF, WebP or JPEG states in its header, None for anything else."""
    head = content.read(0, 32)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Size(*struct.unpack(">II", head[16:24]))
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Size(*struct.unpack("<HH", head[6:10]))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp_size(head)
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(content)
    return None


def _webp_size(head: bytes) -> Size | None:
    kind = head[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return Size(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return Size(width, height)
    return None


_JPEG_SEGMENTS = 256
"""Segments looked at before a JPEG's size counts as unknown: colour profiles take dozens."""
_JPEG_MARK = 0xFF
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start of a frame, which states the size; the three are tables and an extension."""


def _jpeg_size(content: _Content) -> Size | None:
    offset = 2
    for _ in range(_JPEG_SEGMENTS):
        mark, code, length = struct.unpack(">BBH", content.read(offset, 4))
        if mark != _JPEG_MARK:
            return None
        if code == _JPEG_MARK:  # a fill byte
            offset += 1
            continue
        if code in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", content.read(offset + 5, 4))
            return Size(width, height)
        offset += 2 + length
    return None
