"""Notes on messages by themselves, without the notes so far: for what is condensed on request.

Checked as all notes are, and found again in the cache by exactly what they are on.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from hashlib import sha256
from typing import Any, Final

from langchain_ctxmgr._plans import Plan, gather
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.compression.statements import RunningSummary, Statement, fitting
from langchain_ctxmgr.errors import SummaryError
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.summaries.spending import Spending
from langchain_ctxmgr.summaries.store import KEPT

_KIND: Final = "notes"


def notes_on(
    records: Sequence[LogRecord],
    scope: Scope,
    *,
    summarizer: ChatSummarizer,
    spending: Spending,
    cached: Cached,
    counter: TokenCounter,
    max_parallel: int,
) -> Plan[RunningSummary]:
    """What `summarizer` notes on `records`, oldest first, which are `scope`'s.

    On an event loop so many of its calls are made at once.

    Raises:
        SummaryError: If an answer is no summary, or the tenant's means for today are used up.
            What the model itself raises passes.
    """

    def make() -> Generator[Any, Any, bytes]:
        if spending.is_over_cap(str(scope.tenant_id)):
            raise SummaryError("the tenant's means for summaries are used up for today")
        parts = list(summarizer.parts(records, counter))
        statements: list[Statement] = []
        written = unsupported = 0
        for first in range(0, len(parts), max_parallel):
            calls = (
                summarizer.update(
                    [], part, {}, counter, lambda reply: spending.paid(str(scope.tenant_id), reply)
                )
                for part in parts[first : first + max_parallel]
            )
            for update in (yield from gather(*calls)):
                statements += update.statements
                written += update.written
                unsupported += len(update.unsupported)
        made = RunningSummary(
            before_slot=records[-1].slot + 1,
            statements=tuple(fitting(statements, summarizer.max_tokens, counter)),
            sections=(),
            supported=1 - unsupported / written if written else 1.0,
        )
        return made.to_bytes()

    covers = json.dumps([summarizer.identity, [record.seq for record in records]])
    key = f"{_KIND} {sha256(covers.encode('ascii')).hexdigest()}"
    kept = yield from cached.value(scope, key, make, ttl=KEPT)
    found = RunningSummary.from_bytes(kept)
    if found is None:
        raise SummaryError("what the cache has of this summary was written by another release")
    return found
