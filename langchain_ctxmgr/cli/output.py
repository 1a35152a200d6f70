"""What the commands print: tables and panels for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from langchain_ctxmgr.cli.checks import Check
    from langchain_ctxmgr.demo import DemoAnswer
    from langchain_ctxmgr.importers import Conversation
    from langchain_ctxmgr.records import LogRecord, Memory, PreparedContext

_CLIPPED = 280
"""Characters of a text that a table shows."""

_EDGE_LINES = 4
"""Lines the demo shows of a long message's start, and of its end."""

_SAVED = "saved per 1,000"
"""One question saves fractions of a cent, so the demo shows what a thousand save."""

_STYLES = {"ok": "green", "degraded": "yellow", "broken": "red"}
_ROLES = {"human": "green", "ai": "cyan", "tool": "magenta", "system": "yellow"}


class _Said(NamedTuple):
    on: str
    text: str


def console() -> Console:
    """Standard output; plain and unwrapped by colour codes when it is not a terminal."""
    return Console(highlight=False)


def print_json(value: Any) -> None:
    """`value` as JSON; money and times as text."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_line(record: LogRecord) -> None:
    """A record as one line of JSON that `read_conversation` takes."""
    from langchain_core.messages import message_to_dict

    value = {**message_to_dict(record.message), "at": record.at.isoformat()}
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def context_json(context: PreparedContext) -> dict[str, Any]:
    """A prepared context; `messages` is in the form that `read_conversation` takes."""
    from langchain_core.messages import messages_to_dict

    return {
        "messages": messages_to_dict(context.messages),
        "tokens": context.tokens,
        "max_tokens": context.max_tokens,
        "exact": context.exact,
        "full_tokens": context.full_tokens,
        "risk": context.risk,
        "strategy": context.strategy,
        "cost_usd": context.cost,
        "elapsed_ms": _milliseconds(context),
        "prefix_digest": context.prefix_digest,
        "preservation": context.preservation,
        "sections": {str(kind): tokens for kind, tokens in context.sections.items()},
        "receipt": [{**asdict(item), "arms": dict(item.arms)} for item in context.receipt],
    }


def memory_json(memory: Memory) -> dict[str, Any]:
    """A recalled message."""
    return {**asdict(memory), "arms": dict(memory.arms), "at": memory.at.isoformat()}


def check_json(check: Check) -> dict[str, Any]:
    """One thing that `doctor` looked at."""
    return asdict(check)


def demo_json(
    answers: Sequence[DemoAnswer], *, recall: str, embeddings: str | None, model: str
) -> dict[str, Any]:
    """Every answer of the demo with its context."""
    return {
        "recall": recall,
        "embeddings": embeddings,
        "model": model,
        "answers": [
            {
                "question": answer.question.question,
                "answer": answer.question.answer,
                "evidence": [list(group) for group in answer.question.evidence],
                "found": list(answer.found),
                "saved_usd": answer.saved,
                **context_json(answer.context),
            }
            for answer in answers
        ],
    }


def show_memories(memories: Sequence[Memory]) -> None:
    """Recalled messages, the best first."""
    table = Table("score", "when", "who", "id", "text", box=None)
    for memory in memories:
        when = f"{memory.at:%Y-%m-%d %H:%M}"
        who = Text(memory.speaker or memory.role)
        text = Text(_clip(memory.text))
        table.add_row(f"{memory.score:.2f}", when, who, Text(memory.id), text)
    console().print(table if memories else "nothing found")


def show_record(screen: Console, record: LogRecord) -> None:
    """One record of the history."""
    revision = f", revision {record.revision}" if record.revision else ""
    title = f"{record.position} {record.at:%Y-%m-%d %H:%M} {_who(record.message)}{revision}"
    screen.print(Text(title, style=_ROLES.get(record.role, "bold")))
    screen.print(Text(_body(record.message)))


def show_checks(checks: Sequence[Check]) -> None:
    """What `doctor` found, and what to do about it."""
    table = Table("", "part", Column("found", overflow="fold"), box=None)
    for check in checks:
        found = Text(check.found)
        if check.mend:
            found.append(f"\n→ {check.mend}", style="bold")
        table.add_row(Text(check.state.value, style=_STYLES[check.state.value]), check.name, found)
    console().print(table)


def show_context(context: PreparedContext) -> None:
    """The context in full, what it took and why each item is in."""
    screen = console()
    screen.print(_view(context))
    screen.print(_receipt(context))
    screen.print(_account(context))


def show_demo(
    conversation: Conversation,
    answers: Sequence[DemoAnswer],
    *,
    recall: str,
    embeddings: str | None,
    model: str,
) -> None:
    """Per question: the smallest context that holds the answer, and what each budget gives."""
    screen = console()
    full = answers[0].context
    times = [at for at in conversation.at if at is not None]
    screen.print(Rule("A bike shop and its assistant, two months of it", style="bold"))
    screen.print(
        f"{len(conversation.messages)} messages from {times[0]:%d %b} to {times[-1]:%d %b %Y}, "
        f"about {full.full_tokens:,} tokens "
        f"({'counted' if full.exact else 'estimated: see `ctxmgr doctor`'}); prices of {model}"
    )
    screen.print(f"recall: {recall}{f' ({embeddings})' if embeddings else ''}")
    if embeddings is None:
        screen.print("an embedding model makes it better: `ctxmgr doctor` says how to get one")
    said = {
        message.id: _Said(f"{at:%d %b}", message.text)
        for message, at in zip(conversation.messages, conversation.at, strict=True)
        if at is not None and message.id is not None
    }
    for question, group in groupby(answers, key=lambda answer: answer.question.question):
        _show_question(screen, question, list(group), said)
    _show_total(screen, answers)


def _show_question(
    screen: Console, question: str, answers: Sequence[DemoAnswer], said: Mapping[str, _Said]
) -> None:
    shown = next((answer for answer in answers if answer.is_complete), answers[-1])
    screen.print()
    screen.print(Rule())
    screen.print(Text(question, style="bold"))
    evidence = [line for name in shown.found for line in said[name].text.splitlines() if line]
    screen.print(_view(shown.context, evidence))
    screen.print(Text(f"what was to be found: {shown.question.answer}"))
    table = Table("budget", "tokens", "of history", "evidence", "from", _SAVED, "time", box=None)
    for answer in answers:
        context = answer.context
        wanted = answer.question.evidence
        complete = "green" if answer.is_complete else "yellow"
        table.add_row(
            f"{context.max_tokens:,}",
            f"{context.tokens:,}",
            f"{context.tokens / context.full_tokens:.1%}",
            Text(f"{answer.pieces} of {len(wanted)}", style=complete),
            _origins(answer, said),
            _saved(answer.saved),
            f"{_milliseconds(context):.0f} ms",
        )
    screen.print(table)


def _show_total(screen: Console, answers: Sequence[DemoAnswer]) -> None:
    table = Table("budget", "questions with all evidence", _SAVED, "time", box=None)
    limits = sorted({answer.context.max_tokens for answer in answers})
    for limit in limits:
        rows = [answer for answer in answers if answer.context.max_tokens == limit]
        saved = [answer.saved for answer in rows if answer.saved is not None]
        table.add_row(
            f"{limit:,}",
            f"{sum(answer.is_complete for answer in rows)} of {len(rows)}",
            _saved(sum(saved, Decimal(0)) / len(rows) if len(saved) == len(rows) else None),
            f"{sum(_milliseconds(answer.context) for answer in rows):.0f} ms",
        )
    screen.print()
    screen.print(Rule("All questions", style="bold"))
    screen.print(table)


def _view(context: PreparedContext, evidence: Collection[str] | None = None) -> Panel:
    """The messages sent: in full, or abridged around the lines of `evidence`."""
    parts: list[Text] = []
    for message in context.messages:
        body = _body(message)
        parts.append(Text(_who(message), style=_ROLES.get(message.type, "bold")))
        parts.append(Text(body) if evidence is None else _abridged(body, evidence))
    title = f"{context.tokens:,} of {context.max_tokens:,} tokens"
    return Panel(Group(*parts), title=title, title_align="left")


def _receipt(context: PreparedContext) -> Table:
    table = Table("", "kind", "id", "tokens", "score", "why", box=None)
    for item in context.receipt:
        mark = Text("in", style="green") if item.included else Text("out", style="dim")
        score = "" if item.score is None else f"{item.score:.2f}"
        table.add_row(mark, item.kind, Text(item.id), str(item.tokens), score, Text(item.reason))
    return table


def _account(context: PreparedContext) -> str:
    counted = "" if context.exact else " (estimated)"
    return (
        f"{context.tokens:,} of {context.max_tokens:,} tokens{counted}, the whole history is "
        f"{context.full_tokens:,}; risk {context.risk}, {_dollars(context.cost)}, "
        f"{_milliseconds(context):.0f} ms, preserves {context.preservation:.0%}"
    )


def _origins(answer: DemoAnswer, said: Mapping[str, _Said]) -> str:
    """The messages that gave the evidence, by the section of the view they stand in."""
    sections: dict[str, list[str]] = {}
    for name in answer.found:
        sections.setdefault(_section(answer.context, name), []).append(f"{name} {said[name].on}")
    return "\n".join(f"{kind}: {', '.join(names)}" for kind, names in sections.items()) or "-"


def _section(context: PreparedContext, name: str) -> str:
    kinds = [item.kind for item in context.receipt if item.included and item.id == name]
    return kinds[0] if kinds else "summary"


def _who(message: BaseMessage) -> str:
    return f"{message.type} {message.name}" if message.name else message.type


def _body(message: BaseMessage) -> str:
    calls: list[dict[str, Any]] = getattr(message, "tool_calls", None) or []
    said = [message.text] if message.text else []
    called = [
        f"→ {call['name']} {json.dumps(call['args'], ensure_ascii=False, default=str)}"
        for call in calls
    ]
    return "\n".join(said + called)


def _abridged(text: str, evidence: Collection[str]) -> Text:
    """Where a text starts, where it ends, and its lines of evidence, these in bold."""
    found = text.splitlines()
    shown = Text()
    skipped = 0
    for number, line in enumerate(found):
        is_evidence = any(piece in line for piece in evidence)
        if not is_evidence and _EDGE_LINES <= number < len(found) - _EDGE_LINES:
            skipped += 1
            continue
        if skipped:
            shown.append(f"  … {skipped} more lines …\n", style="dim")
            skipped = 0
        shown.append(f"{_clip(line)}\n", style="bold" if is_evidence else "")
    return shown[:-1]


def _clip(text: str) -> str:
    return text if len(text) <= _CLIPPED else f"{text[:_CLIPPED]}…"


def _dollars(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"{amount:.5f} USD"


def _saved(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"{amount * 1_000:.2f} USD"


def _milliseconds(context: PreparedContext) -> float:
    return context.elapsed.total_seconds() * 1_000
