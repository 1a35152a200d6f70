"""What the commands open, record and show their progress with."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from langchain_ctxmgr.cli.options import DATA, MODEL
from langchain_ctxmgr.cli.servers import servers

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from langchain_ctxmgr.events import Event
    from langchain_ctxmgr.importers import Conversation
    from langchain_ctxmgr.manager import ContextManager
    from langchain_ctxmgr.records import Scope

_BATCH = 64
"""Messages recorded between two steps of the progress bar."""


@contextmanager
def opened(
    data: Path | None,
    *,
    model: str = MODEL,
    embeddings: str | None = None,
) -> Generator[ContextManager]:
    """A manager over the folder `data`, a temporary one, or the servers that are named."""
    from langchain_ctxmgr.manager import ContextManager

    if embeddings is not None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours is shown instead
    told: set[str] = set()

    def tell(event: Event) -> None:
        from langchain_ctxmgr.events import Degraded

        if isinstance(event, Degraded) and event.part not in told:
            told.add(event.part)
            typer.echo(f"note: {event.part}: {event.reason}; {event.fallback}", err=True)

    named = servers.get()
    with ExitStack() as stack:
        if named.log is None and named.vectors is None:
            manager = ContextManager.open(
                data, model=model, embeddings=embeddings, cache=named.cache, listeners=(tell,)
            )
        else:
            from langchain_ctxmgr.folder import log_in

            manager = ContextManager(
                log=named.log or stack.enter_context(log_in(data or DATA)),
                vectors=named.vectors,
                cache=named.cache,
                model=model,
                embeddings=embeddings,
                listeners=(tell,),
            )
        yield stack.enter_context(manager)


def existing(data: Path) -> Path:
    """`data`, where something was recorded: looking must not make an empty folder."""
    from langchain_ctxmgr.folder import LOG_FILE

    if servers.get().log is None and not (data / LOG_FILE).is_file():
        raise ValueError(f"nothing is recorded in {data}; --data names the folder")
    return data


def record_in(manager: ContextManager, conversation: Conversation, scope: Scope) -> int:
    """Record in batches; how many messages were new."""
    messages = _identified(conversation.messages)
    times = _without_gaps(conversation.at)
    appended = 0
    with progress("recording") as advance:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            at = times[start : start + _BATCH] if times else None
            appended += len(manager.record(batch, scope=scope, at=at))
            advance(start + len(batch), len(messages))
    return appended


def _identified(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages, each with an id, so that a file recorded twice is in the log once."""
    return [
        message
        if message.id
        else message.model_copy(update={"id": f"file-{_content_id(number, message)}"})
        for number, message in enumerate(messages)
    ]


def _content_id(number: int, message: BaseMessage) -> str:
    content = f"{number} {message!r}".encode("utf-8", "surrogatepass")
    return sha256(content).hexdigest()[:24]


def _without_gaps(times: Sequence[datetime | None]) -> list[datetime]:
    """The times, with the nearest earlier one where a message has none; empty without any."""
    known = next((at for at in times if at is not None), None)
    filled: list[datetime] = []
    for at in times:
        known = at or known
        if known is not None:
            filled.append(known)
    return filled


@contextmanager
def progress(label: str) -> Generator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal: told `(done, total)`."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
