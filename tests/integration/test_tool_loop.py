"""One turn's tool loop: what was sent stands, and only old tool results give way."""

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextBudget, ContextManager, PreparedContext, Scope
from langchain_ctxmgr.records import ItemKind
from tests.histories import assert_valid

SCOPE = Scope(tenant_id="acme", thread_id="loop")
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
QUESTION = HumanMessage("Which harbour ledger was number 7, and who signed it?", id="question")
WORDS = ["harbour", "ledger", "violin", "meadow", "invoice", "glacier", "basil", "turbine"]
LOOKUP = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a ledger up.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}},
    },
}


def said(rng: random.Random, number: int, words: int) -> str:
    return f"{' '.join(rng.choices(WORDS, k=words))} number {number}."


def talk(manager: ContextManager, turns: int) -> None:
    rng = random.Random(5)
    for turn in range(turns):
        manager.record(
            [
                HumanMessage(said(rng, turn, 30), id=f"q{turn}"),
                AIMessage(said(rng, turn, 60), id=f"a{turn}"),
            ],
            scope=SCOPE,
            at=START + timedelta(minutes=turn),
        )


def one_round(rng: random.Random, step: int, sizes: list[int]) -> list[BaseMessage]:
    """A message with one call for each of `sizes`, and the results."""
    ids = [f"c{step}-{place}" for place in range(len(sizes))]
    calls = [{"name": "lookup", "args": {"n": step}, "id": one} for one in ids]
    return [
        AIMessage("", tool_calls=calls, id=f"t{step}"),
        *(
            ToolMessage(said(rng, step, size), tool_call_id=one, id=f"r{one}")
            for one, size in zip(ids, sizes, strict=True)
        ),
    ]


def as_bytes(messages: list[BaseMessage]) -> list[str]:
    return [json.dumps(message.model_dump(), sort_keys=True, default=str) for message in messages]


def frame(context: PreparedContext) -> list[str]:
    """Everything up to and with the question and what was recalled for it."""
    place = next(i for i, message in enumerate(context.messages) if message.id == QUESTION.id)
    return as_bytes(context.messages[: place + 1])


def traffic(context: PreparedContext) -> list[str]:
    return as_bytes(context.messages)[len(frame(context)) :]


def clock_of(instants: list[datetime]):
    return lambda: instants[-1]


def opened(folder: Path | None, model: str = "gpt-4o-mini", **settings) -> ContextManager:
    settings.setdefault("clock", lambda: START + timedelta(hours=3))
    return ContextManager.open(folder, model=model, **settings)


@pytest.mark.parametrize("max_tokens", [900, 2_000, 7_000, 9_000])
def test_60_steps_change_nothing_but_old_results(max_tokens):
    rng = random.Random(11)
    compactions = 0
    with opened(None) as manager:
        talk(manager, 60)
        manager.record(QUESTION, scope=SCOPE)
        first: list[str] = []
        before: list[str] = []
        for step in range(60):
            context = manager.prepare(
                scope=SCOPE, query=QUESTION, max_tokens=max_tokens, tools=[LOOKUP]
            )
            assert context.tokens <= max_tokens
            assert_valid(context.messages, question=QUESTION)
            first = first or frame(context)
            assert frame(context) == first
            now = traffic(context)
            compactions += now[: len(before)] != before
            before = now
            sizes = rng.choice([[5], [12, 3], [8, 8, 8], [rng.choice([60, 400, 3_000])], [30, 900]])
            manager.record(one_round(rng, step, sizes), scope=SCOPE)
        history = manager.history(scope=SCOPE)
    assert len(history) > 240
    assert 1 <= compactions <= 30
    if max_tokens < 9_000:
        assert "<recalled" in first[-1]


@pytest.mark.parametrize("max_tokens", [900, 2_000, 9_000])
def test_without_tools_named_recalled_text_gives_way_once_and_stays_away(max_tokens):
    rng = random.Random(11)
    with opened(None) as manager:
        talk(manager, 60)
        manager.record(QUESTION, scope=SCOPE)
        frames: list[list[str]] = []
        for step in range(20):
            context = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=max_tokens)
            assert context.tokens <= max_tokens
            assert_valid(context.messages, question=QUESTION)
            if not frames or frame(context) != frames[-1]:
                frames.append(frame(context))
            manager.record(one_round(rng, step, [rng.choice([5, 40, 3_000])]), scope=SCOPE)
    assert len(frames) <= 2
    assert frames[-1][:-1] == frames[0][:-1]


