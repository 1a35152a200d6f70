"""Commands for what is known and remembered.

facts, learn, remember, pin, unpin, boost, mute, marks, export, expire, forget.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from langchain_ctxmgr.cli import output
from langchain_ctxmgr.cli.opening import existing, opened
from langchain_ctxmgr.cli.options import DATA, AnyThread, AnyUser, Data, Json, Tenant

if TYPE_CHECKING:
    from langchain_ctxmgr.records import Scope

app = typer.Typer()

Marked = Annotated[
    str, typer.Argument(metavar="ID", help="Of a message of the thread, or of a memory.")
]
Said = Annotated[str, typer.Argument(metavar="TEXT", help="A sentence that stands by itself.")]


@app.command()
def facts(
    query: Annotated[str | None, typer.Argument(help="Only what shares a word with it.")] = None,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", help="What held then, in local time.")
    ] = None,
    ever: Annotated[bool, typer.Option("--ever", help="Also what no longer holds.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Show what is known from what people said, with when it held and the message that says so."""
    from langchain_ctxmgr.exporting import fact_entry

    scope = _scope(tenant, user, thread)
    when = "ever" if ever else None if as_of is None else as_of.astimezone()
    with opened(existing(data)) as manager:
        found = manager.facts(query, scope=scope, as_of=when)
    if as_json:
        output.print_json([fact_entry(fact) for fact in found])
        return
    table = Table("since", "until", "who", "what", "said by", "message", box=None)
    for fact in found:
        flag = " (reads like an instruction)" if fact.is_flagged else ""
        table.add_row(
            "" if fact.valid_from is None else f"{fact.valid_from:%Y-%m-%d}",
            "" if fact.valid_until is None else f"{fact.valid_until:%Y-%m-%d}",
            Text(fact.subject),
            Text(f"{fact.relation} {fact.object}"),
            Text(f"{fact.authority}{flag}"),
            Text(fact.sources[-1].message_id),
        )
    output.console().print(table if found else "nothing is known")


@app.command()
def learn(
    text: Said,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """State a fact, of a user or else of a thread."""
    from langchain_ctxmgr.exporting import fact_entry

    scope = _scope(tenant, user, thread)
    with opened(data) as manager:
        found = manager.learn(text, scope=scope)
    if as_json:
        output.print_json([fact_entry(fact) for fact in found])
        return
    for fact in found:
        typer.echo(f"{fact.subject} {fact.relation} {fact.object}")


@app.command()
def remember(
    text: Said,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Save a memory, of a user or else of a thread; prints its id."""
    scope = _scope(tenant, user, thread)
    with opened(data) as manager:
        memory_id = manager.remember(text, scope=scope)
    if as_json:
        output.print_json({"memory": memory_id})
        return
    typer.echo(memory_id)


@app.command()
def pin(
    name: Marked,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
) -> None:
    """Show a message in every view of its thread, a memory in every view of its user."""
    with opened(existing(data)) as manager:
        manager.pin(name, scope=_scope(tenant, user, thread))


@app.command()
def unpin(
    name: Marked,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
) -> None:
    """Take a pin back."""
    with opened(existing(data)) as manager:
        manager.unpin(name, scope=_scope(tenant, user, thread))


@app.command()
def boost(
    name: Marked,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    weight: Annotated[
        float, typer.Option("--weight", help="1: as if never boosted; at most 16.")
    ] = 2.0,
    data: Data = DATA,
) -> None:
    """Have a message or memory recalled sooner, and kept longer."""
    with opened(existing(data)) as manager:
        manager.weigh(name, weight, scope=_scope(tenant, user, thread))


@app.command()
def mute(
    name: Marked,
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
) -> None:
    """Recall a message or memory no more; `boost --weight 1` takes that back."""
    with opened(existing(data)) as manager:
        manager.weigh(name, 0.0, scope=_scope(tenant, user, thread))


@app.command()
def marks(
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Show what is pinned, boosted or muted."""
    from langchain_ctxmgr.exporting import mark_entry

    with opened(existing(data)) as manager:
        found = manager.weighed(scope=_scope(tenant, user, thread))
    if as_json:
        output.print_json([mark_entry(mark) for mark in found])
        return
    table = Table("message", "thread", "pinned", "weight", "marked", box=None)
    for mark in found:
        table.add_row(
            Text(mark.message_id),
            Text(mark.thread_id),
            "yes" if mark.is_pinned else "",
            f"{mark.weight:g}",
            f"{mark.at:%Y-%m-%d}",
        )
    output.console().print(table if found else "nothing is marked")


def _scope(tenant: str, user: str | None, thread: str | None) -> Scope:
    from langchain_ctxmgr.records import Scope

    return Scope(tenant_id=tenant, user_id=user, thread_id=thread)


@app.command()
def export(
    *, tenant: Tenant, user: AnyUser = None, thread: AnyThread = None, data: Data = DATA
) -> None:
    """Print all that is kept of a user, else of a thread, else of a tenant, as JSON Lines."""
    scope = _scope(tenant, user, thread)
    with opened(existing(data)) as manager:
        for entry in manager.export(scope=scope):
            typer.echo(json.dumps(entry, ensure_ascii=False, default=str))


@app.command()
def expire(
    *,
    tenant: Tenant,
    days: Annotated[float, typer.Option("--days", help="Forget what is older.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Forget the threads of a tenant in which nothing was said for so many days."""
    from langchain_ctxmgr.records import Scope

    with opened(existing(data)) as manager:
        expiry = manager.expire(
            scope=Scope(tenant_id=tenant), keep=timedelta(days=days), dry_run=dry_run
        )
    if as_json:
        erased = 0 if expiry.receipt is None else expiry.receipt.messages
        output.print_json({"threads": list(expiry.threads), "messages": erased})
        return
    for thread in expiry.threads:
        typer.echo(thread)
    note = "would go" if dry_run else "forgotten"
    typer.echo(f"{len(expiry.threads)} threads {note}", err=True)


@app.command()
def forget(
    *,
    tenant: Tenant,
    user: AnyUser = None,
    thread: AnyThread = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="One memory of the user or thread, by its id.")
    ] = None,
    message: Annotated[
        list[str] | None,
        typer.Option("--message", help="One message of the thread, by its id; may be repeated."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option("--since", help="Said then or later, in local time.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", help="Said before then, in local time.")
    ] = None,
    matching: Annotated[
        str | None, typer.Option("--matching", help="What holds this text, whatever its case.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="In all of the tenant, where none is named.")
    ] = False,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Erase a thread, a user or single messages, with all that was made of them.

    Prints the receipt.
    """
    if everything == bool(user or thread):
        raise ValueError("name one of --thread, --user and --everything")
    scope = _scope(tenant, user, thread)
    with opened(existing(data)) as manager:
        receipt = manager.forget(
            scope=scope,
            memory=memory,
            message_ids=message or None,
            since=None if since is None else since.astimezone(),
            until=None if until is None else until.astimezone(),
            matching=matching,
        )
    if as_json:
        output.print_json({**asdict(receipt), "at": receipt.at.isoformat()})
        return
    typer.echo(
        f"erased {receipt.messages} messages, {receipt.vectors} vectors and {receipt.derived} "
        "things made of them"
    )
