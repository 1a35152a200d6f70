"""Where the tests find vocabularies and models: inside installed packages, never a network."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.postgres import OwnDatabase


def _inside(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)


os.environ["HF_HUB_OFFLINE"] = "1"
_vocabularies = _inside("llama_index.core", "_static", "tiktoken_cache")
if _vocabularies is not None:
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(_vocabularies))

settings.register_profile("short", max_examples=100, deadline=None)
settings.register_profile(
    "long", max_examples=int(os.environ.get("CTXMGR_EXAMPLES", "20000")), deadline=None
)
settings.load_profile("short")


@pytest.fixture(scope="session")
def postgres() -> Iterator[OwnDatabase]:
    """A PostgreSQL database of this run's own, with the log's tables."""
    from langchain_ctxmgr.storage.postgres import PostgresLog
    from tests.postgres import own_database

    with own_database() as database:
        with PostgresLog(database.url()):
            database.grant()
        yield database
