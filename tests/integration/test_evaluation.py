from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.demo import SCOPE, demo_conversation, demo_questions
from langchain_ctxmgr.evaluation import (
    EvidenceQuestion,
    Needle,
    aevidence_recall,
    aneedle_in_haystack,
    draw_heat_map,
    evidence_recall,
    generated_haystack,
    needle_in_haystack,
    picture,
)

TENANT = Scope(tenant_id="acme")
LENGTHS = (2_000, 6_000)
DEPTHS = (0, 0.25, 0.5, 0.75, 1)


@pytest.fixture
def manager() -> Iterator[ContextManager]:
    with ContextManager.open(None, model="gpt-4o-mini") as opened:
        yield opened


@pytest.fixture
def shop(manager: ContextManager) -> ContextManager:
    """A manager with the demo's conversation."""
    conversation = demo_conversation()
    times = [at for at in conversation.at if at is not None]
    manager.record(conversation.messages, scope=SCOPE, at=times)
    return manager


def shop_questions() -> list[EvidenceQuestion]:
    return [
        EvidenceQuestion(question=q.question, evidence=tuple(group[0] for group in q.evidence))
        for q in demo_questions()
    ]


class TestEvidenceRecall:
    def test_what_stands_in_the_view_is_found_and_more_of_it_at_more_tokens(
        self, shop: ContextManager
    ):
        report = evidence_recall(shop, shop_questions(), scope=SCOPE, max_tokens=(2_000, 300))
        assert report.budgets == (300, 2_000)
        few, many = report.figures(300), report.figures(2_000)
        assert few is not None
        assert many is not None
        assert few.n == many.n == len(shop_questions())
        assert few.recall < many.recall
        assert many.recall > 0.7
        for answer in report.answers:
            query = HumanMessage(answer.question.question)
            view = shop.prepare(scope=SCOPE, query=query, max_tokens=answer.max_tokens)
            shown = " ".join(" ".join(m.text for m in view.messages).split())
            for name in answer.question.evidence:
                said = shop.message(name, scope=SCOPE)
                assert said is not None
                assert (name in answer.found) == (" ".join(said.text.split()) in shown)

    def test_on_an_event_loop_it_is_the_same(self, shop: ContextManager):
        asked, budgets = shop_questions(), (300, 1_000)
        blocking = evidence_recall(shop, asked, scope=SCOPE, max_tokens=budgets)
        waiting = asyncio.run(aevidence_recall(shop, asked, scope=SCOPE, max_tokens=budgets))
        found = [[answer.found for answer in each.answers] for each in (blocking, waiting)]
        assert found[0] == found[1]

    def test_questions_name_their_threads_categories_and_wrong_premises(
        self, manager: ContextManager
    ):
        for thread in ("t1", "t2"):
            said = [HumanMessage(f"The code of {thread} is blue-{thread}.", id="m")]
            manager.record(said, scope=Scope(tenant_id="acme", thread_id=thread))
        asked = [
            EvidenceQuestion(question="Which code?", evidence=("m",), category="codes"),
            EvidenceQuestion(question="Which code?", evidence=("m",), thread_id="t2"),
            EvidenceQuestion(question="Which boat?", evidence=("m",), is_adversarial=True),
        ]
        scope = Scope(tenant_id="acme", thread_id="t1")
        report = evidence_recall(manager, asked, scope=scope, max_tokens=[500])
        assert report.categories == ("codes",)
        assert [answer.question.thread_id for answer in report.answers] == ["t1", "t2", "t1"]
        counted = [
            report.figures(500),
            report.figures(500, category="codes"),
            report.figures(500, is_adversarial=True),
            report.figures(500, category="boats"),
        ]
        assert [figures and figures.n for figures in counted] == [2, 1, 1, None]

    def test_a_view_over_its_budget_holds_nothing(self, shop: ContextManager):
        def heavy(messages: Sequence[BaseMessage]) -> int:
            return 10_000 * len(messages)

        report = evidence_recall(
            shop, shop_questions()[:2], scope=SCOPE, max_tokens=[2_000], token_counter=heavy
        )
        assert report.over_budget == 2
        assert [answer.found for answer in report.answers] == [(), ()]

    def test_a_question_that_does_not_fit_finds_nothing(self, shop: ContextManager):
        asked = [EvidenceQuestion(question="and then? " * 200, evidence=("m0016",))]
        (answer,) = evidence_recall(shop, asked, scope=SCOPE, max_tokens=[50]).answers
        assert (answer.found, answer.tokens) == ((), 0)

    def test_progress_is_told(self, shop: ContextManager):
        told: list[tuple[int, int]] = []
        evidence_recall(
            shop,
            shop_questions()[:2],
            scope=SCOPE,
            max_tokens=[300, 500],
            progress=lambda done, total: told.append((done, total)),
        )
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def test_nothing_is_recorded(self, shop: ContextManager):
        before = shop.history(scope=SCOPE)
        evidence_recall(shop, shop_questions()[:2], scope=SCOPE, max_tokens=[500])
        assert shop.history(scope=SCOPE) == before

    def test_evidence_that_is_not_there_is_named_before_anything_is_asked(
        self, shop: ContextManager
    ):
        asked = [*shop_questions(), EvidenceQuestion(question="Who?", evidence=("nobody",))]
        told: list[int] = []
        with pytest.raises(ValueError, match="'nobody' is no message of thread 'bike-shop'"):
            evidence_recall(shop, asked, scope=SCOPE, progress=lambda done, _: told.append(done))
        assert not told

    def test_evidence_without_text_is_named(self, manager: ContextManager):
        call = {"name": "weather", "args": {}, "id": "c1"}
        scope = Scope(tenant_id="acme", thread_id="t")
        manager.record(
            [HumanMessage("Dry?"), AIMessage("", tool_calls=[call], id="a")], scope=scope
        )
        asked = [EvidenceQuestion(question="Dry?", evidence=("a",))]
        with pytest.raises(ValueError, match="'a' of thread 't' has no text to look for"):
            evidence_recall(manager, asked, scope=scope)

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"questions": []}, "questions must hold at least one"),
            ({"questions": None}, "questions must be EvidenceQuestions, got None"),
            ({"questions": ["Who?"]}, "questions must be EvidenceQuestions, got 'Who"),
            ({"scope": None}, "scope must be a Scope"),
            ({"scope": Scope(thread_id="t")}, "tenant"),
            ({"max_tokens": 500}, "max_tokens must be a sequence of budgets, got 500"),
            ({"max_tokens": ()}, "max_tokens must hold at least one"),
            ({"max_tokens": [0]}, "max_tokens must be an int of at least 1, got 0"),
        ],
    )
    def test_a_wrong_argument_is_named(
        self, shop: ContextManager, wrong: dict[str, Any], says: str
    ):
        right: dict[str, Any] = {"questions": shop_questions()[:1], "scope": SCOPE}
        with pytest.raises(ValueError, match=says):
            evidence_recall(shop, **{**right, **wrong})


