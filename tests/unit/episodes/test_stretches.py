"""Where a conversation changes its subject."""

from __future__ import annotations

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.episodes.stretches import LEAST_TURNS, Passage, stretches

BOAT = ["The boat needs a new mast.", "A mast of spruce for the boat costs more than aluminium."]
BREAD = ["My rye bread does not rise.", "Rye bread rises slowly: feed the sourdough twice."]


def passages(
    texts: list[str], session: int = 0, user: str = "mia", vector: list[float] | None = None
) -> list[Passage]:
    return [
        Passage(terms(text), session, user, opens=place % 2 == 0, vector=vector)
        for place, text in enumerate(texts)
    ]


def cuts(found: list[range]) -> list[tuple[int, int]]:
    return [(each.start, each.stop) for each in found]


class TestStretches:
    def test_it_is_cut_where_the_subject_changes(self) -> None:
        assert cuts(stretches(passages(BOAT * 4 + BREAD * 4))) == [(0, 8), (8, 16)]

    def test_one_subject_is_one_stretch(self) -> None:
        assert cuts(stretches(passages(BOAT * 8))) == [(0, 16)]

    def test_a_pause_and_another_user_end_one(self) -> None:
        parts = passages(BOAT), passages(BOAT, session=1), passages(BOAT, session=1, user="ola")
        assert cuts(stretches([each for part in parts for each in part])) == [
            (0, 2),
            (2, 4),
            (4, 6),
        ]

    def test_embeddings_tell_what_words_do_not(self) -> None:
        said = [f"word{place} only here{place}" for place in range(16)]
        apart = passages(said[:8], vector=[1.0, 0.0]) + passages(said[8:], vector=[0.0, 1.0])
        assert cuts(stretches(passages(said))) == [(0, 16)]
        assert cuts(stretches(apart)) == [(0, 8), (8, 16)]

    def test_together_they_are_all_turns_each_once(self) -> None:
        said = passages((BOAT * 3 + BREAD * 3) * 5)
        found = stretches(said)
        assert [place for each in found for place in each] == list(range(len(said)))
        assert min(map(len, found)) >= LEAST_TURNS

    def test_nothing_said_is_no_stretch(self) -> None:
        assert stretches([]) == []
