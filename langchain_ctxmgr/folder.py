"""The folder that `ContextManager.open` keeps everything in.

`log.sqlite3` is the message log. `vectors/` has a folder for each embedding model and one
for keywords alone, so another model starts an index of its own and the old one stays until
it is removed.
"""

from __future__ import annotations

import tempfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.sqlite import SqliteLog

LOG_FILE = "log.sqlite3"
VECTORS_FOLDER = "vectors"
_KEYWORDS = "keywords"


class Folder(NamedTuple):
    """What a folder holds; nothing is read or written before first use."""

    log: SqliteLog
    vectors: EdgeVectorStore
    temporary: tempfile.TemporaryDirectory[str] | None
    """To remove at the end; None for a folder that was named."""

    def close(self) -> None:
        """Close both stores and remove a temporary folder."""
        self.vectors.close()
        self.log.close()
        if self.temporary is not None:
            self.temporary.cleanup()


def open_folder(path: str | Path | None, embedder: Embedder | None) -> Folder:
    """The stores in `path`; in a temporary folder when it is None.

    Raises:
        ValueError: If `path` is not a folder's name.
    """
    if path is not None and not (isinstance(path, str | Path) and str(path)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"path must name a folder or be None, got {path!r}")
    temporary = tempfile.TemporaryDirectory(prefix="ctxmgr-") if path is None else None
    folder = Path(temporary.name if temporary is not None else str(path))
    name, dense = _KEYWORDS, None
    if embedder is not None:
        name, dense = sha256(embedder.name.encode()).hexdigest()[:16], embedder.dense
    return Folder(
        log=log_in(folder),
        vectors=EdgeVectorStore(folder / VECTORS_FOLDER / name, dense=dense),
        temporary=temporary,
    )


def log_in(folder: Path) -> SqliteLog:
    """The message log of a folder."""
    return SqliteLog(folder / LOG_FILE)
