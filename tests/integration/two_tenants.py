"""Random calls by two tenants at once on one manager: nothing of one reaches the other.

Both use the same thread, user and message ids and the same words, and ask for what the other
hides. What each gets is also all of its own: its history is held against what it recorded. On
servers the same is then tried with raw SQL as the role that the workers connect as. The long
run: `python -m tests.integration.two_tenants --calls 10000`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from langchain_core.messages import AIMessage, HumanMessage
from psycopg import sql

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.memory.embeddings import Embedder
from langchain_ctxmgr.storage.codec import decode
from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.hashed_words import HashedWords
from tests.loopback_qdrant import LoopbackQdrant
from tests.postgres import OwnDatabase, own_database
from tests.services import redis_url

TENANTS = ("acme", "globex")
THREADS = 4
USERS = (None, "u-1", "u-2")
CALLS = {
    "record": 34,
    "prepare": 18,
    "recall": 18,
    "learn": 4,
    "facts": 6,
    "history": 8,
    "stats": 8,
    "verify": 2,
    "forget": 2,
}
"""How often each is made, of a hundred."""
LONGEST_THREAD = 120
"""A longer one is forgotten, so that a call costs about the same throughout."""


def secret(tenant: str, number: int) -> str:
    return f"canary{tenant}{number}"


class Caller:
    """One tenant, what it recorded by thread, and what it may be told."""

    def __init__(self, manager: ContextManager, tenant: str, seed: int) -> None:
        self._manager = manager
        self._tenant = tenant
        self._other = next(name for name in TENANTS if name != tenant)
        self._rng = random.Random(seed)
        self._said: dict[str, list[str]] = {}
        self._number = 0
        self._learned = 0
        self.made: Counter[str] = Counter()

    async def calls(self, count: int) -> None:
        names, weights = list(CALLS), list(CALLS.values())
        for _ in range(count):
            name = self._rng.choices(names, weights)[0]
            await getattr(self, name)(self._scope())
            self.made[name] += 1

    def _scope(self) -> Scope:
        thread = f"t-{self._rng.randrange(THREADS)}"
        return Scope(tenant_id=self._tenant, thread_id=thread)

    def _question(self) -> str:
        """For what the other tenant hides, by name, or for anything."""
        hidden = secret(self._other, self._rng.randrange(self._number + 1))
        return self._rng.choice((f"What is in locker {hidden}?", "Which locker holds the parcel?"))

    def _told(self, what: object, *, asked: str = "") -> None:
        """Nothing of the other tenant stands in `what`, but for what was `asked`."""
        text = str(what).replace(asked, "") if asked else str(what)
        assert f"canary{self._other}" not in text, f"{self._tenant} was told: {text[:2000]}"

    async def record(self, scope: Scope) -> None:
        thread = str(scope.thread_id)
        if len(self._said.get(thread, ())) >= LONGEST_THREAD:
            await self.forget(scope)
        said = self._said.setdefault(thread, [])
        kind = (HumanMessage, AIMessage)[len(said) % 2]
        texts = [
            f"The parcel is in locker {secret(self._tenant, self._number + n)} by the harbour."
            for n in range(self._rng.randint(1, 3))
        ]
        messages = [kind(text, id=f"m-{len(said) + n}") for n, text in enumerate(texts)]
        user = self._rng.choice(USERS)
        where = Scope(tenant_id=self._tenant, thread_id=thread, user_id=user)
        records = await self._manager.arecord(messages, scope=where)
        assert {record.tenant_id for record in records} == {self._tenant}
        assert [record.message.content for record in records] == texts
        self._number += len(texts)
        said += texts

    async def prepare(self, scope: Scope) -> None:
        question = self._question()
        context = await self._manager.aprepare(
            scope=scope, query=question, max_tokens=self._rng.choice((200, 600, 2_000))
        )
        self._told(context.messages, asked=question)
        self._told((context.receipt, context.sections), asked=question)

    async def recall(self, scope: Scope) -> None:
        user = self._rng.choice(USERS)
        thread = self._rng.choice((scope.thread_id, None))
        where = Scope(tenant_id=self._tenant, thread_id=thread, user_id=user)
        self._told(await self._manager.arecall(self._question(), scope=where, k=8))

    async def learn(self, scope: Scope) -> None:
        whose = Scope(tenant_id=self._tenant, thread_id=scope.thread_id, user_id="u-1")
        learned = await self._manager.alearn(f"I like {secret(self._tenant, 0)}.", scope=whose)
        self._told(learned)
        self._learned += 1

    async def facts(self, scope: Scope) -> None:
        for user, thread in (("u-1", None), (None, scope.thread_id), (None, None)):
            where = Scope(tenant_id=self._tenant, thread_id=thread, user_id=user)
            self._told(await self._manager.afacts(scope=where, as_of="ever"))

    async def history(self, scope: Scope) -> None:
        history = await self._manager.ahistory(scope=scope)
        assert [m.content for m in history] == self._said.get(str(scope.thread_id), [])

    async def stats(self, scope: Scope) -> None:
        own = Scope(tenant_id=self._tenant)
        stats = await self._manager.astats(scope=own)
        assert stats["log"]["records"] == self._learned + sum(map(len, self._said.values()))

    async def verify(self, scope: Scope) -> None:
        verified = await self._manager.averify(scope=scope)
        assert verified.ok, verified.problems
        assert verified.records == len(self._said.get(str(scope.thread_id), []))

    async def forget(self, scope: Scope) -> None:
        receipt = await self._manager.aforget(scope=scope)
        assert receipt.messages == len(self._said.pop(str(scope.thread_id), []))


async def calls(manager: ContextManager, count: int, *, seed: int = 1) -> Counter[str]:
    """How often each call was made; both tenants make half of them, at once."""
    callers = [Caller(manager, tenant, seed + n) for n, tenant in enumerate(TENANTS)]
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.calls(count // len(callers)))
    return callers[0].made + callers[1].made


STATEMENTS = (
    "SELECT * FROM {}",
    "SELECT * FROM {} WHERE tenant_id = %(other)s",
    "SELECT DISTINCT tenant_id FROM {} ORDER BY 1",
    "SELECT own.* FROM {} own JOIN {} twin USING (tenant_id) WHERE twin.tenant_id = %(other)s",
    "SELECT {}.* FROM {}, (VALUES (%(other)s)) other (name) WHERE tenant_id >= other.name LIMIT 50",
    "UPDATE {} SET tenant_id = tenant_id WHERE tenant_id = %(other)s RETURNING *",
    "DELETE FROM {} WHERE tenant_id = %(other)s RETURNING *",
)


def raw_calls(database: OwnDatabase, count: int, *, seed: int = 1) -> int:
    """How many rows `count` random statements gave, bound to one tenant or the other."""
    rng = random.Random(seed)
    rows = 0
    with psycopg.connect(database.url(database.app)) as connection:
        connection.execute("SET search_path = ctxmgr")
        tables = [
            table
            for (table,) in connection.execute(
                "SELECT table_name FROM information_schema.columns "
                "WHERE table_schema = 'ctxmgr' AND column_name = 'tenant_id' ORDER BY 1"
            )
        ]
        assert "records" in tables
        connection.commit()
        for _ in range(count):
            own, other = rng.sample(TENANTS, 2)
            table = rng.choice(tables)
            with connection.transaction(force_rollback=True), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('ctxmgr.tenant_id', %s, true)", (own,))
                text = rng.choice(STATEMENTS)
                names = [sql.Identifier(table)] * text.count("{}")
                cursor.execute(sql.SQL(text).format(*names), {"other": other})
                found = cursor.fetchall()
                columns = [column.name for column in cursor.description or ()]
                _check_rows(columns, found, own, other)
                rows += len(found)
    return rows


def _check_rows(columns: list[str], rows: list[tuple[Any, ...]], own: str, other: str) -> None:
    for row in rows:
        values = dict(zip(columns, row, strict=True))
        assert values["tenant_id"] == own, values
        payload = values.get("payload")
        text = str(decode(payload)) if payload else ""
        assert other not in f"{values} {text}", values


@contextmanager
def on_one_machine() -> Iterator[ContextManager]:
    """SQLite and Qdrant Edge."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ContextManager.open(
            folder, model="gpt-4o-mini", embeddings=Embedder(HashedWords(), "hashed-words")
        ) as manager,
    ):
        yield manager


