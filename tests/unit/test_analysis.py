"""Words, sentences and cues of a text."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_ctxmgr.analysis import (
    MAX_SENTENCE_CHARS,
    Cue,
    cues,
    message_text,
    pair_ids,
    sentences,
    terms,
    words,
)

any_text = st.text(alphabet=st.characters(), max_size=400)


class TestMessageText:
    def test_plain_text_stands_as_it_was_written(self):
        assert message_text(HumanMessage("  two  spaces\n")) == "  two  spaces\n"

    def test_a_caption_makes_a_picture_findable(self):
        message = HumanMessage(
            [
                {"type": "text", "text": "Look!"},
                {"type": "image", "url": "https://x/y.png", "extras": {"caption": "a red canoe"}},
                {"type": "image_url", "image_url": {"url": "data:..."}, "alt": "our tent"},
            ]
        )
        assert message_text(message) == "Look!\n[a red canoe]\n[our tent]"

    def test_a_silent_tool_call_is_found_by_its_arguments(self):
        call = {"name": "get_weather", "args": {"city": "Zürich"}, "id": "1"}
        assert message_text(AIMessage("", tool_calls=[call])) == 'get_weather({"city":"Zürich"})'
        assert message_text(AIMessage("Let me see.", tool_calls=[call])) == "Let me see."

    def test_reasoning_is_not_part_of_the_conversation(self):
        blocks = [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "Hi"}]
        assert message_text(AIMessage(blocks)) == "Hi"

    def test_tool_results_in_blocks_are_read(self):
        block = {"type": "tool_result", "content": [{"type": "text", "text": "42"}]}
        assert message_text(HumanMessage([block])) == "42"
        assert message_text(ToolMessage([{"type": "json"}], tool_call_id="1")) == ""


class TestSentences:
    @given(any_text)
    def test_nothing_of_the_text_is_lost(self, text: str):
        assert "".join(sentences(text)) == text

    @given(any_text)
    def test_no_sentence_is_without_bounds(self, text: str):
        assert all(len(s.strip()) <= MAX_SENTENCE_CHARS for s in sentences(text * 20))

    def test_abbreviations_and_initials_do_not_end_a_sentence(self):
        found = sentences("Dr. J. Smith said no. He left, e.g. by bus! Why?")
        assert found == ["Dr. J. Smith said no. ", "He left, e.g. by bus! ", "Why?"]

    def test_list_items_and_lines_of_code_stand_alone(self):
        assert sentences("1. First\n2. Second\nx = 1\n") == ["1. First\n", "2. Second\n", "x = 1\n"]

    def test_scripts_without_spaces_are_split(self):
        assert sentences("你好。我是。") == ["你好。", "我是。"]
        assert sentences("यह है। वह है।") == ["यह है। ", "वह है।"]


class TestTerms:
    def test_ids_never_change_because_they_are_on_disk(self):
        assert terms("pottery classes") == (131205213, 1833638303)

    def test_forms_of_a_word_meet(self):
        assert terms("running Potteries") == terms("run pottery")
        assert terms("José's café") == terms("Jose cafe")
        assert terms("don\u2019t Mom\u2019s") == terms("mom")

    def test_numbers_and_identifiers_stay_whole(self):
        assert words("1,250.50 on 2023-05-08") == ["1250.50", "2023-05-08"]
        assert words("KX-12 user_id") == ["kx-12", "kx", "12", "user_id", "user", "id"]

    def test_capitals_tell_a_name_from_a_stop_word(self):
        assert words("the IT team in the US told us it is so") == ["it", "team", "us", "told"]

    def test_unspaced_scripts_give_pairs(self):
        assert words("我喜欢猫") == ["我喜", "喜欢", "欢猫"]
        assert words("서울에서") == ["서울", "울에", "에서"]
        assert words("हिन्दी में") == ["हिन्दी", "में"]

    def test_adjacent_terms_have_an_id_of_their_own(self):
        one, two, three = pair_ids(terms("red boat harbour red lamp"))[:3]
        assert len({one, two, three}) == 3
        assert pair_ids(terms("boat harbour")) == [two]
        assert pair_ids(terms("harbour boat")) != [two]
        assert pair_ids(terms("boat boat boat")) == pair_ids(terms("boat boat"))
        assert pair_ids(terms("boat")) == pair_ids(()) == []

    @given(any_text)
    def test_every_text_has_ids_in_range(self, text: str):
        assert all(0 <= term < 2**31 for term in terms(text))

    def test_threads_do_not_disturb_each_other(self):
        vocabulary = [f"{a}{b}ing{c}s" for a in "bcd" for b in "aeiou" for c in "klmnp"]
        expected: dict[str, set[tuple[int, ...]]] = {word: set() for word in vocabulary}

        def work() -> None:
            for word in vocabulary:
                expected[word].add(terms(word))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(len(seen) == 1 for seen in expected.values())


class TestCues:
    @pytest.mark.parametrize("text", ["Really? 😀", 'He asked "why?"', "真的吗？", "لماذا؟"])
    def test_a_question_is_told_by_its_last_mark(self, text: str):
        assert Cue.QUESTION in cues(text)
        assert Cue.QUESTION not in cues(text + " Yes.")

    @pytest.mark.parametrize(
        ("text", "cue"),
        [
            ("We met on 8 May 2023.", Cue.DATE | Cue.TIME | Cue.NUMBER),
            ("I saw her yesterday.", Cue.TIME),
            ("We decided on the blue one.", Cue.DECISION),
            ("I prefer tea.", Cue.PREFERENCE),
            ("I'll send it.", Cue.COMMITMENT),
            ("Actually, it is Thursday.", Cue.CORRECTION),
            ("My name is Ada.", Cue.IDENTITY),
            ("From now on answer in French.", Cue.INSTRUCTION),
            ("Thanks so much!", Cue.SMALL_TALK),
            ("```py\nx\n```", Cue.CODE),
        ],
    )
    def test_wording_shows_what_a_turn_does(self, text: str, cue: Cue):
        assert cue in cues(text)

    @given(any_text)
    def test_any_text_has_cues(self, text: str):
        assert isinstance(cues(text), Cue)