class TestNeedleInAHaystack:
    def test_every_needle_is_found_at_every_depth_and_length(self, manager: ContextManager):
        report = needle_in_haystack(manager, scope=TENANT, lengths=LENGTHS, depths=DEPTHS)
        assert len(report.cells) == len(LENGTHS) * len(DEPTHS) == report.found
        assert [(c.length_tokens, c.depth) for c in report.cells] == [
            (length, depth) for length in LENGTHS for depth in DEPTHS
        ]
        assert all(0 < cell.tokens <= report.max_tokens for cell in report.cells)

    def test_on_an_event_loop_it_is_the_same(self, manager: ContextManager):
        arguments: dict[str, Any] = {"scope": TENANT, "lengths": [2_000], "depths": [0, 1]}
        blocking = needle_in_haystack(manager, **arguments)
        assert asyncio.run(aneedle_in_haystack(manager, **arguments)) == blocking

    def test_a_view_too_small_for_it_has_lost_it(self, manager: ContextManager):
        long = Needle(text="So it was. " + "The owl flew on. " * 60, question="Owl?", answer="owl")
        report = needle_in_haystack(
            manager, scope=TENANT, lengths=[3_000], depths=[0.5], needles=[long], max_tokens=100
        )
        assert report.found == 0

    def test_one_needle_alone_stands_in_a_haystack_of_its_own_at_each_depth(
        self, manager: ContextManager
    ):
        needle = Needle(text="The owl is Ulla.", question="Who is the owl?", answer="ulla")
        seen: list[str] = []
        record = manager.record

        def watched(messages: Any, **arguments: Any) -> Any:
            seen.append("\n".join(message.text for message in messages))
            return record(messages, **arguments)

        manager.record = watched
        report = needle_in_haystack(
            manager, scope=TENANT, lengths=[1_000], depths=DEPTHS, needles=[needle]
        )
        assert [text.count(needle.text) for text in seen] == [1] * len(DEPTHS)
        places = [text.index(needle.text) for text in seen]
        assert places == sorted(places)
        assert len(set(places)) == len(places)
        assert report.found == len(DEPTHS)

    def test_a_chat_model_is_asked_with_each_view(self, manager: ContextManager):
        needles = [
            Needle(text="The owl is Ulla.", question="Who is the owl?", answer="ulla"),
            Needle(text="The hare is Hugo.", question="Who is the hare?", answer="hugo"),
        ]
        report = needle_in_haystack(
            manager,
            scope=TENANT,
            lengths=[1_000],
            depths=[0, 1],
            needles=needles,
            model=FakeListChatModel(responses=["It is ULLA.", "I cannot tell."]),
        )
        assert [cell.is_in_view for cell in report.cells] == [True, True]
        assert [cell.is_answered for cell in report.cells] == [True, False]
        assert report.found == 1

    def test_the_haystacks_are_forgotten_also_when_it_fails(self, manager: ContextManager):
        class Failing(FakeListChatModel):
            def _call(self, *args: Any, **kwargs: Any) -> str:
                raise RuntimeError("no quota")

        arguments: dict[str, Any] = {"scope": TENANT, "lengths": [1_000], "depths": [0.5]}
        needle_in_haystack(manager, **arguments)
        with pytest.raises(RuntimeError, match="no quota"):
            needle_in_haystack(manager, model=Failing(responses=["x"]), **arguments)
        assert manager.stats(scope=TENANT)["log"]["records"] == 0

    def test_a_conversation_of_ones_own_keeps_calls_and_results_together(
        self, manager: ContextManager
    ):
        call = {"name": "weather", "args": {}, "id": "c1"}
        hay = [
            HumanMessage("Dry tomorrow? " * 30),
            AIMessage("I look.", tool_calls=[call]),
            ToolMessage("Rain. " * 30, tool_call_id="c1"),
            AIMessage("It rains. " * 30),
        ]
        report = needle_in_haystack(
            manager, scope=TENANT, lengths=[150], depths=DEPTHS, haystack=hay
        )
        assert report.found == len(DEPTHS)
        assert hay[0].text == "Dry tomorrow? " * 30

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"scope": None}, "scope must be a Scope"),
            ({"max_tokens": 0}, "max_tokens must be an int of at least 1"),
            ({"lengths": []}, "lengths must be a sequence"),
            ({"lengths": [0]}, "lengths must be an int of at least 1, got 0"),
            ({"depths": [1.5]}, "depths must be numbers from 0 to 1, got 1.5"),
            ({"depths": "half"}, "depths must be a sequence"),
            ({"needles": ["owl"]}, "needles must be Needles"),
            ({"needles": []}, "needles must be a sequence"),
            ({"haystack": []}, "haystack must hold LangChain messages"),
            ({"haystack": ["a"]}, "haystack must hold LangChain messages"),
            ({"haystack": [HumanMessage("short")]}, "haystack has 1 tokens, lengths ask for"),
            ({"haystack": [ToolMessage("x " * 2_000, tool_call_id="c")]}, "plain text"),
            ({"model": "gpt-4o"}, "model must be a BaseChatModel"),
        ],
    )
    def test_a_wrong_argument_is_named_before_anything_is_recorded(
        self, manager: ContextManager, wrong: dict[str, Any], says: str
    ):
        right: dict[str, Any] = {"scope": TENANT, "lengths": [1_000], "depths": [0]}
        with pytest.raises(ValueError, match=says):
            needle_in_haystack(manager, **{**right, **wrong})
        assert manager.stats(scope=TENANT)["log"]["records"] == 0


