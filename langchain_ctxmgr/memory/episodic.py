"""Episodes as they are recorded: messages of their own, each in a thread beside its thread.

So an episode is indexed, recalled, exported and erased like anything recorded. In the index it is
found by itself, on the shelf of its user and of its thread, and takes no place among what
was said (`storage.vectors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

from langchain_core.messages import BaseMessage, ChatMessage

from langchain_ctxmgr.memory.facts.service import memory_id_of
from langchain_ctxmgr.memory.facts.values import MEMORY_ROLE, STATED, Authority
from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.storage.message_log import Withdrawal
from langchain_ctxmgr.storage.vectors import shelf

_EPISODE: Final = "episode-"
"""What the ids of episodes begin with."""


def episode_id(records: Sequence[LogRecord]) -> str:
    """The id of the episode that these turns are: the same whoever makes it, and whenever."""
    key = "\0".join([records[0].thread_id, *(str(record.seq) for record in records)])
    return _EPISODE + blake2b(key.encode(errors="replace"), digest_size=16).hexdigest()


def is_episode_thread(thread_id: str) -> bool:
    """Whether a thread holds an episode, by its name."""
    return (memory_id_of(thread_id) or "").startswith(_EPISODE)


def episode_message(text: str, records: Sequence[LogRecord]) -> ChatMessage:
    """An episode as it is recorded: its words, and the turns that it stands for."""
    told: dict[str, Any] = {
        "authority": Authority.AGENT.value,
        "is_fact": False,
        "sources": [record.message_id for record in records],
        "seqs": [record.seq for record in records],
        "from": records[0].at.isoformat(),
        "until": records[-1].at.isoformat(),
    }
    name = episode_id(records)
    return ChatMessage(content=text, role=MEMORY_ROLE, id=name, additional_kwargs={STATED: told})


def is_happening(message: BaseMessage) -> bool:
    """Whether a message was recorded as something that happened: an episode, or a memory of one."""
    told = _told(message)
    return bool(told) and not told.get("is_fact", True)


def sources_of(message: BaseMessage) -> tuple[str, ...]:
    """The ids of the turns that an episode stands for; none of any other message."""
    return tuple(map(str, _told(message).get("sources", ())))


def stands_for(message: BaseMessage, which: Withdrawal, seqs: frozenset[int]) -> bool:
    """Whether an episode stands for a turn that `which` means, or for one of `seqs`."""
    told = _told(message)
    if "seqs" not in told:
        return False
    if not seqs.isdisjoint(told["seqs"]):
        return True
    if which.seqs is not None or which == Withdrawal():
        return which.seqs is not None and not set(which.seqs).isdisjoint(told["seqs"])
    if which.message_ids is not None and set(which.message_ids).isdisjoint(told["sources"]):
        return False
    first, last = (datetime.fromisoformat(told[name]) for name in ("from", "until"))
    return (which.since is None or last >= which.since) and (
        which.until is None or first < which.until
    )


class Shelf(NamedTuple):
    """Where the episodes of a scope are."""

    log: Scope
    points: Scope
    prefix: str
    """What the names of their threads begin with; empty for any."""

    def holds(self, thread_id: str) -> bool:
        """Whether a thread is one of theirs, or a memory's."""
        return thread_id.startswith(self.prefix) and memory_id_of(thread_id) is not None


def shelf_of(scope: Scope) -> Shelf:
    """Where the episodes of a user are, those of one thread, or those of a tenant."""
    tenant = Scope(tenant_id=scope.tenant_id)
    log = replace(tenant, user_id=scope.user_id)
    if scope.thread_id is not None:
        name = shelf(thread_id=scope.thread_id)
        return Shelf(log, replace(tenant, thread_id=name), name)
    if scope.user_id is not None:
        return Shelf(log, replace(tenant, thread_id=shelf(user_id=scope.user_id)), "")
    return Shelf(log, tenant, "")


def _told(message: BaseMessage) -> dict[str, Any]:
    if not isinstance(message, ChatMessage) or message.role != MEMORY_ROLE:
        return {}
    return cast("dict[str, Any]", message.additional_kwargs.get(STATED, {}))
