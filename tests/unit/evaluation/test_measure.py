from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from langchain_ctxmgr.evaluation.measure import (
    Score,
    folded,
    held,
    recall_figures,
    view_text,
)


def words(text: str) -> int:
    return len(text.split())


class TestWhatAViewHolds:
    def test_a_text_is_there_word_for_word_white_space_aside(self):
        view = view_text([HumanMessage("He said:\nthe  gate\tis blue."), AIMessage("Yes.")])
        found = held(["the gate\nis blue.", "The gate is blue."], view, words)
        assert found.found == (True, False)
        assert found.share == 0.5

    def test_a_cut_text_counts_by_the_sentences_that_are_left(self):
        text = "One two three. Four five six seven eight nine. Ten."
        found = held([text], "x One two three. y", words)
        assert found.found == (False,)
        assert found.token_share == 3 / 10

    def test_nothing_stands_in_an_empty_view(self):
        assert held(["a b"], "", words) == ((False,), 0.0)

    @given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1), st.text())
    def test_a_view_of_everything_holds_everything(self, texts: list[str], more: str):
        view = folded(" ".join([more, *texts]))
        found = held(texts, view, words)
        assert found.share == found.token_share == 1.0


class TestFigures:
    def test_without_scores_there_are_none(self):
        assert recall_figures([]) is None

    def test_means_are_over_questions(self):
        scores = [Score("a", 1.0, 1.0), Score("a", 0.5, 0.8), Score("b", 0.0, 0.0)]
        figures = recall_figures(scores)
        assert figures is not None
        assert (figures.n, figures.recall, figures.all_gold) == (3, 0.5, 1 / 3)
        assert abs(figures.gold_tokens - 0.6) < 1e-12

    def test_intervals_are_over_conversations(self):
        alike = [Score(group, share, share) for group in "abcd" for share in (0.0, 1.0) * 20]
        apart = [Score(group, float(group in "ab"), 0.0) for group in "abcd" for _ in range(40)]
        narrow, wide = recall_figures(alike), recall_figures(apart)
        assert narrow is not None
        assert wide is not None
        assert narrow.recall == wide.recall == 0.5
        assert narrow.interval == (0.5, 0.5)
        assert wide.interval == (0.0, 1.0)

    def test_of_a_single_conversation_they_are_over_questions(self):
        figures = recall_figures([Score("a", share, share) for share in (0.0, 1.0) * 50])
        assert figures is not None
        low, high = figures.interval
        assert 0.35 < low < 0.45
        assert 0.55 < high < 0.65

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1)), min_size=1))
    def test_an_interval_lies_within_the_shares(self, drawn: list[tuple[str, float]]):
        figures = recall_figures([Score(group, share, share) for group, share in drawn])
        assert figures is not None
        low, high = figures.interval
        shares = [share for _, share in drawn]
        assert min(shares) - 1e-9 <= low <= high <= max(shares) + 1e-9
