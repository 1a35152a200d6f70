"""The servers a command is to use, and what `ctxmgr doctor` finds of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from langchain_ctxmgr.cli.checks import Check, State

_PATIENCE: Final = timedelta(seconds=3)


class Servers(NamedTuple):
    """Where log, vectors and cache are; None: on this machine, without a server."""

    log: str | None
    vectors: str | None
    cache: str | None


servers: Final[ContextVar[Servers]] = ContextVar("servers")
"""Those that the command line or the environment names."""


def examine_servers(named: Servers) -> Iterator[Check]:
    """Ask each server that is named for something small; nothing is written or made there."""
    from langchain_ctxmgr.cli.checks import State

    if named.log is not None:
        yield _asked("log server", named.log, _ask_log, State.BROKEN)
    if named.vectors is not None:
        yield _asked("vectors server", named.vectors, _ask_vectors, State.DEGRADED)
    if named.cache is not None:
        yield _asked("cache server", named.cache, _ask_cache, State.DEGRADED)


def _asked(name: str, url: str, ask: Callable[[str], str], at_worst: State) -> Check:
    """What `ask` says; its warnings are things to mend, its errors say how."""
    from langchain_ctxmgr.cli.checks import Check, State
    from langchain_ctxmgr.errors import StorageError

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = ask(url)
        except (StorageError, ValueError, ImportError) as error:
            return Check(name=name, state=at_worst, found="cannot be used", mend=str(error))
    if warned:
        mend = "; ".join(str(each.message) for each in warned)
        return Check(name=name, state=State.DEGRADED, found=found, mend=mend)
    return Check(name=name, state=State.OK, found=found)


def _ask_log(url: str) -> str:
    from langchain_ctxmgr.storage.postgres import PostgresLog

    with closing(PostgresLog(url, timeout=_PATIENCE)) as log:
        looked = log.inspect()
    tables = "its tables are up to date" if looked.is_current else "tables are made at first use"
    return f"PostgreSQL {looked.version}; {tables}"


def _ask_vectors(url: str) -> str:
    from langchain_ctxmgr.storage.server import QdrantVectorStore

    with closing(QdrantVectorStore.from_url(url)) as store:
        return f"it answers; Qdrant {store.check_server()}"


def _ask_cache(url: str) -> str:
    from langchain_ctxmgr.records import Scope
    from langchain_ctxmgr.storage.redis_cache import RedisCache

    with closing(RedisCache(url)) as cache:
        cache.get(Scope(tenant_id="ctxmgr-doctor"), "probe")
        return "it answers"
