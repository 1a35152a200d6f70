"""Every public method of a manager, for two tenants with the same ids and canaries everywhere.

The methods are found by introspection: one that is new has to be given a line in `CALLS`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.memory.embeddings import Embedder
from tests.hashed_words import HashedWords
from tests.loopback_qdrant import LoopbackQdrant
from tests.scripted_summarizer import ScriptedSummarizer
from tests.services import redis_url

TENANTS = ("acme", "globex")
START = datetime(2025, 3, 1, 9, tzinfo=UTC)
ASKED = "Where is the parcel, in which locker by the harbour, and who is the uncle?"
MINE = "acme"
"""Who calls; the other one must neither be told of nor touched."""


def thread(tenant):
    return Scope(tenant_id=tenant, thread_id="t1", user_id="u1")


def user(tenant):
    return Scope(tenant_id=tenant, user_id="u1")


def whole(tenant):
    return Scope(tenant_id=tenant, thread_id="t1")


def all_of(tenant):
    return Scope(tenant_id=tenant)


def canary(tenant):
    return f"canary{tenant}"


def fill(manager, tenant):
    """A canary in every store: messages, memories, facts, marks, frames, summaries, vectors."""
    said, secret = [], canary(tenant)
    for n in range(40):
        text = (
            f"Parcel {n} is in locker {secret}{n} by the harbour. My uncle {secret}{n} lives here."
        )
        said += [HumanMessage(text, id=f"h{n}"), AIMessage(f"Noted {secret}{n}.", id=f"a{n}")]
    call = {"name": "look", "args": {"at": secret}, "id": "c1"}
    said += [
        HumanMessage("Look.", id="look"),
        AIMessage("", id="call", tool_calls=[call]),
        ToolMessage(f"Nadia works at {secret}.", tool_call_id="c1", id="result"),
        AIMessage("Done.", id="done"),
    ]
    at = [START + timedelta(minutes=n) for n in range(len(said))]
    manager.record(said, scope=thread(tenant), at=at)
    elsewhere = Scope(tenant_id=tenant, thread_id="t2", user_id="u1")
    manager.record([HumanMessage(f"I live in {secret}.", id="m")], scope=elsewhere)
    memory = manager.remember(f"My uncle likes {secret}.", scope=user(tenant))
    manager.pin(memory, scope=user(tenant))
    manager.pin("h1", scope=whole(tenant))
    manager.weigh("h2", 4, scope=whole(tenant))
    manager.weigh("h3", 0, scope=whole(tenant))
    manager.summarize(scope=whole(tenant))
    manager.make_episodes(scope=whole(tenant))
    told = manager.recall(ASKED, scope=all_of(tenant), kinds=("episodic",), score_threshold=0)
    assert secret in repr(told)
    for limit in (500, 2_000):
        manager.prepare(scope=thread(tenant), query=ASKED, max_tokens=limit)


Call = Callable[[Any, Scope], Any]
"""Makes a call, given the method and the scope of whoever calls."""
CALLS: dict[str, Call] = {
    "condense": lambda f, s: f(scope=_thread(s), strategy="key_points"),
    "expire": lambda f, s: f(scope=_tenant(s), keep=timedelta(days=9_999)),
    "export": lambda f, s: f(scope=_tenant(s)),
    "facts": lambda f, s: f("uncle Nadia locker", scope=_tenant(s), as_of="ever"),
    "history": lambda f, s: f(scope=s),
    "learn": lambda f, s: f("My uncle is called Bert.", scope=s),
    "make_episodes": lambda f, s: f(scope=_tenant(s)),
    "message": lambda f, s: f("h5", scope=s),
    "pin": lambda f, s: f("h6", scope=s),
    "prepare": lambda f, s: f(scope=s, query=ASKED, max_tokens=900),
    "recall": lambda f, s: f(ASKED, scope=_tenant(s), k=50, explain=True, score_threshold=0.0),
    "recent": lambda f, s: f(scope=s, max_tokens=2_000),
    "record": lambda f, s: f([HumanMessage("Thanks.", id="h5"), AIMessage("Yes.")], scope=s),
    "recorded": lambda f, s: f([HumanMessage("x", id="h0")], scope=s),
    "remember": lambda f, s: f("My uncle sails.", scope=s),
    "resummarize": lambda f, s: f(scope=s),
    "stats": lambda f, s: f(scope=_tenant(s)),
    "summarize": lambda f, s: f(scope=s),
    "unpin": lambda f, s: f("h1", scope=s),
    "verify": lambda f, s: f(scope=_tenant(s)),
    "weigh": lambda f, s: f("h7", 2.0, scope=s),
    "weighed": lambda f, s: f(scope=_tenant(s)),
    # Last, for it takes what the others ask for.
    "forget": lambda f, s: f(scope=_tenant(s)),
}
NO_SCOPE: dict[str, Call] = {
    "analyze": lambda f, _: f([HumanMessage("x")], max_tokens=100),
    "reindex": lambda f, _: f(),
}
"""What is given no scope: it reads what it is handed, or goes through all tenants and tells
figures alone."""
ELSEWHERE = {"open", "close", "aclose", "chat_history", "listeners"}
"""What is no call on what is kept; `chat_history` is for managers that are bound to a tenant."""


def _thread(scope):
    return Scope(tenant_id=scope.tenant_id, thread_id=scope.thread_id)


def _tenant(scope):
    return Scope(tenant_id=scope.tenant_id)


@pytest.fixture(params=["sqlite", "servers"])
def manager(request, tmp_path):
    settings = {
        "model": "gpt-4o-mini",
        "embeddings": Embedder(HashedWords(), "hashed-words"),
        "budget": ContextBudget(max_input_tokens=4_000),
        "episodes": 0,
        "summarizer": ChatSummarizer(
            model=ScriptedSummarizer(), section_tokens=300, trigger_tokens=300, read_share=1.0
        ),
    }
    if request.param == "sqlite":
        with ContextManager.open(tmp_path, **settings) as manager:
            yield manager
        return
    database = request.getfixturevalue("postgres")
    database.empty()
    log = database.url(database.app)
    with (
        LoopbackQdrant() as qdrant,
        ContextManager(log=log, vectors=qdrant.url, cache=redis_url(), **settings) as manager,
    ):
        yield manager


def public():
    return {name for name in dir(ContextManager) if not name.startswith("_")}


def test_every_public_method_has_a_line_here():
    listed = {*CALLS, *NO_SCOPE}
    twins = {f"a{name}" for name in listed - {"analyze"}}
    assert public() == listed | twins | ELSEWHERE
    for name in listed:
        takes_scope = "scope" in inspect.signature(getattr(ContextManager, name)).parameters
        assert takes_scope is (name in CALLS), name


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
def test_no_canary_crosses_and_nothing_of_another_tenant_changes(manager, is_async):
    for tenant in TENANTS:
        fill(manager, tenant)
    theirs = next(tenant for tenant in TENANTS if tenant != MINE)
    before = repr(manager.export(scope=all_of(theirs)))
    assert canary(theirs) in before

    def call(name, made):
        method = getattr(manager, f"a{name}" if is_async else name)
        given = made(method, thread(MINE))
        return asyncio.run(_awaited(given)) if is_async else given

    told = {}
    for name, made in {**NO_SCOPE, **CALLS}.items():
        if is_async and not hasattr(ContextManager, f"a{name}"):
            continue
        told[name] = repr(call(name, made))
        assert canary(theirs) not in told[name], name
    for name in ("condense", "export", "facts", "history", "message", "prepare", "recall"):
        assert canary(MINE) in told[name], name
    assert repr(manager.export(scope=all_of(theirs))) == before
    assert manager.export(scope=all_of(MINE)) == []
    asked = manager.prepare(scope=thread(theirs), query=ASKED, max_tokens=900)
    assert canary(theirs) in repr(asked.messages)
    assert canary(MINE) not in repr((asked.messages, asked.receipt))
    assert manager.verify().ok


async def _awaited(made):
    return await made


@pytest.mark.parametrize("name", CALLS)
async def test_a_missing_tenant_is_an_error(manager, name):
    nobody = Scope(thread_id="t1", user_id="u1")
    with pytest.raises(ValueError, match="tenant_id"):
        CALLS[name](getattr(manager, name), nobody)
    with pytest.raises(ValueError, match="tenant_id"):
        await CALLS[name](getattr(manager, f"a{name}"), nobody)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_scope_is_an_error(manager, name):
    method = getattr(manager, name)
    for scope in (None, "acme", {"tenant_id": "acme"}):
        if scope is None and name in {"stats", "verify"}:
            continue  # of all tenants, in figures

        def call(*args, wrong=scope, **given):
            return method(*args, **{**given, "scope": wrong})

        with pytest.raises(ValueError, match="scope"):
            CALLS[name](call, thread(MINE))


def test_a_chat_history_needs_a_bound_tenant(manager):
    with pytest.raises(ValueError, match="tenant_id"):
        manager.chat_history("t1")


def test_a_manager_bound_to_a_tenant_takes_no_other(tmp_path):
    with ContextManager.open(
        tmp_path, model="gpt-4o-mini", tenant_id="acme", summarizer=ScriptedSummarizer()
    ) as manager:
        for name, made in CALLS.items():
            with pytest.raises(ValueError, match="tenant_id must be the manager's own"):
                made(getattr(manager, name), thread("globex"))
