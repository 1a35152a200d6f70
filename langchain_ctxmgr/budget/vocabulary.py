"""tiktoken's vocabularies: which model uses which, whether it is on this machine.

tiktoken fetches a missing vocabulary in the middle of a count, without a time limit. Here a
vocabulary is used when its file is in tiktoken's cache and whole, and fetched on request
only (`download_vocabulary`).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tiktoken

_SOURCE = "https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
_DIGESTS = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
"""SHA-256 of each vocabulary's file. Source: tiktoken_ext/openai_public.py."""

DEFAULT_ENCODING = "o200k_base"
"""The nearest public vocabulary to a tokenizer that is not public."""
_DOWNLOAD_SECONDS = 60

_PREFIXES = re.compile(r"^(?:(?:azure_openai|openai|azure|openrouter)[:/])+|^ft:")
_O200K = re.compile(r"gpt-?(?:4o|4\.\d|41|5|oss)|chatgpt-4o|o[134](?:-|$)|codex-")
_CL100K = re.compile(r"gpt-?(?:4|3\.5|35)|text-embedding-(?:3|ada)")


class ModelEncoding(NamedTuple):
    """The vocabulary to count a model's tokens with."""

    name: str
    is_own: bool
    """Whether it is the model's own; otherwise the nearest there is."""


_registered: dict[str, ModelEncoding] = {}


def register_encoding(model: str, encoding: str) -> None:
    """Let `encoding` be known as the vocabulary of `model`."""
    _registered[model.lower()] = ModelEncoding(encoding, is_own=True)


def encoding_for(model: str | None) -> ModelEncoding:
    """The vocabulary of `model`, or the nearest one for a model that has another."""
    if model is not None and model.lower() in _registered:
        return _registered[model.lower()]
    bare = _PREFIXES.sub("", _PREFIXES.sub("", (model or "").strip().lower()))
    if _O200K.match(bare):
        return ModelEncoding("o200k_base", is_own=True)
    if _CL100K.match(bare):
        return ModelEncoding("cl100k_base", is_own=True)
    return ModelEncoding(DEFAULT_ENCODING, is_own=False)


def vocabulary_path(name: str) -> Path | None:
    """Where tiktoken keeps the vocabulary `name`; None where caching is turned off.

    Raises:
        ValueError: If `name` is not a known vocabulary.
    """
    if name not in _DIGESTS:
        raise ValueError(f"name must be one of {', '.join(_DIGESTS)}, got {name!r}")
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            folder = os.environ[variable]
            break
    else:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:
        return None
    url = _SOURCE.format(name=name)
    return Path(folder) / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()


def has_vocabulary(name: str) -> bool:
    """Whether the vocabulary `name` can be loaded without a network."""
    path = vocabulary_path(name)
    if path is None:
        return False
    try:
        found = path.stat()
    except OSError:
        return False
    return _is_whole(path, name, found.st_size, found.st_mtime_ns)


def load_vocabulary(name: str) -> tiktoken.Encoding:
    """The vocabulary `name`, from this machine.

    Raises:
        FileNotFoundError: If its file is not in tiktoken's cache, or is damaged.
    """
    if not has_vocabulary(name):
        raise FileNotFoundError(f"vocabulary {name} is not at {vocabulary_path(name)}")
    import tiktoken

    return tiktoken.get_encoding(name)


def download_vocabulary(name: str) -> Path:
    """Fetch the vocabulary `name` into tiktoken's cache, and return its path.

    Counters made from then on are exact.

    Raises:
        ValueError: If `name` is not a known vocabulary, tiktoken's cache is turned off, or
            what was fetched is not the vocabulary.
        OSError: If it cannot be fetched or written.
    """
    path = vocabulary_path(name)
    if path is None:
        raise ValueError("TIKTOKEN_CACHE_DIR must name a folder, got ''")
    url = _SOURCE.format(name=name)
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_SECONDS) as reply:  # noqa: S310 - https, ours
        found: bytes = reply.read()
    if hashlib.sha256(found).hexdigest() != _DIGESTS[name]:
        raise ValueError(f"{url} answered {len(found)} bytes that are not the vocabulary")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_bytes(found)
    partial.replace(path)
    return path


@lru_cache(maxsize=8)
def _is_whole(path: Path, name: str, size: int, modified_ns: int) -> bool:
    """Whether the file is what it should be: tiktoken deletes and refetches a damaged one."""
    del size, modified_ns
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == _DIGESTS[name]
    except OSError:
        return False
