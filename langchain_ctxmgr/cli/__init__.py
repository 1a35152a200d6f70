"""The `ctxmgr` command: conversations in files and folders, from the shell.

Results go to standard output, progress and notes to standard error. With `--json` the
output is for programs. Errors are one line; the exit code is 1, or 2 for wrong usage.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from langchain_ctxmgr.cli import evaluate, memory, output
from langchain_ctxmgr.cli.opening import existing, opened, progress, record_in
from langchain_ctxmgr.cli.options import (
    DATA,
    MODEL,
    AnyThread,
    Choice,
    Data,
    Embeddings,
    File,
    Json,
    Model,
    Tenant,
    Thread,
)
from langchain_ctxmgr.cli.servers import Servers, servers


class _Commands(TyperGroup):
    """Turns expected errors into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, LookupError, ImportError, RuntimeError) as error:
            if type(error).__module__.startswith(("click.", "typer.")):
                raise
            typer.echo(f"error: {_reason(error)}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    help="Memory and context for conversations that outgrow the window.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

migrations = typer.Typer(help="Move what is kept to another place.", no_args_is_help=True)
app.add_typer(migrations, name="migrate")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(memory.app)

_FOLDER = "folder"
"""Where vectors are that are on no server."""


@app.callback()
def _start(  # pyright: ignore[reportUnusedFunction] - typer calls it
    log: Annotated[
        str | None,
        typer.Option(envvar="CTXMGR_LOG", help="postgresql://…; else the log in --data."),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(envvar="CTXMGR_VECTORS", help="http(s)://… of Qdrant; else those in --data."),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(envvar="CTXMGR_CACHE", help="redis://…; else inside the process."),
    ] = None,
) -> None:
    servers.set(Servers(log, vectors, cache))
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    quiet = logging.getLogger("langchain_ctxmgr")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False


@app.command()
def demo(
    *,
    model: Model = MODEL,
    embeddings: Embeddings = None,
    keyword_only: Annotated[
        bool, typer.Option("--keyword-only", help="Leave an installed embedding model alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Record a long conversation, ask it questions at several budgets, show what is sent."""
    from langchain_ctxmgr.cli.checks import installed_embeddings
    from langchain_ctxmgr.demo import SCOPE, answers, demo_conversation

    chosen = None if keyword_only else embeddings or installed_embeddings()
    conversation = demo_conversation()
    with opened(None, model=model, embeddings=chosen) as manager:
        record_in(manager, conversation, SCOPE)
        found = list(answers(manager, model=model))
    recall = "keyword and embeddings" if chosen else "keyword only"
    if as_json:
        output.print_json(output.demo_json(found, recall=recall, embeddings=chosen, model=model))
        return
    output.show_demo(conversation, found, recall=recall, embeddings=chosen, model=model)


@app.command()
def prepare(
    file: File,
    *,
    question: Annotated[str, typer.Option("--question", "-q", help="What is asked next.")],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="The budget; never exceeded.")
    ],
    model: Model = MODEL,
    embeddings: Embeddings = None,
    conversation: Choice = None,
    as_json: Json = False,
) -> None:
    """Show the context a model should see for a question about the conversation in FILE."""
    from langchain_core.messages import HumanMessage

    from langchain_ctxmgr.importers import read_conversation
    from langchain_ctxmgr.records import Scope

    read = read_conversation(file, conversation=conversation)
    scope = Scope(tenant_id="file", thread_id="file")
    with opened(None, model=model, embeddings=embeddings) as manager:
        record_in(manager, read, scope)
        context = manager.prepare(scope=scope, query=HumanMessage(question), max_tokens=max_tokens)
    if as_json:
        output.print_json(output.context_json(context))
        return
    output.show_context(context)


@app.command()
def record(
    file: File,
    *,
    tenant: Tenant,
    thread: Thread,
    data: Data = DATA,
    model: Model = MODEL,
    embeddings: Embeddings = None,
    conversation: Choice = None,
    as_json: Json = False,
) -> None:
    """Record the conversation in FILE; what is there already is not recorded twice."""
    from langchain_ctxmgr.importers import read_conversation
    from langchain_ctxmgr.records import Scope

    read = read_conversation(file, conversation=conversation)
    scope = Scope(tenant_id=tenant, thread_id=thread)
    with opened(data, model=model, embeddings=embeddings) as manager:
        appended = record_in(manager, read, scope)
    total = len(read.messages)
    if as_json:
        output.print_json({"messages": total, "appended": appended})
        return
    typer.echo(f"{appended} of {total} messages recorded in {data}; {total - appended} were there")


@app.command()
def recall(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    *,
    tenant: Tenant,
    thread: AnyThread = None,
    data: Data = DATA,
    k: Annotated[int, typer.Option("-k", min=1, help="How many at most.")] = 8,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", "-n", min=1, help="Their tokens at most.")
    ] = None,
    embeddings: Embeddings = None,
    as_json: Json = False,
) -> None:
    """Show the recorded messages that speak to QUERY, the best first."""
    from langchain_ctxmgr.records import Scope

    scope = Scope(tenant_id=tenant, thread_id=thread)
    with opened(existing(data), embeddings=embeddings) as manager:
        memories = manager.recall(query, scope=scope, k=k, max_tokens=max_tokens)
    if as_json:
        output.print_json([output.memory_json(memory) for memory in memories])
        return
    output.show_memories(memories)


@app.command()
def history(*, tenant: Tenant, thread: Thread, data: Data = DATA, as_json: Json = False) -> None:
    """Print everything ever recorded in a thread; as JSON Lines that FILE arguments take."""
    from langchain_ctxmgr.folder import log_in
    from langchain_ctxmgr.records import Scope

    console = output.console()
    scope = Scope(tenant_id=tenant, thread_id=thread)
    with closing(log_in(existing(data))) as log:
        entry = None
        for entry in log.history(scope):
            if as_json:
                output.print_line(entry)
            else:
                output.show_record(console, entry)
    if entry is None:
        typer.echo(f"note: nothing is recorded in thread {thread!r} of tenant {tenant!r}", err=True)


@app.command()
def verify(*, data: Data = DATA, as_json: Json = False) -> None:
    """Check the log for tampering and gaps; exit code 1 if there are any."""
    with opened(existing(data)) as manager:
        found = manager.verify()
    if as_json:
        output.print_json(
            {"records": found.records, "ok": found.ok, "problems": list(found.problems)}
        )
    else:
        for problem in found.problems:
            typer.echo(problem)
        typer.echo(f"{found.records} records, {'no problems' if found.ok else 'damaged'}")
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def reindex(*, data: Data = DATA, embeddings: Embeddings = None, as_json: Json = False) -> None:
    """Build the vectors anew from the log."""
    with (
        opened(existing(data), embeddings=embeddings) as manager,
        progress("indexing") as advance,
    ):
        done = manager.reindex(progress=advance)
    if as_json:
        output.print_json({"indexed": done.indexed, "remaining": done.remaining})
        return
    typer.echo(f"{done.indexed} records indexed")


@migrations.command()
def vectors(
    *,
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="A Qdrant server, or `folder` to move back."),
    ],
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="Where they are; the folder if left out.")
    ] = _FOLDER,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="CTXMGR_QDRANT_API_KEY", help="If not in the URL."),
    ] = None,
    data: Data = DATA,
    embeddings: Embeddings = None,
    as_json: Json = False,
) -> None:
    """Copy the vectors from the folder to a Qdrant server, or back. Broken off, run it again.

    Nothing may be recorded meanwhile. What is copied stays where it was.
    """
    from langchain_ctxmgr.cli.migrate import move_vectors

    if (to == _FOLDER) == (source == _FOLDER):
        raise ValueError("one of --to and --from must be a Qdrant URL, the other the folder")
    url = to if source == _FOLDER else source
    with progress("moving") as advance:
        moved = move_vectors(
            existing(data),
            url,
            api_key=api_key,
            embeddings=embeddings,
            is_back=to == _FOLDER,
            progress=advance,
        )
    if as_json:
        output.print_json(asdict(moved))
        return
    typer.echo(
        f"{moved.points} points of {moved.tenants} tenants are there, {moved.copied} of them "
        f"copied now; counted, and {moved.compared} compared"
    )


@app.command()
def doctor(
    *,
    data: Data = DATA,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the vocabularies that are missing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what works, what is degraded and how to mend it."""
    from langchain_ctxmgr.budget.vocabulary import download_vocabulary, has_vocabulary
    from langchain_ctxmgr.cli.checks import State, examine
    from langchain_ctxmgr.cli.servers import examine_servers

    if download:
        for name in ("o200k_base", "cl100k_base"):
            if not has_vocabulary(name):
                download_vocabulary(name)
    checks = [*examine(data), *examine_servers(servers.get())]
    if as_json:
        output.print_json([output.check_json(check) for check in checks])
    else:
        output.show_checks(checks)
    if any(check.state is State.BROKEN for check in checks):
        raise typer.Exit(1)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
