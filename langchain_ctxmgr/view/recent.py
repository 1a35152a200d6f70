"""The newest part of a conversation, for hosts that put a history ahead of the question.

Unlike a view it knows no question: nothing is recalled for one. It opens with a user message,
holds calls only with their results, and its start moves rarely.
"""

from __future__ import annotations

from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.layout import assemble
from langchain_ctxmgr.prompt.validity import asked_by, role_of
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import find_turn
from langchain_ctxmgr.view.history import full_history, recent_window


def recent(
    log: MessageLog, scope: Scope, limit_tokens: int, counter: TokenCounter
) -> Plan[list[BaseMessage]]:
    """The newest messages of a thread in `limit_tokens`, system messages apart.

    A tool loop that waits for the model or for results stands at the end, whatever it takes.
    """
    branch = yield from call(log.branch, scope)
    if branch.head is None:
        return []
    # With a question that is in no log all that is recorded stands before it.
    to_come = HumanMessage("", id=uuid4().hex)
    is_waiting = _waits(branch.head.message)
    turn = yield from find_turn(log, branch, None if is_waiting else to_come)
    loop = turn.messages if is_waiting else ()
    room = max(0, limit_tokens - sum(map(counter.message, loop)))
    window = yield from full_history(log, branch, turn, room, counter)
    if window is None:
        window = yield from recent_window(
            log, branch, turn, allowance=room, room=room, counter=counter
        )
    return assemble(summary=window.lead, history=window.messages, turn=loop)


def _waits(message: BaseMessage) -> bool:
    role = role_of(message)
    return role in {"tool", "function"} or (role == "ai" and bool(asked_by(message)))
