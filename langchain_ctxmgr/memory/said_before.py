"""What was said right before a message, for an encoder that reads turns in their context."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.memory.points import document_text
from langchain_ctxmgr.records import LogRecord, Scope
from langchain_ctxmgr.storage.message_log import MessageLog

TURNS_BEFORE: Final = 2
"""An answer and the question before it."""


def said_before(log: MessageLog, tenant_id: str, records: Sequence[LogRecord]) -> Plan[list[str]]:
    """For each record what stands before it on its branch, in the same session.

    As the log has it when this is asked: what the encoder makes of a turn depends on that
    turn and the ones before it, whichever are indexed together.
    """
    by_thread: dict[str, list[LogRecord]] = defaultdict(list)
    for record in records:
        by_thread[record.thread_id].append(record)
    before: dict[int, str] = {}
    for thread_id, known in by_thread.items():
        scope = Scope(tenant_id=tenant_id, thread_id=thread_id)
        seqs = [record.seq for record in known]
        around = yield from call(log.turns, scope, seqs, around=TURNS_BEFORE)
        places = {(turn.branch, turn.slot): turn for turn in around}
        texts = {record.seq: record for record in known}
        missing = [turn.seq for turn in around if turn.seq not in texts]
        if missing:
            fetched = yield from call(log.fetch, scope, missing)
            texts.update((record.seq, record) for record in fetched)
        for record in known:
            slots = range(record.slot - TURNS_BEFORE, record.slot)
            turns = (places.get((record.branch, slot)) for slot in slots)
            before[record.seq] = "".join(
                f"{document_text(texts[turn.seq])}\n"
                for turn in turns
                if turn is not None and turn.session == record.session and turn.seq in texts
            )
    return [before[record.seq] for record in records]
