from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from langchain_ctxmgr.budget.documents import fit_documents
from langchain_ctxmgr.budget.tokens import VocabularyCounter

COUNTER = VocabularyCounter("o200k_base")


def document(words, **metadata):
    return Document(page_content=" ".join(["word"] * words), metadata=metadata)


class TestTruncation:
    def test_short_documents_stay_whole_and_long_ones_share_the_rest(self):
        given = [document(300), document(10), document(300)]
        found = fit_documents(given, max_tokens=110, counter=COUNTER)
        assert found.cut == (0, 2)
        assert found.documents[1] == given[1]
        assert 95 <= found.tokens <= 110
        assert COUNTER.text(given[0].page_content) == 300

    def test_metadata_is_kept(self):
        found = fit_documents([document(99, source="a")], max_tokens=30, counter=COUNTER)
        assert found.documents[0].metadata == {"source": "a"}

    def test_no_room_drops_them_all(self):
        found = fit_documents([document(3), document(3)], max_tokens=0, counter=COUNTER)
        assert (found.documents, found.tokens, found.dropped) == ([], 0, (0, 1))


class TestPriority:
    def test_the_best_are_kept_whole_in_their_given_order(self):
        given = [document(40, rank=1), document(40, rank=9), document(40, rank=5)]
        found = fit_documents(
            given,
            max_tokens=80,
            counter=COUNTER,
            by="priority",
            priority=lambda document: document.metadata["rank"],
        )
        assert found.documents == given[1:]
        assert (found.tokens, found.dropped) == (80, (0,))

    def test_without_a_priority_first_ones_go_first(self):
        given = [document(40), document(60), document(40)]
        found = fit_documents(given, max_tokens=80, counter=COUNTER, by="priority")
        assert found.documents == [given[0], given[2]]


class TestFitDocuments:
    def test_what_cannot_be_is_refused(self):
        with pytest.raises(ValueError, match="max_tokens must not be negative, got -1"):
            fit_documents([], max_tokens=-1, counter=COUNTER)
        with pytest.raises(ValueError, match="by must be 'truncation' or 'priority', got 'luck'"):
            fit_documents([], max_tokens=1, counter=COUNTER, by="luck")

    @given(
        st.lists(st.integers(0, 80), max_size=8),
        st.integers(0, 200),
        st.sampled_from(["truncation", "priority"]),
    )
    @settings(max_examples=100, deadline=None)
    def test_never_over(self, sizes, max_tokens, by):
        given = [document(size) for size in sizes]
        found = fit_documents(given, max_tokens=max_tokens, counter=COUNTER, by=by)
        used = sum(COUNTER.text(document.page_content) for document in found.documents)
        assert used == found.tokens <= max_tokens
        assert len(found.documents) + len(found.dropped) == len(given)
