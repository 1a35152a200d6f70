"""The folder around a Qdrant Edge shard: `index.json`, and which shard it names.

`index.json` is only ever replaced in one step, so whatever breaks off, the folder holds
the index as it was before or after. Shards that `index.json` does not name are left-overs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from langchain_ctxmgr.errors import DamagedIndexError, StorageError
from langchain_ctxmgr.storage.edge_owner import LOCK_FILE
from langchain_ctxmgr.storage.vectors import DenseVectors

SCHEMA = 2
"""Version of what a point holds; another one is rebuilt from the log."""
REBUILD = "the log holds everything: rebuild the vectors with `ctxmgr reindex`"

_INDEX_FILE = "index.json"
_SHARD_PREFIX = "shard-"
_TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderIndex:
    """What `index.json` says."""

    uuid: str
    shard: str
    """Name of the folder with the current shard."""
    dense: DenseVectors | None
    is_erasing: bool = False
    """Whether deleted points may still stand in the shard's files."""

    @property
    def index_id(self) -> str:
        """Identity of the content: it changes when the vectors are rebuilt."""
        return f"edge-{SCHEMA}-{self.uuid}"


def new_shard_name() -> str:
    """A name no shard had before."""
    return f"{_SHARD_PREFIX}{uuid.uuid4().hex}"


def read(folder: Path) -> FolderIndex | None:
    """What `index.json` says, None where there is none.

    Raises:
        StorageError: If it cannot be understood.
    """
    try:
        text = (folder / _INDEX_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedIndexError(
            f"{folder / _INDEX_FILE} cannot be read ({error}); {REBUILD}"
        ) from error
    try:
        fields = cast("dict[str, Any]", json.loads(text))
        if fields["schema"] != SCHEMA:
            raise StorageError(
                f"the vectors in {folder} have schema {fields['schema']}, this version "
                f"reads {SCHEMA}; {REBUILD}"
            )
        dense = cast("dict[str, Any] | None", fields["dense"])
        return FolderIndex(
            uuid=str(fields["uuid"]),
            shard=str(fields["shard"]),
            dense=DenseVectors(name=dense["name"], size=dense["size"]) if dense else None,
            is_erasing=bool(fields["is_erasing"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedIndexError(
            f"{folder / _INDEX_FILE} is damaged ({error!r}); {REBUILD}"
        ) from error


def replace(folder: Path, index: FolderIndex) -> None:
    """Make `index` what `index.json` says."""
    _written(folder, index).replace(folder / _INDEX_FILE)


def _written(folder: Path, index: FolderIndex) -> Path:
    dense = {"name": index.dense.name, "size": index.dense.size} if index.dense else None
    fields = {
        "schema": SCHEMA,
        "uuid": index.uuid,
        "shard": index.shard,
        "dense": dense,
        "is_erasing": index.is_erasing,
    }
    temporary = folder / f"{_INDEX_FILE}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"
    with temporary.open("x", encoding="utf-8") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def remove_shard(folder: Path, name: str) -> None:
    """Remove the shard `name`, of which nothing may be open."""
    shutil.rmtree(folder / name, ignore_errors=True)


def tidy(folder: Path, index: FolderIndex) -> None:
    """Remove what broken-off work left behind; only for the owner of `index`'s shard."""
    for entry in folder.iterdir():
        if entry.name.startswith(_SHARD_PREFIX) and entry.name != index.shard:
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith(_INDEX_FILE) and entry.name.endswith(_TEMPORARY_SUFFIX):
            entry.unlink(missing_ok=True)


def erase(folder: Path) -> None:
    """Remove `index.json` and every shard; other files are not ours and stay."""
    (folder / _INDEX_FILE).unlink(missing_ok=True)
    if folder.is_dir():
        for entry in folder.glob(f"{_SHARD_PREFIX}*"):
            shutil.rmtree(entry)


def remove(folder: Path) -> None:
    """Remove the folder and all that is in it, the owner's lock last; only for its owner."""
    for entry in [*folder.iterdir()]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()
    # Windows keeps a file that is open, and another process may begin anew right here.
    with contextlib.suppress(OSError):
        (folder / LOCK_FILE).unlink()
        folder.rmdir()


def require_free(folder: Path, needed_bytes: int) -> None:
    """Return when the disk has room.

    Raises:
        StorageError: If fewer than `needed_bytes` are free.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise StorageError(
            f"the disk of {folder} is full: {free_bytes // 2**20} MiB free, vectors need "
            f"{needed_bytes // 2**20} MiB; free some space, the index then catches up by itself"
        )
