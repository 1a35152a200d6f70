"""All that is kept of a user, a thread or a tenant, as values that JSON takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from langchain_core.load import dumpd

from langchain_ctxmgr.marking import Marks
from langchain_ctxmgr.memory.facts.values import Fact
from langchain_ctxmgr.records import LogRecord, Scope, Weighed
from langchain_ctxmgr.remembering import Remembers
from langchain_ctxmgr.storage.message_log import MessageLog

_SHOWN: Final = ("thread_id", "user_id", "role", "speaker", "branch", "revision", "importance")


def message_entry(record: LogRecord) -> dict[str, Any]:
    """A recorded message: when and where it was said, and the message as LangChain writes it."""
    return {
        "kind": "message",
        "id": record.message_id,
        "at": record.at.isoformat(),
        **{name: getattr(record, name) for name in _SHOWN},
        "message": dumpd(record.message),
    }


def fact_entry(fact: Fact) -> dict[str, Any]:
    """A fact, whether it still holds or not, with the messages that say so."""
    told = asdict(fact)
    for name in ("valid_from", "valid_until", "recorded_at"):
        told[name] = None if told[name] is None else told[name].isoformat()
    for source in told["sources"]:
        source["at"] = source["at"].isoformat()
    return {"kind": "fact", **told, "sources": list(told["sources"])}


def mark_entry(mark: Weighed) -> dict[str, Any]:
    """What is pinned, boosted or muted, and since when."""
    return {
        "kind": "mark",
        "id": mark.message_id,
        "at": mark.at.isoformat(),
        "thread_id": mark.thread_id,
        "user_id": mark.user_id,
        "is_pinned": mark.is_pinned,
        "weight": mark.weight,
    }


def marks_of_scope(marks: Iterable[Weighed], scope: Scope) -> list[dict[str, Any]]:
    """An entry for each of `marks` on a message of the user's, where `scope` names one."""
    return [
        mark_entry(mark) for mark in marks if scope.user_id is None or mark.user_id == scope.user_id
    ]


def of_scope(records: Iterable[LogRecord], scope: Scope) -> list[dict[str, Any]]:
    """The entries of `records` that are the user's, where `scope` names one."""
    return [
        message_entry(record)
        for record in records
        if scope.user_id is None or record.user_id == scope.user_id
    ]


class Exports(Remembers, Marks):
    """A manager's methods for handing out all that is kept."""

    _log: MessageLog

    def export(self, *, scope: Scope) -> list[dict[str, Any]]:
        """All that is kept of a user, else of a thread, else of a tenant, for JSON.

        An entry for each recorded message (revisions, branches and memories included), then
        one for each fact, also of those that no longer hold, and one for each message that is
        pinned, boosted or muted. Of a thread that a user shares with others, only their own
        messages.
        """
        where = self._scope(scope)
        entries: list[dict[str, Any]] = []
        for each in self._log.threads(where):
            thread = Scope(tenant_id=where.tenant_id, thread_id=each.thread_id)
            entries += of_scope(self._log.history(thread), where)
        entries += map(fact_entry, self.facts(scope=where, as_of="ever"))
        return entries + marks_of_scope(self.weighed(scope=where), where)

    async def aexport(self, *, scope: Scope) -> list[dict[str, Any]]:
        """`export` on an event loop."""
        where = self._scope(scope)
        entries: list[dict[str, Any]] = []
        for each in await self._log.athreads(where):
            thread = Scope(tenant_id=where.tenant_id, thread_id=each.thread_id)
            entries += of_scope([record async for record in self._log.ahistory(thread)], where)
        entries += map(fact_entry, await self.afacts(scope=where, as_of="ever"))
        return entries + marks_of_scope(await self.aweighed(scope=where), where)
