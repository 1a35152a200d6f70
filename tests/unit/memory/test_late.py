"""How words of a question meet words of a turn."""

from __future__ import annotations

from base64 import b64decode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.late import (
    FLAT_SHARE,
    MAX_VECTORS,
    codes_of,
    met,
    parts_of,
    token_weights,
)
from langchain_ctxmgr.memory.local import Tokens

SIZE = 64
ONE = np.array([1.0])


def vectors_of(names: list[str]) -> np.ndarray:
    """One direction for each name, the same each time."""
    made = [np.random.default_rng(list(name.encode())).normal(size=SIZE) for name in names]
    rows = np.array(made, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tokens_of(text: str) -> Tokens:
    """A token a word, whose vector depends on the word alone."""
    spans, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return Tokens(spans, vectors_of([text[start:end].casefold() for start, end in spans]))


class TestCodes:
    def test_stop_words_take_no_room(self):
        text = "the harbour and the lamp"
        assert len(b64decode(codes_of(text, tokens_of(text)))) == 2 * SIZE // 8

    def test_a_long_turn_takes_no_more_than_its_share(self):
        text = " ".join(f"word{i}" for i in range(500))
        assert len(b64decode(codes_of(text, tokens_of(text)))) == MAX_VECTORS * SIZE // 8

    def test_words_that_mean_the_same_are_kept_as_one(self):
        text = "lamp tower lamp rain"
        kept = b64decode(codes_of(text, tokens_of(text)))
        assert len(kept) == 3 * SIZE // 8
        assert kept == b64decode(codes_of("lamp tower rain", tokens_of(text[:10] + "  rain")))

    def test_the_mark_at_the_end_is_kept(self):
        tokens = Tokens([(0, 0)], vectors_of(["end"]))
        assert len(b64decode(codes_of("the", tokens))) == SIZE // 8


class TestWeights:
    def test_rare_words_count_more_and_stop_words_next_to_nothing(self):
        asked = "the harbour lamp"
        spans = tokens_of(asked).spans
        rarity = {terms("harbour")[0]: 1.0, terms("lamp")[0]: 3.0}
        weights = token_weights(asked, spans, rarity)
        assert weights[2] > weights[1] > weights[0] > 0
        assert weights.sum() == pytest.approx(1 + FLAT_SHARE)

    def test_a_word_never_said_counts_like_the_rarest(self):
        asked = "lamp beacon"
        weights = token_weights(asked, tokens_of(asked).spans, {terms("lamp")[0]: 3.0})
        assert weights[0] == weights[1]

    def test_pieces_share_the_weight_of_their_word(self):
        weights = token_weights("lighthouse", [(0, 5), (5, 10)], {})
        assert weights[0] == weights[1]

    @given(st.text(max_size=60))
    def test_any_text_has_weights(self, text: str):
        spans = [(place, place + 1) for place in range(len(text))]
        assert np.isfinite(token_weights(text, spans, {})).all()


class TestSimilarity:
    def test_a_turn_that_says_the_words_is_nearest(self):
        turns = ["a boat in the harbour", "some lamp on a tower", "wind"]
        codes = [codes_of(text, tokens_of(text)) for text in turns]
        asked = tokens_of("lamp tower")
        found = met(codes, asked.vectors, np.array([0.5, 0.5]))
        assert found.similar.argmax() == 1

    def test_signs_stand_for_the_vectors(self):
        one = vectors_of(["harbour"])
        code = codes_of("harbour", Tokens([(0, 7)], one))
        found = met([code], one, np.array([1.0])).similar[0]
        assert found == pytest.approx(np.abs(one).sum() / SIZE**0.5, rel=1e-5)

    def test_each_turn_is_compared_with_its_own_words_alone(self):
        long, short = "harbour lamp tower wind rain", "rain"
        codes = [codes_of(text, tokens_of(text)) for text in (long, short, long)]
        asked = tokens_of("lamp")
        found = met(codes, asked.vectors, np.array([1.0])).similar
        assert found[0] == found[2] > found[1]

    def test_what_each_word_counts_decides(self):
        codes = [codes_of(text, tokens_of(text)) for text in ("lamp", "tower")]
        asked = tokens_of("lamp tower")
        assert met(codes, asked.vectors, np.array([1.0, 0.1])).similar.argmax() == 0
        assert met(codes, asked.vectors, np.array([0.1, 1.0])).similar.argmax() == 1

    def test_who_answers_one_part_is_nearer_than_who_says_a_word_of_each(self):
        asked = tokens_of("boat harbour and lamp tower")
        said = ("boat lamp", "lamp tower", "wind rain", "snow hail", "boat fog", "tower ice")
        codes = [codes_of(text, tokens_of(text)) for text in said]
        weights = np.array([0.25, 0.25, 0.0, 0.25, 0.25])
        parts = parts_of(weights, asked.spans, [(0, 12), (17, 27), (40, 44)])
        assert [part.tolist() for part in parts] == [[0.25, 0.25, 0, 0, 0], [0, 0, 0, 0.25, 0.25]]
        found = met(codes, asked.vectors, weights, parts)
        assert found.similar.argmax() == 1
        whole = met(codes, asked.vectors, weights).similar
        assert found.similar[1] - found.similar[0] > whole[1] - whole[0]
        same = met(codes, asked.vectors, weights, parts[:1]).similar
        assert same.tolist() == whole.tolist()

    def test_who_says_it_first_says_something_new(self):
        said = ("lamp", "tower", "lamp tower", "tower wind")
        found = met([codes_of(t, tokens_of(t)) for t in said], tokens_of("lamp").vectors, ONE)
        assert found.first[0] > 0
        assert found.first[1:].max() < 0.1 * found.first[0]

    def test_many_words_are_no_advantage(self):
        names = [f"word{i}" for i in range(30)]
        said = [" ".join(names[: 1 + 29 * (i % 2)]) for i in range(20)]
        codes = [codes_of(text, tokens_of(text)) for text in said]
        found = met(codes, tokens_of("harbour").vectors, ONE).similar
        gained = found[1] - found[0]
        met_by = [met([code], tokens_of("harbour").vectors, ONE).similar[0] for code in codes[:2]]
        assert gained == pytest.approx((met_by[1] - met_by[0]) / 2, rel=1e-6)
