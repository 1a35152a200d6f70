"""Finished summaries, each under a digest of exactly what it covers.

A summary covers a branch from its first message to the end of a *section*: the messages that
bring what was said to the next multiple of a fixed number of tokens. Where sections end follows
from the log alone, so every process and every model looks for the same summaries. The key
digests the last message covered (which is on one branch only), the newest revision before it,
and the summarizer's settings. Looked up in this process first, then in the cache, then in the log.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.compression.statements import RunningSummary
from langchain_ctxmgr.forking import ForkableLock
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.records import Branch, Scope
from langchain_ctxmgr.storage.message_log import MessageLog

KEPT: Final = timedelta(days=30)
"""How long the cache has a summary; the log has it for as long as its messages."""
_KIND: Final = "summary"
_NEWEST: Final = "summary-newest"
_KEPT_IN_LOG: Final = 64
"""Of a thread: forks go back to one of the newest."""
_KEPT_HERE: Final = 256


class Section(NamedTuple):
    """A stretch of a branch, and what its summary goes by."""

    number: int
    """From 1."""
    start_slot: int
    end_slot: int
    """Its messages are before this slot."""
    key: str


class Made(NamedTuple):
    """A finished summary; 0 and None where there is none."""

    number: int
    """Of the section that it reaches to the end of."""
    summary: RunningSummary | None


NOT_MADE: Final = Made(0, None)


@dataclass(slots=True)
class LookUps:
    """How often summaries were asked for, by where they were found; an older one counts as none."""

    process: int = 0
    cache: int = 0
    log: int = 0
    missing: int = 0


class SummaryStore:
    """Keeps summaries by what they cover; safe to share between threads and tasks.

    Args:
        log: Where they are kept for as long as their messages.
        cached: Where other processes find them sooner.
        identity: What they follow from besides their messages.
        section_tokens: Size of a section.
    """

    def __init__(
        self, log: MessageLog, cached: Cached, *, identity: tuple[object, ...], section_tokens: int
    ) -> None:
        self._log = log
        self._cached = cached
        self._settings = sha256(json.dumps(identity).encode("ascii")).hexdigest()
        self._section_tokens = section_tokens
        self._here: OrderedDict[tuple[str, str, str], RunningSummary] = OrderedDict()
        self._guard = ForkableLock()
        self._erasures = 0
        self.look_ups = LookUps()
        self.saved_usd = Decimal(0)
        """What summaries took that were found here as others had made them."""

    def newest(
        self, branch: Branch, *, before_slot: int | None = None, looked_back: int | None = None
    ) -> Plan[Made]:
        """The summary that covers most of `branch`, or of what stands before `before_slot`.

        Args:
            branch: The line of messages.
            before_slot: None: all of it.
            looked_back: So many sections are looked at, the newest first; None: all.
        """
        last = branch.head
        if before_slot is not None:
            ahead = yield from call(
                self._log.read, branch, from_slot=before_slot - 1, before_slot=before_slot, limit=1
            )
            last = ahead[0] if ahead else None
        if last is None:
            return NOT_MADE
        made, complete = (yield from self.made(branch)), last.total_tokens // self._section_tokens
        if made < complete:
            self.look_ups.missing += 1
        newest = min(made, complete)
        oldest = 0 if looked_back is None else max(0, newest - looked_back)
        for number in range(newest, oldest, -1):
            section = yield from self.section(branch, number)
            if section is not None and (before_slot is None or section.end_slot <= before_slot):
                found = yield from self.get(branch, section)
                if found is not None:
                    return Made(number, found)
        return NOT_MADE

    def made(self, branch: Branch) -> Plan[int]:
        """The number of the newest section of the thread that was ever summarized; 0 for none."""
        scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
        number = yield from call(self._log.get_derived, scope, _NEWEST, self._settings)
        return int(number) if number is not None and number.isdigit() else 0

    def complete(self, branch: Branch) -> int:
        """How many sections of `branch` are complete."""
        return 0 if branch.head is None else branch.head.total_tokens // self._section_tokens

    def section(self, branch: Branch, number: int) -> Plan[Section | None]:
        """Section `number` of `branch`; None where it is not complete."""
        start = 0
        if number > 1:
            located = yield from call(self._log.locate, branch, (number - 1) * self._section_tokens)
            if located is None:
                return None
            start = located
        end = yield from call(self._log.locate, branch, number * self._section_tokens)
        if end is None:
            if branch.head is None or self.complete(branch) < number:
                return None
            end = branch.head.slot + 1  # the newest message completes it
        last = yield from call(self._log.read, branch, from_slot=end - 1, before_slot=end, limit=1)
        revised = yield from call(self._log.revised, branch, before_slot=end)
        # With what was withdrawn: a key of before must not find what was made from it.
        covers = json.dumps(
            [self._settings, number, last[0].seq if last else 0, revised, branch.withdrawn]
        )
        return Section(number, start, end, sha256(covers.encode("ascii")).hexdigest())

    def get(self, branch: Branch, section: Section) -> Plan[RunningSummary | None]:
        """The summary up to the end of `section`, wherever it is kept."""
        own = (branch.tenant_id, branch.thread_id, section.key)
        here = self._here.get(own)
        if here is not None:
            self.look_ups.process += 1
            return here
        scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
        is_cached, erasures = True, self._erasures

        def from_log() -> Generator[Any, Any, bytes]:
            nonlocal is_cached
            is_cached = False
            kept = yield from call(self._log.get_derived, scope, _KIND, section.key)
            if kept is None:
                raise _NotMadeError
            return kept

        try:
            kept = yield from self._cached.value(
                scope, f"{_KIND} {section.key}", from_log, ttl=KEPT
            )
        except _NotMadeError:
            kept = b""
        found = RunningSummary.from_bytes(kept)
        if found is None:
            self.look_ups.missing += 1
            return None
        if is_cached:
            self.look_ups.cache += 1
        else:
            self.look_ups.log += 1
        self.saved_usd += found.cost_usd or 0
        self._keep_here(own, found, erasures)
        return found

    @property
    def erasures(self) -> int:
        """How often something was erased here; for `put`, as it was before the first reading."""
        return self._erasures

    def put(
        self, branch: Branch, section: Section, summary: RunningSummary, *, erasures: int
    ) -> Plan[None]:
        """Keep a summary, in place of any other, unless what it was made from is erased by now."""
        kept = summary.to_bytes()
        yield from call(self._log.put_derived, branch, _KIND, section.key, kept, keep=_KEPT_IN_LOG)
        newest = max(section.number, (yield from self.made(branch)))
        yield from call(
            self._log.put_derived, branch, _NEWEST, self._settings, str(newest).encode("ascii")
        )
        scope = Scope(tenant_id=branch.tenant_id, thread_id=branch.thread_id)
        if (yield from call(self._log.get_derived, scope, _KIND, section.key)) is None:
            return  # erased, by another process perhaps
        if self._erasures == erasures:
            yield from self._cached.put(scope, f"{_KIND} {section.key}", kept, ttl=KEPT)
        self._keep_here((branch.tenant_id, branch.thread_id, section.key), summary, erasures)

    def forget(self) -> None:
        """Drop what this process holds: what it was made from may be erased."""
        with self._guard:
            self._erasures += 1
            self._here.clear()

    def _keep_here(self, own: tuple[str, str, str], summary: RunningSummary, erasures: int) -> None:
        with self._guard:
            if self._erasures == erasures:
                self._here[own] = summary
                if len(self._here) > _KEPT_HERE:
                    self._here.popitem(last=False)


class _NotMadeError(Exception):
    """The log has no such summary."""
