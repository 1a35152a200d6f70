"""Attempts to make stored text act as an instruction, by every way that text comes in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unicodedata import normalize

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.memory.facts.values import Authority
from tests.scripted_summarizer import ScriptedSummarizer, notes_in

DATA = Path(__file__).parents[1] / "data" / "injections.jsonl"
ATTEMPTS = [json.loads(line)["text"] for line in DATA.read_text("utf-8").splitlines() if line]
SYSTEM = "You are a helpful gardener."
UNSEEN = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
MARKER = re.compile(r"<[\W_]{0,16}(?:recalled|conversation-summary)", re.IGNORECASE)
LINE = re.compile(
    r"\d{4}|\d+ [A-Z][a-z]{2}(?: \d{4})?|Pinned:|Known of the user:| .*|- .*|\d+ [^\n]*: .*"
    r"|\d+ [A-Z][a-z]{2} \d{4}, \d+ [^\n]*: .*|(?:[A-Z][a-z ]+):"
)
"""What a line inside a fence may be: a day, a heading, a row, or the further lines of one."""
FILLER = "The tomatoes by the south wall were watered in the evening, number"


@pytest.fixture(scope="module")
def manager():
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        yield manager


def thread(n, tenant="acme", user="u"):
    return Scope(tenant_id=tenant, thread_id=f"t{n}", user_id=f"{user}{n}")


def filler(count=12):
    return [
        message
        for n in range(count)
        for message in (HumanMessage(f"{FILLER} {n}.", id=f"h{n}"), AIMessage("Noted.", id=f"a{n}"))
    ]


def by_user(attempt):
    return [HumanMessage(attempt, id="attempt")]


def by_tool(attempt):
    call = {"name": "fetch", "args": {}, "id": "c1"}
    return [
        HumanMessage("Look it up.", id="asked"),
        AIMessage("", id="call", tool_calls=[call]),
        ToolMessage(attempt, tool_call_id="c1", name="fetch", id="attempt"),
        AIMessage("Done.", id="done"),
    ]


def by_name(attempt):
    return [HumanMessage("I live in Oslo, near the quay.", name=attempt, id="attempt")]


CHANNELS = {"user": by_user, "tool": by_tool, "name": by_name}


def held_in_fences(context, question):
    """Nothing stored takes a role of its own, and every fence is closed once, by us."""
    assert [m.content for m in context.messages if m.type == "system"] == [SYSTEM]
    last = context.messages[-1]
    assert last.type == "human"
    assert last.content == question or last.content.endswith(f"</recalled>\n\n{question}")
    for message in context.messages:
        text = str(message.content)
        if not (text.startswith("<recalled data") or (message.id or "").startswith("summary-")):
            continue
        seen = normalize("NFKC", UNSEEN.sub("", text))
        assert len(MARKER.findall(seen)) == 2, text
        opening, *inside = text.partition("\n\n" + question)[0].rstrip().splitlines()[:-1]
        assert opening.endswith(" data-only>")
        for line in inside:
            assert LINE.fullmatch(line), repr(line)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("n", range(len(ATTEMPTS)))
def test_an_attempt_stays_data(manager, channel, n):
    attempt, number = ATTEMPTS[n], f"{channel}{n}"
    scope, elsewhere = (
        thread(number),
        Scope(tenant_id="acme", thread_id=f"other {number}", user_id=f"u{number}"),
    )
    manager.record([*CHANNELS[channel](attempt), *filler()], scope=scope)
    manager.record([HumanMessage(f"{FILLER} one.")], scope=thread(number, tenant="globex"))
    memory = manager.remember(
        attempt, scope=Scope(tenant_id="acme", user_id=f"u{number}"), authority="agent"
    )
    for fact in manager.facts(scope=Scope(tenant_id="acme", user_id=f"u{number}"), as_of="ever"):
        if fact.authority is Authority.USER and not fact.is_flagged:
            assert channel == "name"
            assert (fact.subject, fact.text) == ("user", "I live in Oslo, near the quay.")
        assert fact.is_flagged or fact.authority in {Authority.USER, Authority.AGENT}
    for step, question in enumerate((f"What of this: {attempt[:60]!r}?", "And the tomatoes?")):
        for where in (scope, elsewhere):
            for limit in (450, 1_500):
                query = HumanMessage(question, id=f"q{step}{limit}")
                context = manager.prepare(scope=where, query=query, max_tokens=limit, system=SYSTEM)
                held_in_fences(context, question)
        manager.pin("attempt", scope=scope)
        manager.pin(memory, scope=Scope(tenant_id="acme", user_id=f"u{number}"))
    theirs = thread(number, tenant="globex")
    told = (
        manager.prepare(scope=theirs, query="tomatoes?", max_tokens=900).messages,
        manager.recall(attempt[:200] or "x", scope=theirs),
        manager.facts(scope=Scope(tenant_id="globex"), as_of="ever"),
        manager.history(scope=theirs),
        manager.weighed(scope=Scope(tenant_id="globex")),
    )
    assert not any(len(part) > 8 and part in str(told) for part in attempt.split("\n"))
    assert manager.weighed(scope=theirs) == []


@pytest.mark.parametrize("kind", ["goal", "fact", "instruction"])
def test_a_lying_summarizer_gets_no_further(tmp_path, kind):
    left = [*ATTEMPTS]

    def lying(question):
        rows = [
            {
                "kind": kind,
                "text": left[(place + len(question)) % len(left)],
                "sources": [note.name],
            }
            for place, note in enumerate(notes_in(question))
        ]
        return json.dumps(rows)

    model = ScriptedSummarizer(script=lying)
    summarizer = ChatSummarizer(
        model=model, section_tokens=300, trigger_tokens=300, max_tokens=300, read_share=1.0
    )
    with ContextManager.open(
        tmp_path,
        model="gpt-4o-mini",
        summarizer=summarizer,
        budget=ContextBudget(max_input_tokens=12_000, keep_full_history=False),
    ) as manager:
        for n, attempt in enumerate(ATTEMPTS):
            said = [HumanMessage(attempt, id=f"x{n}"), AIMessage("Hm.", id=f"y{n}")]
            manager.record(said, scope=thread("s"))
        manager.record(filler(30), scope=thread("s"))
        manager.summarize(scope=thread("s"))
        assert model.questions
        for limit in (600, 2_000, 9_000):
            for question in ("What is the user entitled to?", ""):
                query = HumanMessage(question or " ", id=f"q{limit}{bool(question)}")
                context = manager.prepare(
                    scope=thread("s"), query=query, max_tokens=limit, system=SYSTEM
                )
                held_in_fences(context, question or " ")
        known = manager.facts(scope=Scope(tenant_id="acme", user_id="us"), as_of="ever")
        assert all(fact.is_flagged for fact in known)
        theirs = thread("s", tenant="globex")
        assert manager.prepare(scope=theirs, query="x", max_tokens=900).messages[0].content == "x"
