"""How often is a summary found again, and how fast, while a thread's model changes?

Models of a small, a medium and a large window take turns at one thread, each with a manager of
its own, as three workers have. They share a log and a cache. Counted is how many preparations
had to be preceded by a model's call, and where each look-up of a summary ended. Then the same
summaries are looked up where only one of the tiers has them.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, cast

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import report
from summaries_model import MODEL, NoteTaker, exchange

from langchain_ctxmgr import ChatSummarizer, ContextBudget, ContextManager, Scope
from langchain_ctxmgr._plans import run
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.storage.cache import Cache, MemoryCache
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.postgres import PostgresLog
from langchain_ctxmgr.storage.redis_cache import RedisCache
from langchain_ctxmgr.storage.sqlite import SqliteLog
from langchain_ctxmgr.summaries.store import SummaryStore
from tests.postgres import own_database
from tests.services import OwnRedis

WINDOWS: Final = {"small": 8_000, "medium": 32_000, "large": 128_000}
STAY: Final = 0.9
"""Chance that the next turn is the same model's."""
ROUNDS: Final = 300
SCOPE: Final = Scope(tenant_id="bench", thread_id="t")


@contextmanager
def _folder() -> Generator[tuple[MessageLog, Cache]]:
    with tempfile.TemporaryDirectory() as name, closing(SqliteLog(Path(name, "log"))) as log:
        yield log, MemoryCache()


@contextmanager
def _servers() -> Generator[tuple[MessageLog, Cache]]:
    with tempfile.TemporaryDirectory() as name, own_database() as database:
        server = OwnRedis(Path(name))
        try:
            with PostgresLog(database.url()) as log, closing(RedisCache(server.url)) as cache:
                yield log, cache
        finally:
            server.kill()


PLACES: Final = {"SQLite, in the process": _folder, "PostgreSQL, Redis": _servers}


def tiers(turns: int) -> list[dict[str, Any]]:
    """A row for each place that log and cache may be in."""
    rows: list[dict[str, Any]] = []
    for place, opened in PLACES.items():
        model = NoteTaker(as_statements=True)
        summarizer = ChatSummarizer(model=model)
        with opened() as (log, cache):
            found = _replayed(turns, log, cache, summarizer, model)
            hits = _hits(log, cache, summarizer)
        rows.append({"place": place, **found, "hit_ms": hits})
        print(rows[-1], flush=True)
    return rows


def _replayed(
    turns: int, log: MessageLog, cache: Cache, summarizer: ChatSummarizer, model: NoteTaker
) -> dict[str, Any]:
    rng = random.Random(7)  # noqa: S311 - the same switches on every run
    with ExitStack() as stack:
        managers = {
            name: stack.enter_context(
                ContextManager(
                    log=log,
                    cache=cache,
                    model=MODEL,
                    budget=ContextBudget(max_input_tokens=window),
                    summarizer=summarizer,
                )
            )
            for name, window in WINDOWS.items()
        }
        name, calls, with_calls, switches = "small", 0, 0, 0
        for turn in range(turns):
            if rng.random() > STAY:
                name = rng.choice([other for other in WINDOWS if other != name])
                switches += 1
            question, answer = exchange(turn)
            managers[name].prepare(scope=SCOPE, query=question)
            with_calls += model.calls > calls
            calls = model.calls
            managers[name].record([question, answer], scope=SCOPE)
            # As much time passes between turns as the work beside them takes.
            cast("Any", managers[name])._summaries.join()  # noqa: SLF001
        looked: dict[str, int] = dict.fromkeys(("process", "cache", "log", "missing"), 0)
        for manager in managers.values():
            for tier, times in manager.stats()["summaries"]["look_ups"].items():
                looked[tier] += times
    return {
        "turns": turns,
        "switches": switches,
        "calls": model.calls,
        "without_call": 1 - with_calls / turns,
        "look_ups": looked,
        "hit_ratio": 1 - looked["missing"] / sum(looked.values()),
    }


def _hits(log: MessageLog, cache: Cache, summarizer: ChatSummarizer) -> dict[str, Any]:
    """Milliseconds to look the newest summary up, by the tier that has it."""
    branch = log.branch(SCOPE)

    def store(kept: Cache) -> SummaryStore:
        return SummaryStore(
            log,
            Cached(kept),
            identity=summarizer.identity,
            section_tokens=summarizer.section_tokens,
        )

    here, there = store(cache), store(cache)
    section = run(here.section(branch, run(here.made(branch))))
    if section is None or run(here.get(branch, section)) is None:
        raise RuntimeError("no summary was made")

    def process(_: int) -> None:
        run(here.get(branch, section))

    def cached(_: int) -> None:
        there.forget()
        run(there.get(branch, section))

    fresh = [store(MemoryCache()) for _ in range(ROUNDS)]

    def logged(number: int) -> None:
        run(fresh[number].get(branch, section))

    return {
        "process": report.timed(process, ROUNDS),
        "cache": report.timed(cached, ROUNDS),
        "log": report.timed(logged, ROUNDS),
    }
