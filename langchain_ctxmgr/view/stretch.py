"""The history as it was sent, from one compaction to the next.

A provider charges less for the beginning that a prompt shares with an earlier one. So a turn
takes over what the turn before it showed, byte for byte: its window, its summary, each earlier
question with what was recalled for it, and tool results as they were cut. What is new is put
behind. Only where the whole no longer fits does the window start anew, with much room left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.layout import with_recalled
from langchain_ctxmgr.prompt.turn import fit_rounds, is_speech, least_tokens
from langchain_ctxmgr.prompt.validity import Group
from langchain_ctxmgr.prompt.window import exchanges
from langchain_ctxmgr.records import Branch, LogRecord
from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.view.current_turn import CurrentTurn
from langchain_ctxmgr.view.history import Window, folded_history, window_of
from langchain_ctxmgr.view.settled import Earlier, Stretch


def stretch_of(window: Window, turn: CurrentTurn) -> Stretch | None:
    """The stretch that a window begins; None where a message of it is cut."""
    if not window.groups:
        return Stretch(turn.before_slot)
    if window.start_slot == turn.before_slot:
        return None
    first = window.records[window.groups[0].indexes[0]].slot
    return Stretch(window.start_slot, first if first < window.start_slot else None)


def stretch_window(
    log: MessageLog, branch: Branch, turn: CurrentTurn, stretch: Stretch, counter: TokenCounter
) -> Plan[Window | None]:
    """The stretch up to `turn`; None where a turn of it did not leave its frame in place."""
    records = yield from call(
        log.read, branch, from_slot=stretch.start, before_slot=turn.before_slot
    )
    if stretch.led_by is not None:
        led_by = stretch.led_by
        lead = yield from call(log.read, branch, from_slot=led_by, before_slot=led_by + 1)
        records = [*lead, *records]
    folded = folded_history(records, counter)
    runs = exchanges(folded.groups)
    if sum(map(len, runs)) < len(folded.groups):
        return None
    earlier = {each.id: each for each in stretch.earlier}
    shown = [_as_sent(run, records, earlier, counter) for run in runs]
    groups = list(chain.from_iterable(run for run in shown if run is not None))
    if None in shown or not groups:
        return None
    window = window_of(records, folded, groups, stretch.start, "goes on from the last prompt")
    return window._replace(earlier=stretch.earlier)


def traffic_tokens(window: Window) -> int:
    """What a turn of the window has of tool traffic, on average."""
    runs = exchanges(window.groups)
    total = sum(group.tokens for run in runs for group in _traffic(run))
    return total // max(1, len(runs))


def _traffic(run: Sequence[Group]) -> Sequence[Group]:
    """The rounds of a turn without what was said after the last of them."""
    last = max((place for place, group in enumerate(run) if not is_speech(group)), default=0)
    return run[1 : last + 1]


def _as_sent(
    run: Sequence[Group],
    records: Sequence[LogRecord],
    earlier: Mapping[str, Earlier],
    counter: TokenCounter,
) -> Sequence[Group] | None:
    """A question and its turn as they were sent; None where they took the frame's place."""
    sent = earlier.get(records[run[0].indexes[0]].message_id)
    if sent is None:
        return run
    question, traffic = run[0], _traffic(run)
    room = sent.turn_tokens - question.tokens
    rest = run[1 + len(traffic) :]
    if sum(group.tokens for group in traffic) > room:
        most = sum(group.tokens for group in run)
        least = least_tokens(run[: 1 + len(traffic)], most_tokens=most, counter=counter)
        if least > sent.turn_tokens:
            return None
        traffic = fit_rounds(traffic, room, counter)
    if sent.block:
        message = with_recalled(question.messages[0], sent.block)
        question = replace(question, messages=(message,), tokens=counter.message(message))
    return [question, *traffic, *rest]