class TestTheHeatMap:
    @pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
    def test_it_is_written(self, manager: ContextManager, tmp_path: Path, ending: str):
        report = needle_in_haystack(manager, scope=TENANT, lengths=[1_000], depths=[0, 1])
        drawn = draw_heat_map(report, tmp_path / f"map{ending}")
        assert drawn.read_bytes()[:4] in {b"\x89PNG", b"<?xm", b"%PDF"}

    def test_another_ending_is_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match=r"path must end in .png, .svg, .pdf, got"):
            picture.check_picture(tmp_path / "map.txt")

    def test_without_matplotlib_the_extra_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
        with pytest.raises(ImportError, match=r"pip install 'langchain-ctxmgr\[evaluation\]'"):
            picture.check_picture(tmp_path / "map.png")


class TestWithEmbeddings:
    def test_needles_are_found_by_meaning_too(self):
        from tests.hashed_words import HashedWords

        with ContextManager.open(None, model="gpt-4o-mini", embeddings=HashedWords()) as manager:
            report = needle_in_haystack(manager, scope=TENANT, lengths=LENGTHS, depths=DEPTHS)
        assert report.found == len(report.cells)


def test_the_generated_haystack_can_be_recorded(manager: ContextManager):
    scope = Scope(tenant_id="acme", thread_id="hay")
    said = generated_haystack(1_000)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    manager.record(said, scope=scope, at=[start + timedelta(minutes=i) for i in range(len(said))])
    assert manager.history(scope=scope) == said