def test_each_step_may_run_in_another_process_that_knows_more_of_the_model(tmp_path):
    """Each opens the folder anew, forgets what the last one learnt, and learns other things."""
    rng = random.Random(3)
    model = "claude-3-5-sonnet-latest"
    with opened(tmp_path, model) as manager:
        talk(manager, 60)
        manager.record(QUESTION, scope=SCOPE)
    first: list[str] = []
    for step in range(8):
        with opened(tmp_path, model) as manager:
            other = Scope(tenant_id="acme", thread_id="other")
            for number in range(step):
                counted = manager.prepare(scope=other, query=f"{said(rng, number, 80)}").tokens
                usage = {
                    "input_tokens": counted * 2,
                    "output_tokens": 1,
                    "total_tokens": counted * 2 + 1,
                }
                manager.record(AIMessage("ok", usage_metadata=usage), scope=other)
            context = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000, tools=[LOOKUP])
            first = first or frame(context)
            assert frame(context) == first
            manager.record(one_round(rng, step, [40, 200]), scope=SCOPE)


def test_other_tools_and_a_later_clock_leave_the_frame_alone():
    instants = [START + timedelta(hours=1)]
    rng = random.Random(3)
    with opened(None, clock=clock_of(instants)) as manager:
        talk(manager, 60)
        first = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000, tools=[LOOKUP])
        instants.append(START + timedelta(hours=30))
        manager.record([QUESTION, *one_round(rng, 0, [20])], scope=SCOPE)
        last = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000)
    assert frame(first) == frame(last)
    assert last.sections[ItemKind.RECALLED] > 0


class Embedder(DeterministicFakeEmbedding):
    fails: bool = False

    def embed_query(self, text):
        if self.fails:
            raise ConnectionError("the embedding service is down")
        return super().embed_query(text)


def test_what_was_not_recalled_at_first_does_not_come_in_the_middle(monkeypatch):
    monkeypatch.setattr("langchain_ctxmgr.memory.breaker.REST_SECONDS", 0.0)
    embedder = Embedder(size=16)
    question = HumanMessage("zzz qqq xxx", id="question")
    rng = random.Random(3)
    with opened(None, embeddings=embedder) as manager:
        talk(manager, 60)
        manager.record(question, scope=SCOPE)
        embedder.fails = True
        first = manager.prepare(scope=SCOPE, query=question, max_tokens=2_000, tools=[LOOKUP])
        assert first.sections[ItemKind.RECALLED] == 0
        embedder.fails = False
        manager.record(one_round(rng, 0, [20]), scope=SCOPE)
        then = manager.prepare(scope=SCOPE, query=question, max_tokens=2_000, tools=[LOOKUP])
        assert as_bytes(then.messages)[: len(first.messages)] == as_bytes(first.messages)
        other = question.model_copy(update={"id": "another"})
        manager.record([AIMessage("So."), other], scope=SCOPE)
        anew = manager.prepare(scope=SCOPE, query=other, max_tokens=2_000, tools=[LOOKUP])
        assert anew.sections[ItemKind.RECALLED] > 0


def big_call(step: int, words: int) -> list[BaseMessage]:
    """A call whose own arguments are long: nothing of it can be cut."""
    call = {"name": "lookup", "args": {"text": "word " * words}, "id": f"big{step}"}
    return [
        AIMessage("", tool_calls=[call], id=f"tb{step}"),
        ToolMessage("done", tool_call_id=f"big{step}", id=f"rb{step}"),
    ]


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (1_400, {ItemKind.RECALLED}),
        (1_620, {ItemKind.RECALLED, ItemKind.SUMMARY}),
        (1_700, {ItemKind.RECALLED, ItemKind.SUMMARY, ItemKind.HISTORY}),
    ],
)
def test_the_frame_gives_way_once_and_part_by_part_to_a_call_that_cannot_be_cut(
    tmp_path, words, gone
):
    rng = random.Random(3)
    seen: list[PreparedContext] = []
    budget = ContextBudget.for_model("gpt-4o-mini", summary_share=0.05)
    with opened(tmp_path) as manager:
        talk(manager, 60)
        manager.record(QUESTION, scope=SCOPE)
    for step, messages in enumerate(
        [one_round(rng, 0, [20]), big_call(1, words), *(one_round(rng, n, [9]) for n in (2, 3, 4))]
    ):
        with opened(tmp_path, budget=budget) as manager:
            context = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_200, tools=[LOOKUP])
            assert context.tokens <= 2_200
            assert_valid(context.messages, question=QUESTION)
            seen.append(context)
            manager.record(messages, scope=SCOPE)
            assert step != 2 or "big1" in traffic(context)[-1]
    assert frame(seen[0]) == frame(seen[1])
    kinds = (ItemKind.RECALLED, ItemKind.SUMMARY, ItemKind.HISTORY)
    assert all(seen[1].sections[kind] for kind in kinds)
    assert {kind for kind in kinds if not seen[2].sections[kind]} == gone
    assert frame(seen[2]) == frame(seen[3]) == frame(seen[4])
    left = [item for item in seen[2].receipt.excluded if "gave way" in item.reason]
    assert {item.kind for item in left} == gone - {ItemKind.SUMMARY}