@contextmanager
def on_servers(database: OwnDatabase) -> Iterator[ContextManager]:
    """PostgreSQL, as the plain role, with Qdrant and Redis."""
    with (
        LoopbackQdrant() as qdrant,
        ContextManager(
            log=database.url(database.app),
            vectors=qdrant.url,
            cache=redis_url(),
            model="gpt-4o-mini",
            embeddings=Embedder(HashedWords(), "hashed-words"),
        ) as manager,
    ):
        yield manager


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    given = parser.parse_args()
    with on_one_machine() as manager:
        _report("SQLite and Edge", manager, given.calls)
    with own_database() as database:
        with PostgresLog(database.url()):
            database.grant()
        with on_servers(database) as manager:
            _report("PostgreSQL, Qdrant and Redis", manager, given.calls)
            rows = raw_calls(database, given.calls)
    print(f"raw SQL as the plain role: {given.calls} statements, {rows} rows, all the tenant's own")


def _report(name: str, manager: ContextManager, count: int) -> None:
    started = time.monotonic()
    made = asyncio.run(calls(manager, count))
    told = ", ".join(f"{number} {what}" for what, number in sorted(made.items()))
    seconds = time.monotonic() - started
    print(f"{name}: {made.total()} calls by two tenants in {seconds:.0f} s, none crossed: {told}")


if __name__ == "__main__":
    main()
