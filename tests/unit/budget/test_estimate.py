from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_ctxmgr.budget.estimate import Estimator
from langchain_ctxmgr.budget.tokens import VocabularyCounter
from tests.unit.budget.samples import BY_SCRIPT


class TestEstimator:
    @pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
    @pytest.mark.parametrize("script", BY_SCRIPT)
    def test_stays_near_the_vocabulary_it_estimates(self, script, encoding):
        text = BY_SCRIPT[script]
        true = VocabularyCounter(encoding).text(text)
        assert 0.95 * true <= Estimator(encoding).tokens(text) <= 1.35 * true

    @pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
    @pytest.mark.parametrize("script", BY_SCRIPT)
    def test_without_a_known_vocabulary_stays_above_both(self, script, encoding):
        text = BY_SCRIPT[script]
        assert Estimator(None).tokens(text) >= 0.95 * VocabularyCounter(encoding).text(text)

    @given(st.text(st.characters(min_codepoint=0x80), min_size=1))
    @settings(max_examples=100)
    def test_every_character_costs_something(self, text):
        assert Estimator("o200k_base").tokens(text) >= 1

    def test_every_code_point_has_a_rate(self):
        estimator = Estimator("o200k_base")
        for start in range(0x80, sys.maxunicode, 0x80):
            assert 0 < estimator._rate_of(chr(start)) <= 4

    def test_no_text_costs_nothing(self):
        assert Estimator(None).tokens("") == 0

    def test_packed_data_is_not_taken_for_words(self):
        packed = "aGVsbG8gd29ybGQsIHRoaXMgaXMgYSBsb25nIHN0cmluZyBvZiBiYXNlNjQgdGV4dDEyMzQ1" * 20
        assert Estimator("o200k_base").tokens(packed) >= 0.9 * VocabularyCounter("o200k_base").text(
            packed
        )
