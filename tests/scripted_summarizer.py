"""A chat model that summarizes by a script: honestly, or as wrongly as a test asks for.

It reads the question as a model would: the notes so far and the new messages, each under its
name. Honest, it keeps the notes so far and writes down each new message that holds a digit.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field, PrivateAttr

NAMED = re.compile(r"^\[([sm]\d+)\] ([^:]+): (.*)$", re.MULTILINE)


class Note(NamedTuple):
    """A line of the question."""

    name: str
    who: str
    """The speaker, or the kind of a note so far."""
    text: str


def notes_in(question: str) -> list[Note]:
    """The notes so far and the new messages of a question."""
    return [Note(*found) for found in NAMED.findall(question)]


def honest(question: str) -> str:
    """Every note so far, and each new message with a digit as it stands."""
    rows: list[dict[str, Any]] = []
    for note in notes_in(question):
        if note.name.startswith("s"):
            rows.append({"kind": note.who, "text": note.text, "sources": [note.name]})
        elif re.search(r"\d", note.text):
            who = {"user": "The user", "assistant": "The assistant"}.get(note.who, note.who)
            text = f"{who} said: {note.text}"
            rows.append({"kind": "fact", "text": text, "sources": [note.name]})
    return json.dumps(rows)


class ScriptedSummarizer(BaseChatModel):
    """Answers with what `script` makes of the question; counts what it was sent."""

    script: Callable[[str], str] = honest
    model_name: str = "gpt-4o-mini"
    questions: list[str] = Field(default_factory=list)
    configs: list[dict[str, Any]] = Field(default_factory=list)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "scripted-summarizer"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        question = str(messages[-1].content)
        with self._lock:
            self.questions.append(question)
            if run_manager is not None:
                self.configs.append({"tags": run_manager.tags, "metadata": run_manager.metadata})
        text = self.script(question)
        used = {
            "input_tokens": sum(len(str(m.content)) // 4 for m in messages),
            "output_tokens": len(text) // 4,
            "total_tokens": (sum(len(str(m.content)) for m in messages) + len(text)) // 4,
        }
        reply = AIMessage(text, usage_metadata=used)
        return ChatResult(generations=[ChatGeneration(message=reply)])
