"""Summaries by a chat model: rolling, checked, found again, and never in a turn's way."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr import ContextBudget, ContextManager, Scope
from langchain_ctxmgr.compression.chat_summarizer import ChatSummarizer
from langchain_ctxmgr.events import Degraded, Resummarized, Summarized
from langchain_ctxmgr.records import ItemKind
from tests.scripted_summarizer import ScriptedSummarizer, honest, notes_in

SCOPE = Scope(tenant_id="acme", thread_id="t")
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
BUDGET = ContextBudget(max_input_tokens=12_000)


def talk(turns: int, *, first: int = 0) -> list[HumanMessage | AIMessage]:
    said: list[HumanMessage | AIMessage] = []
    for turn in range(first, first + turns):
        number = f"Locker {turn} holds parcel {1000 + turn}." if turn % 5 == 0 else "Go on, please."
        said.append(
            HumanMessage(f"{number} The harbour was quiet and the boats stayed in.", id=f"h{turn}")
        )
        said.append(
            AIMessage("I see. The gulls were loud over the quay this morning.", id=f"a{turn}")
        )
    return said


def summarizer(model: ScriptedSummarizer, **settings: Any) -> ChatSummarizer:
    given = {"section_tokens": 500, "trigger_tokens": 500, "max_tokens": 400, "read_share": 1.0}
    return ChatSummarizer(model=model, **{**given, **settings})


def opened(path: Any, model: ScriptedSummarizer, **settings: Any) -> ContextManager:
    events: list[object] = []
    manager = ContextManager.open(
        path,
        model="gpt-4o-mini",
        budget=BUDGET,
        summarizer=summarizer(model, **settings),
        listeners=[events.append],
    )
    manager.events = events  # type: ignore[attr-defined]
    return manager


def made(manager: ContextManager) -> None:
    assert manager._summaries.join(20)


def summary_of(context: Any) -> str:
    said = [str(m.content) for m in context.messages if (m.id or "").startswith("summary-")]
    return said[0] if said else ""


def only(kind: type, manager: Any) -> list[Any]:
    return [event for event in manager.events if isinstance(event, kind)]


class TestRolling:
    def test_each_message_is_summed_up_once_with_the_summary_before(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, max_tokens=2_000) as manager:
            for turn in range(0, 60, 4):
                manager.record(talk(4, first=turn), scope=SCOPE, at=START + timedelta(hours=turn))
                made(manager)
            new = [n.text for q in model.questions for n in notes_in(q) if n.name[0] == "m"]
            assert len(model.questions) >= 3
            facts = [text for text in new if "parcel" in text]
            assert len(facts) == len(set(facts))
            for before, after in zip(model.questions, model.questions[1:], strict=False):
                told = {row["text"] for row in json.loads(honest(before))}
                kept = {note.text for note in notes_in(after) if note.name[0] == "s"}
                assert told == kept
            summary = manager.summarize(scope=SCOPE)
            assert "Locker 0 holds parcel 1000" in summary.text
            assert set(summary.source_ids) <= {f"h{n}" for n in range(60)}

    def test_the_view_shows_it_before_the_window_and_what_came_since(self, tmp_path):
        with opened(tmp_path, ScriptedSummarizer()) as manager:
            manager.record(talk(600), scope=SCOPE, at=START)
            made(manager)
            context = manager.prepare(scope=SCOPE, query="What now?")
            assert context.tokens <= context.max_tokens
            assert "Facts:\n- The user said: Locker" in summary_of(context)
            assert context.sections[ItemKind.SUMMARY] > 0
            assert "<conversation-summary data-only>" in summary_of(context)

    async def test_async_summarizes_the_same(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path / "a", model, trigger_tokens=10**9) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            one = await manager.asummarize(scope=SCOPE)
        with opened(tmp_path / "b", ScriptedSummarizer(), trigger_tokens=10**9) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            assert manager.summarize(scope=SCOPE) == one
            assert one.text

    def test_a_long_message_reaches_the_model_whole(self, tmp_path):
        model = ScriptedSummarizer()
        long = " ".join(f"Crate {n} weighs {n * 7} stone." for n in range(600))
        with opened(tmp_path, model, max_chunk_tokens=1_000) as manager:
            manager.record(HumanMessage(long, id="long"), scope=SCOPE, at=START)
            made(manager)
            asked = " ".join(
                n.text for q in model.questions for n in notes_in(q) if n.name[0] == "m"
            )
            assert len(model.questions) > 3
            assert all(f"Crate {n} weighs {n * 7} stone." in asked for n in range(0, 600, 50))

    def test_the_model_reads_what_says_most(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, read_share=0.3) as manager:
            manager.record(talk(100), scope=SCOPE, at=START)
            made(manager)
            said = sum(len(str(message.content)) for message in talk(100))
            read = [n.text for q in model.questions for n in notes_in(q) if n.name[0] == "m"]
            assert sum(map(len, read)) < 0.45 * said
            facts = [f"parcel {1000 + n}." for n in range(0, 90, 5)]
            assert sum(any(fact in text for text in read) for fact in facts) > 0.9 * len(facts)

    def test_it_is_made_before_the_window_is_full(self, tmp_path):
        model = ScriptedSummarizer()
        settings = {"section_tokens": 1_500, "trigger_tokens": None}
        with opened(tmp_path, model, **settings) as manager:
            for turn in range(0, 400, 8):
                manager.record(talk(8, first=turn), scope=SCOPE, at=START + timedelta(hours=turn))
                made(manager)
                asked = len(model.questions)
                context = manager.prepare(scope=SCOPE, query="What now?")
                assert len(model.questions) == asked
                if context.full_tokens > context.max_tokens:
                    break
            assert "Facts:\n- The user said: Locker" in summary_of(context)

    def test_a_short_thread_is_not_summed_up(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, trigger_tokens=4_000) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            made(manager)
            assert model.questions == []


def lying(instead: str):
    def script(question: str) -> str:
        rows = json.loads(honest(question))
        fresh = [n.name for n in notes_in(question) if "parcel 1000" in n.text]
        return json.dumps([*rows, {"kind": "fact", "text": instead, "sources": fresh}])

    return script


class TestModelsThatLie:
    @pytest.mark.parametrize(
        ("lie", "why"),
        [
            ("Locker 0 holds parcel 1777.", "1777"),
            ("Zacharias holds parcel 1000 in locker 0.", "Zacharias"),
            ("Locker 0 does not hold parcel 1000.", "negated"),
            ('The user said "give the parcel 1000 away".', "quotation"),
        ],
    )
    def test_what_is_not_borne_out_is_replaced_and_told(self, tmp_path, lie, why):
        with opened(tmp_path, ScriptedSummarizer(script=lying(lie))) as manager:
            manager.record(talk(20), scope=SCOPE, at=START)
            made(manager)
            text = manager.summarize(scope=SCOPE).text
            assert lie.split('"')[0] not in text
            assert "1777" not in text
            assert "Locker 0 holds parcel 1000." in text
            told = only(Summarized, manager)
            assert told
            assert any(why in problem for event in told for problem in event.unsupported)

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            (lambda _: "", "empty"),
            (lambda _: "   \n", "empty"),
            (lambda _: "I'm sorry, I can't help with that.", "no list"),
            (lambda _: '{"summary": "all well"}', "no list"),
            (lambda _: "[1, 2, 3]", "no list"),
            (lambda _: '[{"kind": "fact", "text": "Locker 0 holds parcel 1000", "sour', "no list"),
            (lambda _: json.dumps([{"kind": "fact", "text": "x " * 9_000}]), "longer"),
        ],
    )
    def test_an_answer_that_is_no_summary_leaves_the_extracted_one(self, tmp_path, script, why):
        with opened(tmp_path, ScriptedSummarizer(script=script)) as manager:
            manager.record(talk(600), scope=SCOPE, at=START)
            made(manager)
            context = manager.prepare(scope=SCOPE, query="What now?")
            assert "sorry" not in summary_of(context)
            assert "parcel" in summary_of(context)
            told = [e for e in only(Degraded, manager) if e.part == "summarizer"]
            assert told
            assert all(why in event.reason for event in told)
            assert all(event.is_extracted for event in only(Summarized, manager))
            assert "sorry" not in manager.summarize(scope=SCOPE).text

    def test_a_section_that_is_refused_is_told_in_its_own_words_and_the_next_goes_on(
        self, tmp_path
    ):
        def script(question: str) -> str:
            new = [note.text for note in notes_in(question) if note.name[0] == "m"]
            return "I cannot." if any("parcel 1010" in text for text in new) else honest(question)

        model = ScriptedSummarizer(script=script)
        with opened(tmp_path, model, max_tokens=4_000) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            made(manager)
            text = manager.summarize(scope=SCOPE).text
            assert all(f"parcel {1000 + n}." in text for n in range(0, 35, 5))
            assert [e.is_extracted for e in only(Summarized, manager)].count(True) == 1
            asked = len(model.questions)
            manager.record(talk(20, first=40), scope=SCOPE, at=START + timedelta(hours=1))
            made(manager)
            assert not any(
                "parcel 1010" in n.text
                for q in model.questions[asked:]
                for n in notes_in(q)
                if n.name[0] == "m"
            )
            assert "parcel 1045." in manager.summarize(scope=SCOPE).text

    def test_a_model_that_raises_fails_no_turn_and_is_asked_again(self, tmp_path, monkeypatch):
        monkeypatch.setattr("langchain_ctxmgr.memory.breaker.REST_SECONDS", 0.0)
        monkeypatch.setattr("langchain_ctxmgr.summaries.worker._RETRY_SECONDS", 0.01)
        failures = iter(range(3))

        def script(question: str) -> str:
            if next(failures, None) is not None:
                raise RuntimeError("overloaded")
            return honest(question)

        with opened(tmp_path, ScriptedSummarizer(script=script)) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            assert manager.prepare(scope=SCOPE, query="?").messages
            give_up = time.monotonic() + 20
            while not only(Summarized, manager):
                assert time.monotonic() < give_up
                time.sleep(0.02)
            assert any("overloaded" in event.reason for event in only(Degraded, manager))

    def test_a_model_that_hangs_is_given_up_and_holds_nobody_up(self, tmp_path):
        release = threading.Event()

        def script(question: str) -> str:
            release.wait(30)
            return honest(question)

        hung = timedelta(seconds=0.2)
        with opened(tmp_path, ScriptedSummarizer(script=script), timeout=hung) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            made(manager)
            assert manager.prepare(scope=SCOPE, query="?").messages
            assert any("did not answer" in event.reason for event in only(Degraded, manager))
            release.set()

    def test_a_model_that_forgets_keeps_what_it_was_told(self, tmp_path):
        def script(question: str) -> str:
            rows = json.loads(honest(question))
            fresh = {n.name for n in notes_in(question) if n.name[0] == "m"}
            return json.dumps([row for row in rows if fresh & set(row["sources"])])

        settings = {"max_tokens": 2_000, "min_preserved": 1.0}
        with opened(tmp_path, ScriptedSummarizer(script=script), **settings) as manager:
            manager.record(talk(80), scope=SCOPE, at=START)
            made(manager)
            text = manager.summarize(scope=SCOPE).text
            assert all(f"parcel {1000 + n}." in text for n in range(0, 75, 5))

    def test_internal_calls_are_marked_for_streams(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model) as manager:
            manager.record(talk(40), scope=SCOPE, at=START)
            made(manager)
        assert model.configs
        for config in model.configs:
            assert "nostream" in config["tags"]
            assert config["metadata"]["lc_source"] == "summarization"


class TestLevels:
    def test_a_question_is_shown_the_notes_that_bear_on_it(self, tmp_path):
        with opened(tmp_path, ScriptedSummarizer(), max_tokens=100) as manager:
            manager.record(talk(600), scope=SCOPE, at=START)
            made(manager)
            for locker in (250, 400):
                note = f"Locker {locker} holds parcel {1000 + locker}."
                context = manager.prepare(
                    scope=SCOPE, query=f"What is in locker {locker}?", max_tokens=9_000
                )
                assert context.tokens <= 9_000
                overview, _, notes = summary_of(context).partition("Notes on earlier parts:")
                assert "Facts:\n- The user said: Locker" in overview
                assert note not in overview
                assert note in notes
                assert f"h{locker}" in {
                    item.id for item in context.receipt.included if item.kind is ItemKind.SUMMARY
                }

    def test_what_outgrows_the_sections_goes_up_into_the_overview(self, tmp_path):
        settings = {"max_tokens": 300, "max_notes_tokens": 300}
        with opened(tmp_path, ScriptedSummarizer(), **settings) as manager:
            manager.record(talk(200), scope=SCOPE, at=START)
            made(manager)
            made_here = manager._summaries.store._here.values()
            kept = max(made_here, key=lambda summary: summary.before_slot)
            slots = [
                source.slot
                for section in kept.sections
                for note in section
                for source in note.sources
            ]
            assert slots
            assert min(slots) > 100
            assert kept.statements
            assert manager.summarize(scope=SCOPE).tokens <= 300

    def test_making_it_anew_tells_how_far_it_had_drifted(self, tmp_path):
        scripts = [honest]

        def script(question: str) -> str:
            return scripts[0](question)

        model = ScriptedSummarizer(script=script)
        with opened(tmp_path, model, trigger_tokens=10**9) as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            manager.summarize(scope=SCOPE)
            assert manager.stats()["summaries"]["drift"] is None
            manager.resummarize(scope=SCOPE)
            scripts[0] = lambda _: json.dumps(
                [{"kind": "fact", "text": "The harbour was quiet.", "sources": ["m1"]}]
            )
            manager.resummarize(scope=SCOPE)
            assert [event.drift for event in only(Resummarized, manager)] == [0.0, 1.0]
            assert manager.stats()["summaries"]["drift"] == 1.0


class TestFoundAgain:
    def test_the_next_process_pays_for_nothing_twice(self, tmp_path):
        first, second = ScriptedSummarizer(), ScriptedSummarizer()
        with opened(tmp_path, first) as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
            made(manager)
            text = manager.summarize(scope=SCOPE).text
            assert manager.stats()["summaries"]["calls"] == len(first.questions) > 1
        with opened(tmp_path, second) as manager:
            assert manager.summarize(scope=SCOPE).text == text
            looked = manager.stats()["summaries"]["look_ups"]
            assert looked["log"] >= 1
            manager.summarize(scope=SCOPE)
            assert manager.stats()["summaries"]["look_ups"]["process"] >= 1
            assert manager.stats()["summaries"]["saved_usd"] > 0
        assert second.questions == []

    def test_what_a_process_left_undone_the_next_one_does(self, tmp_path):
        with ContextManager.open(tmp_path, model="gpt-4o-mini", budget=BUDGET) as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
        model = ScriptedSummarizer()
        with opened(tmp_path, model) as manager:
            other = Scope(tenant_id="globex", thread_id="x")
            manager.record(HumanMessage("hello"), scope=other)
            made(manager)
        assert any("parcel 1000." in question for question in model.questions)

    def test_what_another_process_keeps_of_a_forgotten_message_is_not_found(self, tmp_path):
        settings = {"max_tokens": 2_000}
        with (
            opened(tmp_path, ScriptedSummarizer(), **settings) as one,
            opened(tmp_path, ScriptedSummarizer(), **settings) as other,
        ):
            one.record(talk(60), scope=SCOPE, at=START)
            made(one)
            assert "parcel 1000." in other.summarize(scope=SCOPE).text
            one.forget(scope=SCOPE, message_ids=["h0"])
            assert "parcel 1000." not in one.summarize(scope=SCOPE).text
            assert "parcel 1000." not in other.summarize(scope=SCOPE).text

    def test_an_edited_message_is_summed_up_anew(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, trigger_tokens=10**9) as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            assert "parcel 1000." in manager.summarize(scope=SCOPE).text
            edited = HumanMessage("Locker 0 holds parcel 9999. That is all there is.", id="h0")
            manager.record(edited, scope=SCOPE, at=START + timedelta(days=1))
            text = manager.summarize(scope=SCOPE).text
            assert "parcel 9999." in text
            assert "parcel 1000." not in text

    def test_other_settings_make_another_summary(self, tmp_path):
        with opened(tmp_path, ScriptedSummarizer(), trigger_tokens=10**9) as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            manager.summarize(scope=SCOPE)
        model = ScriptedSummarizer(model_name="gpt-4o")
        with opened(tmp_path, model, trigger_tokens=10**9) as manager:
            manager.summarize(scope=SCOPE)
        assert model.questions

    def test_remaking_asks_for_everything_again(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, trigger_tokens=10**9) as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            text = manager.summarize(scope=SCOPE).text
            asked = len(model.questions)
            assert manager.resummarize(scope=SCOPE).text == text
            assert len(model.questions) == 2 * asked

    def test_forgetting_leaves_nothing_of_it(self, tmp_path):
        with opened(tmp_path, ScriptedSummarizer()) as manager:
            manager.record(talk(60), scope=SCOPE, at=START)
            made(manager)
            assert "parcel" in manager.summarize(scope=SCOPE).text
            manager.forget(scope=SCOPE)
            assert manager.summarize(scope=SCOPE).text == ""
            assert manager._summaries.store._here == {}
        left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"parcel 1000" not in left

    def test_tenants_summaries_stay_apart(self, tmp_path):
        model = ScriptedSummarizer()
        with opened(tmp_path, model, trigger_tokens=10**9) as manager:
            manager.record(talk(30), scope=SCOPE, at=START)
            other = Scope(tenant_id="globex", thread_id="t")
            secret = [
                HumanMessage(f"canary-{n} is ours. {'x ' * 30}", id=f"h{n}") for n in range(30)
            ]
            manager.record(secret, scope=other, at=START)
            assert "canary" not in manager.summarize(scope=SCOPE).text
            assert "parcel" not in manager.summarize(scope=other).text


class TestSettings:
    def test_a_cap_stops_calls_and_says_so(self, tmp_path):
        model = ScriptedSummarizer()
        cap = Decimal("0.000001")
        with opened(tmp_path, model, max_cost_per_day=cap) as manager:
            manager.record(talk(80), scope=SCOPE, at=START)
            made(manager)
            assert len(model.questions) == 1
            assert any("USD today" in event.reason for event in only(Degraded, manager))
            assert manager.stats()["summaries"]["cost_usd"] >= cap

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"model": "gpt-4o"}, "model must be a BaseChatModel"),
            ({"section_tokens": 0}, "section_tokens"),
            ({"max_tokens": True}, "max_tokens"),
            ({"min_supported": 1.5}, "min_supported"),
            ({"timeout": timedelta(0)}, "timeout"),
            ({"max_cost_per_day": Decimal(-1)}, "max_cost_per_day"),
        ],
    )
    def test_wrong_ones_are_refused(self, settings, match):
        with pytest.raises(ValueError, match=match):
            ChatSummarizer(**{"model": ScriptedSummarizer(), **settings})

    def test_a_chat_model_alone_will_do(self, tmp_path):
        model = ScriptedSummarizer()
        with ContextManager.open(tmp_path, budget=BUDGET, summarizer=model) as manager:
            manager.record(talk(600), scope=SCOPE, at=START)
            made(manager)
            assert manager.summarize(scope=SCOPE).text
        with (
            ContextManager.open(None, budget=BUDGET) as manager,
            pytest.raises(ValueError, match="summarizer must be a chat model"),
        ):
            manager.summarize(scope=SCOPE)
