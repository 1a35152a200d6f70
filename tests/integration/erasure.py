"""Forget a user who said much, and look for it in every byte that is left.

The user speaks in threads of their own and in one shared with another; canaries are planted in
texts, names and tool calls, learnt and remembered. After `forget` no file, table or key has one,
the log verifies, and what others recorded is as it was.
The long run: `python -m tests.integration.erasure --messages 5000`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.records import ErasureReceipt
from tests.hashed_words import HashedWords
from tests.loopback_qdrant import LoopbackQdrant
from tests.postgres import own_database
from tests.services import OwnService, free_port

THREADS = 10
CANARIES = 200
USER = Scope(tenant_id="acme", user_id="ana")
OTHERS = (
    Scope(tenant_id="acme", thread_id="shared", user_id="ben"),
    Scope(tenant_id="acme", thread_id="bens", user_id="ben"),
    Scope(tenant_id="globex", thread_id="t0", user_id="ana"),
)


def said(number: int, canary: str) -> list[BaseMessage]:
    """What a user and an assistant say, with a canary in one of the places that hold text."""
    texts = [f"Item {number} {part}." for part in ("is in the harbour", "is noted", "came")]
    place = number % 4
    if place < 2:
        texts[place] += f" {canary}"
    name = canary if place == 2 else None
    call = {"name": "look", "args": {"for": canary if place == 3 else "all"}, "id": f"c{number}"}
    return [
        HumanMessage(texts[0], id=f"h{number}", name=name),
        AIMessage("", tool_calls=[call], id=f"t{number}"),
        ToolMessage(texts[2], tool_call_id=call["id"], id=f"r{number}"),
        AIMessage(texts[1], id=f"a{number}"),
    ]


def speak(manager: ContextManager, messages: int) -> None:
    """Record what the user said, with all that is made of it, and what others said."""
    every = max(1, messages // 4 // CANARIES)
    for number in range(messages // 4):
        canary = f"canary{number}q" if number % every == 0 else ""
        thread = "shared" if number % (THREADS + 1) == THREADS else f"t{number % (THREADS + 1)}"
        scope = Scope(tenant_id="acme", thread_id=thread, user_id="ana")
        manager.record(said(number, canary), scope=scope)
    for scope in OTHERS:
        manager.record(
            [HumanMessage(f"I like tea {n}.", id=f"o{n}") for n in range(20)], scope=scope
        )
    manager.learn("I live in Canaryville.", scope=USER)
    manager.remember("I once saw a canary44q.", scope=USER)
    for thread in ("t0", "shared"):
        scope = Scope(tenant_id="acme", thread_id=thread, user_id="ana")
        for question in ("Where is item 11, canary11q?", "And item 22?"):
            manager.prepare(scope=scope, query=question, max_tokens=800)
    manager.facts(scope=USER)


def seen(manager: ContextManager) -> list[list[str]]:
    """What others recorded, and recall."""
    texts = [
        [m.text for m in manager.history(scope=scope) if m.text.startswith("I like")]
        for scope in OTHERS
    ]
    recalled = [[m.text for m in manager.recall("tea 7", scope=scope, k=1)] for scope in OTHERS]
    return [*texts, *recalled]


def forgotten(manager: ContextManager) -> ErasureReceipt:
    """Forget the user; everything but the bytes is checked."""
    before = seen(manager)
    receipt = manager.forget(scope=USER)
    assert seen(manager) == before
    assert manager.export(scope=USER) == []
    assert manager.recall("canary11q", scope=USER) == []
    verified = manager.verify()
    assert verified.ok, verified.problems
    return receipt


def in_files(folder: Path) -> bytes:
    """Every file below a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def in_tables(url: str) -> bytes:
    """Every row of every table of a database, bytes as they are."""
    found: list[bytes] = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            for row in connection.execute(f'SELECT * FROM "{schema}"."{table}"'):  # noqa: S608
                found += [
                    bytes(value) if isinstance(value, bytes) else str(value).encode()
                    for value in row
                ]
    return b"\0".join(found)


def in_keys(url: str) -> bytes:
    """Every key of a Redis with its value."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter())
        return b"\0".join([*keys, *(client.dump(key) or b"" for key in keys)])


@contextmanager
def own_redis() -> Generator[str]:
    """The URL of a Redis that holds nothing else."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = OwnService(port, command)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()


def over_a_folder(folder: Path, messages: int) -> ErasureReceipt:
    """SQLite, Qdrant Edge and Redis."""
    with own_redis() as cache:
        model = {"model": "gpt-4o-mini", "embeddings": Embedder(HashedWords(), "hashed-words")}
        with ContextManager.open(folder, cache=cache, **model) as manager:
            speak(manager, messages)
            assert b"anary" in in_files(folder)
            receipt = forgotten(manager)
            assert b"anary" not in in_keys(cache)
        assert b"anary" not in in_files(folder)
    return receipt


def over_servers(messages: int) -> ErasureReceipt:
    """PostgreSQL, a Qdrant server's protocol and Redis."""
    with own_database() as database, LoopbackQdrant() as qdrant, own_redis() as cache:
        model = {"model": "gpt-4o-mini", "embeddings": Embedder(HashedWords(), "hashed-words")}
        urls = {"log": database.url(), "vectors": qdrant.url, "cache": cache}
        with ContextManager(**urls, **model) as manager:
            speak(manager, messages)
            assert b"anary" in in_tables(database.superuser_url())
            receipt = forgotten(manager)
        assert b"anary" not in in_tables(database.superuser_url())
        assert b"anary" not in in_keys(cache)
    return receipt


def main() -> None:
    """The long run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=5_000)
    messages = parser.parse_args().messages
    with tempfile.TemporaryDirectory() as folder:
        receipts = {
            "folder": over_a_folder(Path(folder, "data"), messages),
            "servers": over_servers(messages),
        }
    for name, receipt in receipts.items():
        print(name, json.dumps({"messages": receipt.messages, "vectors": receipt.vectors}))


if __name__ == "__main__":
    main()
