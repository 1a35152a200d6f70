"""How arms and cues add up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from langchain_ctxmgr.analysis import Cue
from langchain_ctxmgr.memory.query import read_question
from langchain_ctxmgr.memory.scoring import Arms, Scored, score
from langchain_ctxmgr.records import Turn
from langchain_ctxmgr.turns import Turns

START = datetime(2025, 5, 1, 9, tzinfo=UTC)


def turns(count: int) -> list[Turn]:
    return [
        Turn(
            seq=slot + 1,
            thread_id="t",
            slot=slot,
            branch=0,
            session=slot // 5,
            role="human",
            speaker=None,
            at=START + timedelta(days=slot),
            tokens=20,
            importance=0.5,
            cues=0,
        )
        for slot in range(count)
    ]


def scored(asked: str, given_turns: list[Turn], keywords: list[float], **settings) -> Scored:
    people = {turn.speaker for turn in given_turns if turn.speaker}
    question = read_question(asked, participants=people, asked_at=START + timedelta(days=90))
    column = np.array(keywords, dtype=float)
    return score(
        question,
        Turns.of(given_turns),
        Arms(column, column, settings.pop("dense", None)),
        **settings,
    )


class TestScore:
    def test_the_best_match_wins(self):
        assert scored("harbour?", turns(4), [0, 3, 1, 0]).total.argmax() == 1

    def test_an_answer_next_to_a_match_beats_a_stranger(self):
        total = scored("harbour?", turns(12), [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).total
        assert total[2] > total[9]

    def test_between_people_what_stands_near_a_match_counts_the_nearer_the_more(self):
        talk = [turn._replace(session=turn.slot // 10) for turn in turns(16)]
        match = [0.0] * 4 + [3.0] + [0.0] * 11
        near = scored("harbour?", talk, match).parts["near"]
        assert near[4] == 0
        assert near[3] == near[5] > near[7] > near[9] > 0
        assert not near[10:].any()

    def test_what_stands_near_a_match_counts_alike_in_any_order_of_sessions(self):
        talk = [turn._replace(session=turn.slot % 2) for turn in turns(8)]
        near = scored("harbour?", talk, [0, 0, 3.0, 0, 0, 0, 0, 0]).parts["near"]
        assert near[0] == near[4] > near[6] > 0
        assert not near[1::2].any()

    def test_what_an_assistant_answers_is_not_near_a_match(self):
        talk = turns(4)
        talk[1] = talk[1]._replace(role="ai")
        assert "near" not in scored("harbour?", talk, [3.0, 0, 0, 0]).parts

    def test_a_long_turn_must_be_worth_its_tokens(self):
        some = turns(4)
        some[1] = some[1]._replace(tokens=2_000)
        keywords = [0.0, 3.0, 2.9, 0.0]
        assert scored("harbour?", some, keywords).total.argmax() == 2
        assert scored("harbour?", some, keywords, priced=False).total.argmax() == 1

    def test_who_alone_holds_the_searched_word_comes_first_whoever_said_it(self):
        some = turns(6)
        some[3] = some[3]._replace(role="tool")
        assert scored("4471-B", some, [0, 0, 0, 3.0, 0, 0], priced=False).total.argmax() == 3
        found = scored("the crate 4471-B", some, [0.4, 0.4, 0.4, 3.0, 0.4, 0], priced=False)
        assert found.total.argmax() == 3

    def test_a_lead_that_is_not_clear_counts_nothing(self):
        assert not scored("lamp tower", turns(4), [0, 2.0, 1.9, 0]).parts["alone"].any()
        assert not scored("lamp tower", turns(1), [1.0]).parts["alone"].any()

    def test_words_that_stand_together_count_more(self):
        column = np.array([0.0, 1.0, 1.0, 0.0])
        question = read_question("harbour lamp?", participants=(), asked_at=START)
        arms = Arms(column, column, None, pairs=np.array([0.0, 0.0, 4.0, 0.0]))
        assert score(question, Turns.of(turns(4)), arms).total.argmax() == 2

    def test_words_that_mean_the_same_count(self):
        column, similar = np.zeros(4), np.array([0.1, 0.1, 0.9, 0.1])
        question = read_question("harbour lamp?", participants=(), asked_at=START)
        arms = Arms(column, column, np.full(4, 0.5), similar)
        assert score(question, Turns.of(turns(4)), arms).total.argmax() == 2

    def test_the_named_speaker_is_preferred(self):
        some = [turn._replace(speaker="Ada" if turn.slot % 2 else "Ben") for turn in turns(6)]
        found = scored("Where is Ada's harbour?", some, [0, 0, 1, 1, 0, 0])
        assert found.total[3] > found.total[2]
        assert "speaker" not in scored("Where are Ada and Ben?", some, [0] * 6).parts

    def test_the_date_asked_for_counts(self):
        found = scored("What happened on 20 May 2025?", turns(40), [1.0] * 40)
        assert found.total.argmax() in range(16, 23)

    def test_a_time_is_looked_for_where_it_is_said(self):
        some = turns(4)
        some[2] = some[2]._replace(cues=int(Cue.TIME))
        assert scored("When was it?", some, [1.0] * 4).total.argmax() == 2

    def test_an_assistant_counts_less_unless_it_is_asked_for(self):
        some = [turn._replace(role="ai" if turn.slot % 2 else "human") for turn in turns(4)]
        keywords = [0.0, 1.0, 1.0, 0.0]
        told = scored("Which harbour?", some, keywords)
        asked = scored("Which harbour did you recommend?", some, keywords)
        assert told.total[2] - told.total[1] > asked.total[2] - asked.total[1] > 0

    def test_between_people_nobody_is_a_machine(self):
        some = [
            turn._replace(role="ai" if turn.slot % 2 else "human", speaker=f"P{turn.slot % 2}")
            for turn in turns(4)
        ]
        assert not scored("harbour?", some, [0, 1, 1, 0]).parts["machine"].any()

    def test_a_persona_with_a_name_is_still_a_machine(self):
        some = [
            t._replace(role="ai" if t.slot % 2 else "human", speaker="Ada" if t.slot % 2 else None)
            for t in turns(4)
        ]
        assert scored("harbour?", some, [0, 1, 1, 0]).parts["machine"].any()

    @given(
        st.lists(
            st.tuples(st.floats(0, 50) | st.just(np.nan), st.floats(-1, 1) | st.just(np.nan)),
            min_size=1,
            max_size=30,
        )
    )
    def test_every_candidate_has_a_score_that_is_the_sum_of_its_parts(self, cells):
        dense = np.array([cell[1] for cell in cells])
        keywords = [cell[0] for cell in cells]
        settings = {} if np.isnan(dense).all() else {"dense": dense}
        found = scored("When was the harbour built?", turns(len(cells)), keywords, **settings)
        assert np.isfinite(found.total).all()
        total, parts = found.of(0)
        assert abs(total - sum(parts.values())) < 0.01
        why = found.explained(0)
        assert why.score == total
        assert abs(total - sum(each.value for each in why.contributions)) < 0.01
        assert 1 <= why.rank <= why.candidates == len(cells)
