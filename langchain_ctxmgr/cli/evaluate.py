"""`ctxmgr evaluate`: how well recall does, on one's own logs and with needles."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from langchain_ctxmgr.cli import output
from langchain_ctxmgr.cli.opening import existing, opened, progress
from langchain_ctxmgr.cli.options import DATA, MODEL, Data, Embeddings, Json, Model, Tenant

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_ctxmgr.evaluation import EvidenceReport, NeedleReport, RecallFigures

app = typer.Typer(help="Measure how well recall does.", no_args_is_help=True)

_BUDGETS = [500, 1_000, 2_000, 4_000]
_TENANT = "evaluation"
"""Of the haystacks, which are forgotten at the end."""


@app.command()
def recall(
    questions: Annotated[
        Path,
        typer.Argument(
            metavar="QUESTIONS",
            help='JSON Lines: {"question": "…", "evidence": ["message id", …]}, and optional '
            "thread_id, category and adversarial.",
        ),
    ],
    *,
    tenant: Tenant,
    thread: Annotated[
        str | None,
        typer.Option(
            "--thread", envvar="CTXMGR_THREAD", help="The conversation, where QUESTIONS names none."
        ),
    ] = None,
    max_tokens: Annotated[
        list[int] | None,
        typer.Option("--max-tokens", "-n", min=1, help="A budget; may be given several times."),
    ] = None,
    data: Data = DATA,
    model: Model = MODEL,
    embeddings: Embeddings = None,
    as_json: Json = False,
) -> None:
    """Ask questions about what is recorded, and look for their evidence in the views."""
    from langchain_ctxmgr.evaluation import evidence_recall, read_questions
    from langchain_ctxmgr.records import Scope

    asked = read_questions(questions)
    with (
        opened(existing(data), model=model, embeddings=embeddings) as manager,
        progress("asking") as advance,
    ):
        report = evidence_recall(
            manager,
            asked,
            scope=Scope(tenant_id=tenant, thread_id=thread),
            max_tokens=max_tokens or _BUDGETS,
            progress=advance,
        )
    if as_json:
        output.print_json(_recall_json(report))
        return
    _show_recall(report)


@app.command()
def policies(
    questions: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help="JSON Lines, as for `recall`.")
    ],
    *,
    tenant: Tenant,
    thread: Annotated[
        str | None,
        typer.Option(
            "--thread", envvar="CTXMGR_THREAD", help="The conversation, where QUESTIONS names none."
        ),
    ] = None,
    max_tokens: Annotated[
        list[int] | None,
        typer.Option("--max-tokens", "-n", min=1, help="A budget; may be given several times."),
    ] = None,
    data: Data = DATA,
    model: Model = MODEL,
    embeddings: Embeddings = None,
    as_json: Json = False,
) -> None:
    """Compare ways to keep a part of a conversation: tokens, cost, evidence, importance."""
    from langchain_ctxmgr.evaluation import compare_policies, read_questions
    from langchain_ctxmgr.records import Scope

    asked = read_questions(questions)
    with (
        opened(existing(data), model=model, embeddings=embeddings) as manager,
        progress("asking") as advance,
    ):
        found = compare_policies(
            manager,
            asked,
            scope=Scope(tenant_id=tenant, thread_id=thread),
            max_tokens=max_tokens or _BUDGETS,
            model=model,
            progress=advance,
        )
    if as_json:
        output.print_json([{**asdict(each), "cost": _dollars(each.cost)} for each in found])
        return
    table = Table("policy", "budget", "tokens", "USD", "recall", "95 %", "importance", box=None)
    for each in found:
        low, high = each.recall.interval
        table.add_row(
            Text(each.policy),
            f"{each.max_tokens:,}",
            f"{each.tokens:,.0f}",
            _dollars(each.cost) or "unknown",
            f"{each.recall.recall:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{each.importance_kept:.3f}",
        )
    output.console().print(table)


def _dollars(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost:.6f}"


@app.command()
def needle(
    *,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="Budget of a view.")
    ] = 2_000,
    longest: Annotated[
        int, typer.Option("--longest", min=1, help="Tokens of the longest haystack.")
    ] = 128_000,
    lengths: Annotated[
        int, typer.Option("--lengths", min=1, help="How many, evenly spaced up to the longest.")
    ] = 8,
    depths: Annotated[
        int, typer.Option("--depths", min=1, help="How many, from the first message to the last.")
    ] = 15,
    haystack: Annotated[
        Path | None,
        typer.Option("--haystack", metavar="FILE", help="A conversation to use; else a made-up."),
    ] = None,
    chat_model: Annotated[
        str | None,
        typer.Option("--chat-model", help="Asked with each view: provider:name. Else none is."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw a heat map: .png, .svg or .pdf.")
    ] = None,
    model: Model = MODEL,
    embeddings: Embeddings = None,
    as_json: Json = False,
) -> None:
    """Hide facts at many depths of conversations of many lengths, and look for each."""
    from langchain_ctxmgr.evaluation import draw_heat_map, needle_in_haystack
    from langchain_ctxmgr.evaluation.picture import check_picture
    from langchain_ctxmgr.importers import read_conversation
    from langchain_ctxmgr.records import Scope

    if picture is not None:
        check_picture(picture)
    hay = None if haystack is None else read_conversation(haystack).messages
    chat = None if chat_model is None else _chat_model(chat_model)
    with (
        opened(None, model=model, embeddings=embeddings) as manager,
        progress("searching") as advance,
    ):
        report = needle_in_haystack(
            manager,
            scope=Scope(tenant_id=_TENANT),
            max_tokens=max_tokens,
            lengths=[max(1, longest * step // lengths) for step in range(1, lengths + 1)],
            depths=[step / max(depths - 1, 1) for step in range(depths)],
            haystack=hay,
            model=chat,
            progress=advance,
        )
    if picture is not None:
        draw_heat_map(report, picture)
    if as_json:
        output.print_json(_needle_json(report))
        return
    _show_needles(report)


def _chat_model(name: str) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            "--chat-model needs langchain: pip install 'langchain-ctxmgr[agents]'"
        ) from error
    return init_chat_model(name)


def _recall_json(report: EvidenceReport) -> dict[str, Any]:
    return {
        "budgets": {
            budget: {
                **_figures_json(report.figures(budget)),
                "adversarial": _figures_json(report.figures(budget, is_adversarial=True)),
                "categories": {
                    category: _figures_json(report.figures(budget, category=category))
                    for category in report.categories
                },
            }
            for budget in report.budgets
        },
        "over_budget": report.over_budget,
        "answers": [
            {
                **asdict(answer.question),
                "max_tokens": answer.max_tokens,
                "tokens": answer.tokens,
                "found": list(answer.found),
                "token_share": answer.token_share,
                "elapsed_ms": answer.elapsed.total_seconds() * 1e3,
            }
            for answer in report.answers
        ],
    }


def _figures_json(figures: RecallFigures | None) -> dict[str, Any]:
    return {"n": 0} if figures is None else asdict(figures)


def _show_recall(report: EvidenceReport) -> None:
    table = Table("questions", "n", "tokens", "recall", "95 %", "all gold", box=None)
    named: list[tuple[str, dict[str, Any]]] = [("all", {})]
    named += [(category, {"category": category}) for category in report.categories]
    named.append(("wrong premise", {"is_adversarial": True}))
    for name, chosen in named:
        for budget in report.budgets:
            found = report.figures(budget, **chosen)
            if found is not None:
                low, high = found.interval
                table.add_row(
                    Text(name),
                    str(found.n),
                    f"{budget:,}",
                    f"{found.recall:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    f"{found.all_gold:.3f}",
                )
    screen = output.console()
    screen.print(table)
    screen.print("recall: share of the gold messages that stand in the view, word for word")
    if report.over_budget:
        screen.print(f"{report.over_budget} views were over their budget and count as empty")


def _needle_json(report: NeedleReport) -> dict[str, Any]:
    return {
        "max_tokens": report.max_tokens,
        "found": report.found,
        "cells": [asdict(cell) for cell in report.cells],
    }


def _show_needles(report: NeedleReport) -> None:
    lengths = sorted({cell.length_tokens for cell in report.cells})
    found = {(cell.depth, cell.length_tokens): cell.is_found for cell in report.cells}
    table = Table("depth", *(f"{length:,}" for length in lengths), box=None)
    for depth in sorted({cell.depth for cell in report.cells}):
        marks = [
            Text("found", style="green") if found[depth, length] else Text("lost", style="red")
            for length in lengths
        ]
        table.add_row(f"{depth:.0%}", *marks)
    screen = output.console()
    screen.print(table)
    screen.print(f"{report.found} of {len(report.cells)} found in {report.max_tokens:,} tokens")
