"""Between two compactions each prompt extends the previous one, byte for byte."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextManager, Scope

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
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
        history = manager.history(scope=SCOPE)
        spoken = manager.analyze(history, max_tokens=max_tokens).current_tokens
    assert len(history) == 400
    # A live window moves in steps of half its 40 %: never more often than that, and the
    # change from the full history to the window is one move more.
    assert 1 <= compactions <= spoken / (0.19 * max_tokens) + 1


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
    asked = datetime(2026, 9, 1, tzinfo=UTC)
    questions = ("What of the violin number 12?", "the harbour memo", "ledger, basil and glacier")
    seen: list[list[str]] = []
    for name in ("one", "two", "three"):
        rng = random.Random(9)
        with ContextManager.open(
            tmp_path / name, model="gpt-4o-mini", clock=lambda: asked
        ) as manager:
            messages = [
                kind(said(rng, turn, rng.randint(3, 9)), id=f"{kind.__name__}{turn}")
                for turn in range(1_500)
                for kind in (HumanMessage, AIMessage)
            ]
            moments = [START + timedelta(minutes=turn) for turn in range(len(messages))]
            manager.record(messages, scope=SCOPE, at=moments)
            views = [
                manager.prepare(scope=SCOPE, query=question, max_tokens=900)
                for question in questions
            ]
        seen.append([str(m.content) for view in views for m in view.messages])
    assert seen[0] == seen[1] == seen[2]


def test_what_an_answer_teaches_changes_nothing_before_the_next_turn(tmp_path):
    rng = random.Random(4)
    usage = {"input_tokens": 900, "output_tokens": 5, "total_tokens": 905}
    with ContextManager.open(tmp_path, model="claude-3-5-sonnet-latest") as manager:
        for turn in range(60):
            manager.record(
                [HumanMessage(said(rng, turn, 30)), AIMessage(said(rng, turn, 60))], scope=SCOPE
            )
        question = HumanMessage("Which harbour ledger was number 7?", id="question")
        manager.record(question, scope=SCOPE)
        sent: list[str] = []
        for step in range(3):
            context = manager.prepare(scope=SCOPE, query=question, max_tokens=1_500, tools=[LOOKUP])
            now = as_bytes(context.messages)
            assert now[: len(sent)] == sent
            sent = now
            call = {"name": "lookup", "args": {"n": step}, "id": f"c{step}"}
            manager.record(
                [
                    AIMessage("", tool_calls=[call], id=f"t{step}", usage_metadata=usage),
                    ToolMessage("found", tool_call_id=f"c{step}", id=f"r{step}"),
                ],
                scope=SCOPE,
            )
