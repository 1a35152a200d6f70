"""The folder that `ContextManager.open` keeps everything in.

`log.sqlite3` is the message log. `vectors/` has a folder for each embedding model and one
for keywords alone, so another model starts an index of its own and the old one stays until
it is removed.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage import edge_folder
from langchain_ctxmgr.storage.edge import EdgeVectorStore
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.storage.vectors import DenseVectors

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
        """Close both stores and remove a temporary folder, whichever of them fails."""
        with ExitStack() as stack:
            if self.temporary is not None:
                stack.callback(self.temporary.cleanup)
            stack.callback(self.log.close)
            stack.callback(self.vectors.close)

    def drop_other_vectors(self) -> None:
        """Remove the indexes of other embedding models: they may hold what was erased.

        They are rebuilt from the log when such a model is used again.

        Raises:
            ShardInUseError: If another process owns one of them.
        """
        own = self.vectors.path
        for path in own.parent.glob("*"):
            if path.is_dir() and path != own:
                with closing(EdgeVectorStore(path)) as other:
                    other.remove()

    def have_followed(self, tenant_id: str) -> bool:
        """Whether every index in the folder has carried out every erasure of a tenant's."""
        newest = max((erasure.id for erasure in self.log.erasures(tenant_id, 0)), default=0)
        indexes = [edge_folder.read(path) for path in self.vectors.path.parent.glob("*")]
        return all(
            self.log.marks(tenant_id, index.index_id).erasure_id >= newest
            for index in indexes
            if index is not None
        )


def open_folder(path: str | Path | None, embedder: Embedder | None) -> Folder:
    """The stores in `path`; in a temporary folder when it is None.

    Raises:
        ValueError: If `path` is not a folder's name.
    """
    if path is not None and not (isinstance(path, str | Path) and str(path)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"path must name a folder or be None, got {path!r}")
    temporary = tempfile.TemporaryDirectory(prefix="ctxmgr-") if path is None else None
    folder = Path(temporary.name if temporary is not None else str(path))
    return Folder(log=log_in(folder), vectors=_vectors_in(folder, embedder), temporary=temporary)


def _vectors_in(folder: Path, embedder: Embedder | None) -> EdgeVectorStore:
    if embedder is None:
        return EdgeVectorStore(folder / VECTORS_FOLDER / _KEYWORDS)
    path = folder / VECTORS_FOLDER / sha256(embedder.name.encode()).hexdigest()[:16]

    def dense() -> DenseVectors:
        """As the index was made; only a new one asks the model."""
        index = edge_folder.read(path)
        return embedder.dense() if index is None or index.dense is None else index.dense

    return EdgeVectorStore(path, dense=dense)


def log_in(folder: Path) -> SqliteLog:
    """The message log of a folder."""
    return SqliteLog(folder / LOG_FILE)
