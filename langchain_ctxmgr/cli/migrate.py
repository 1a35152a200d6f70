"""What `ctxmgr migrate` does: the parts it opens, and closes again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from langchain_ctxmgr.folder import open_folder
from langchain_ctxmgr.memory.embeddings import embeddings_from
from langchain_ctxmgr.storage import edge_folder
from langchain_ctxmgr.storage.migration import Moved, Progress, migrate
from langchain_ctxmgr.storage.server import QdrantVectorStore


def move_vectors(
    data: Path,
    url: str,
    *,
    api_key: str | None,
    embeddings: str | None,
    is_back: bool,
    progress: Progress,
) -> Moved:
    """Copy the vectors of the folder `data` to the server at `url`; `is_back` the other way.

    Raises:
        ValueError: If `url` is none of a server, or the folder has no vectors to copy.
        StorageError: If one of the two cannot be used, or they differ afterwards.
    """
    with closing(open_folder(data, embeddings_from(embeddings))) as folder:
        own = folder.vectors
        if not is_back and edge_folder.read(own.path) is None:
            made_with = embeddings or "keywords alone"
            raise ValueError(
                f"{data} has no vectors of {made_with}; --embeddings names the model they are of"
            )
        with closing(QdrantVectorStore.from_url(url, api_key=api_key, dense=own.dense)) as server:
            source, target = (server, own) if is_back else (own, server)
            return migrate(folder.log, source, target, progress=progress)
