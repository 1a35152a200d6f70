"""Options that several commands take, and what stands without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="OpenAI chat messages, serialised LangChain messages, a ChatGPT export or a "
        "LoCoMo file, as JSON or JSON Lines.",
    ),
]
Choice = Annotated[
    str | None,
    typer.Option("--conversation", help="Title or number, where FILE holds several."),
]
Data = Annotated[
    Path, typer.Option("--data", envvar="CTXMGR_DATA", help="Folder of the log and its index.")
]
Tenant = Annotated[
    str, typer.Option("--tenant", envvar="CTXMGR_TENANT", help="Whose conversations.")
]
Thread = Annotated[
    str, typer.Option("--thread", envvar="CTXMGR_THREAD", help="Which conversation.")
]
AnyThread = Annotated[
    str | None,
    typer.Option("--thread", envvar="CTXMGR_THREAD", help="Which conversation; all when left out."),
]
AnyUser = Annotated[
    str | None,
    typer.Option("--user", envvar="CTXMGR_USER", help="Whose; in all their threads."),
]
Model = Annotated[
    str,
    typer.Option("--model", envvar="CTXMGR_MODEL", help="Decides tokenizer, window and price."),
]
Embeddings = Annotated[
    str | None,
    typer.Option(
        "--embeddings",
        envvar="CTXMGR_EMBEDDINGS",
        help="sentence-transformers:<name or path>, sentence-transformers-onnx:<name or path> or "
        "openai:<name>; keyword recall without.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DATA = Path("ctxmgr-data")
MODEL = "gpt-4o-mini"