def test_a_full_history_gives_way_to_the_window():
    with opened(None) as manager:
        talk(manager, 12)
        manager.record(QUESTION, scope=SCOPE)
        whole = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_200)
        assert whole.preservation == 1.0
        manager.record(big_call(0, 900), scope=SCOPE)
        part = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_200)
    assert 0 < part.sections[ItemKind.HISTORY] < whole.sections[ItemKind.HISTORY]
    assert "big0" in traffic(part)[-1]


SUMMARIZED = ContextBudget(max_input_tokens=128_000, summary_share=0.05)
"""With a summary in small budgets too."""
DOG = HumanMessage("My dog is called Zanzibar, remember that.", id="dog")


def chat(manager: ContextManager, turns: int) -> None:
    """A fact, and short exchanges about something else."""
    manager.record(DOG, scope=SCOPE, at=START)
    for turn in range(turns):
        asked = HumanMessage(f"Tell me something about topic {turn} and the river.", id=f"q{turn}")
        told = AIMessage(f"Topic {turn} is about a boat, nothing else to say.", id=f"a{turn}")
        manager.record([asked, told], scope=SCOPE, at=START + timedelta(minutes=turn))


def test_what_a_full_history_gives_way_to_holds_what_the_question_needs(tmp_path):
    """And stays for the rest of the turn, in every process."""
    rng = random.Random(11)
    question = HumanMessage("What is my dog called? Look in the register.", id="question")
    seen: list[PreparedContext] = []
    with opened(tmp_path, budget=SUMMARIZED) as manager:
        chat(manager, 70)
        manager.record(question, scope=SCOPE)
    for messages in (one_round(rng, 0, [60] * 40), *(one_round(rng, n, [9]) for n in (1, 2, 3))):
        with opened(tmp_path, budget=SUMMARIZED) as manager:
            context = manager.prepare(scope=SCOPE, query=question, max_tokens=4_000, tools=[LOOKUP])
            assert context.tokens <= 4_000
            assert_valid(context.messages, question=question)
            seen.append(context)
            manager.record(messages, scope=SCOPE)
    whole, part = seen[:2]
    assert whole.preservation == 1.0
    kinds = (ItemKind.HISTORY, ItemKind.SUMMARY, ItemKind.RECALLED)
    assert all(part.sections[kind] for kind in kinds)
    assert part.sections[ItemKind.HISTORY] < whole.sections[ItemKind.HISTORY]
    assert "Zanzibar" in frame(part)[-1]
    assert frame(part) == frame(seen[2]) == frame(seen[3])


class Waiting(Embeddings):
    """Embeds a question once it is let go on."""

    model = "waiting"

    def __init__(self) -> None:
        self.asked, self.erased = threading.Event(), threading.Event()
        self._model = DeterministicFakeEmbedding(size=16)

    def embed_documents(self, texts):
        return self._model.embed_documents(texts)

    def embed_query(self, text):
        if "ledger" in text:
            self.asked.set()
            assert self.erased.wait(30)
        return self._model.embed_query(text)


def test_text_that_is_erased_while_a_view_waits_is_not_written_back(tmp_path):
    embedder = Waiting()
    views: list[PreparedContext] = []
    with opened(tmp_path, embeddings=embedder, budget=SUMMARIZED) as manager:
        chat(manager, 200)
        assert not embedder.asked.is_set()

        def prepare():
            views.append(manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000))

        thread = threading.Thread(target=prepare)
        thread.start()
        try:
            assert embedder.asked.wait(30)
            manager.forget(scope=SCOPE)
        finally:
            embedder.erased.set()
            thread.join()
        assert views[0].sections[ItemKind.SUMMARY] > 0
        assert "Zanzibar" in str(views[0].messages)
        assert manager.forget(scope=SCOPE).derived == 0
        assert not manager._views._frames._quotes._kept
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"Zanzibar" in path.read_bytes()] == []


def test_a_call_that_fits_nowhere_takes_nothing_with_it():
    with opened(None) as manager:
        talk(manager, 60)
        manager.record(QUESTION, scope=SCOPE)
        first = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000, tools=[LOOKUP])
        manager.record(big_call(0, 5_000), scope=SCOPE)
        then = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000, tools=[LOOKUP])
    assert as_bytes(then.messages) == as_bytes(first.messages)


def test_tools_are_left_room_beside_a_history_that_would_fill_it():
    with opened(None) as manager:
        talk(manager, 16)
        manager.record(QUESTION, scope=SCOPE)
        full = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=2_000)
        tight = full.tokens + 100
        context = manager.prepare(scope=SCOPE, query=QUESTION, max_tokens=tight, tools=[LOOKUP])
    assert full.preservation == 1.0
    assert context.tokens <= tight * 0.75
