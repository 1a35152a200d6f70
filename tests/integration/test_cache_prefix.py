"""Between two compactions each prompt extends the previous one, byte for byte."""

from __future__ import annotations

import json
import random

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextManager, Scope

SCOPE = Scope(tenant_id="acme", thread_id="long")
WORDS = [
    "harbour",
    "ledger",
    "violin",
    "meadow",
    "invoice",
    "glacier",
    "basil",
    "turbine",
    "lantern",
    "orchard",
    "memo",
]


def as_bytes(messages: list[BaseMessage]) -> list[str]:
    return [json.dumps(message.model_dump(), sort_keys=True, default=str) for message in messages]


def said(rng: random.Random, turn: int, words: int = 14) -> str:
    return f"{' '.join(rng.choices(WORDS, k=words))} number {turn}."


def before_last_turn(messages: list[BaseMessage]) -> list[str]:
    last_human = max(i for i, m in enumerate(messages) if isinstance(m, HumanMessage))
    return as_bytes(messages[:last_human])


@pytest.mark.parametrize("max_tokens", [2_000, 9_000])
def test_200_turns_keep_their_prefix_between_compactions(max_tokens):
    rng = random.Random(3)
    compactions = 0
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        previous: list[str] = []
        for turn in range(200):
            question = HumanMessage(said(rng, turn, 30), id=f"q{turn}")
            context = manager.prepare(
                scope=SCOPE, query=question, max_tokens=max_tokens, system="You are terse."
            )
            assert context.tokens <= max_tokens
            prefix = before_last_turn(context.messages)
            if prefix[: len(previous)] != previous:
                compactions += 1
            previous = prefix
            answer = AIMessage(said(rng, turn, 60), id=f"a{turn}")
            manager.record([question, answer], scope=SCOPE)
        total = manager.stats(scope=SCOPE)["log"]["records"]
    assert total == 400
    # A window that slid on every turn would break the prefix about 190 times.
    assert 1 <= compactions <= 200 // 3


def test_nothing_already_sent_changes_within_a_tool_loop():
    rng = random.Random(5)
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        for turn in range(60):
            manager.record(
                [
                    HumanMessage(said(rng, turn, 30), id=f"q{turn}"),
                    AIMessage(said(rng, turn, 60), id=f"a{turn}"),
                ],
                scope=SCOPE,
            )
        question = HumanMessage("Which harbour ledger was number 7?", id="question")
        manager.record([question], scope=SCOPE)
        sent: list[str] = []
        for step in range(6):
            context = manager.prepare(scope=SCOPE, query=question, max_tokens=2_000, tools=[LOOKUP])
            now = as_bytes(context.messages)
            assert now[: len(sent)] == sent
            sent = now
            call = {"name": "lookup", "args": {"n": step}, "id": f"c{step}"}
            manager.record(
                [
                    AIMessage("", tool_calls=[call], id=f"t{step}"),
                    ToolMessage(said(rng, step, 20), tool_call_id=f"c{step}", id=f"r{step}"),
                ],
                scope=SCOPE,
            )


LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a ledger up.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}


def test_the_same_log_question_budget_and_clock_give_the_same_bytes(tmp_path):
    seen: list[list[str]] = []
    for name in ("one", "two"):
        rng = random.Random(9)
        with ContextManager.open(tmp_path / name, model="gpt-4o-mini") as manager:
            for turn in range(80):
                manager.record(
                    [
                        HumanMessage(said(rng, turn), id=f"q{turn}"),
                        AIMessage(said(rng, turn, 40), id=f"a{turn}"),
                    ],
                    scope=SCOPE,
                )
            context = manager.prepare(
                scope=SCOPE, query="What of the violin number 12?", max_tokens=900
            )
            again = manager.prepare(
                scope=SCOPE, query="What of the violin number 12?", max_tokens=900
            )
        as_sent = [m.content for m in context.messages]
        assert as_sent == [m.content for m in again.messages]
        assert context.prefix_digest == again.prefix_digest
        seen.append([str(content) for content in as_sent])
    # The log's own times differ by the clock; nothing here shows more than the day.
    assert seen[0] == seen[1]
