from __future__ import annotations

import json
from pathlib import Path

import pytest

from langchain_ctxmgr.evaluation import EvidenceQuestion, read_questions


class TestReading:
    def test_lines_give_questions_and_further_keys_are_left_alone(self, tmp_path: Path):
        path = tmp_path / "questions.jsonl"
        path.write_text(
            '{"question": "Where?", "evidence": ["m1", "m2"], "answer": "Oslo"}\n\n'
            '{"question": "Who?", "evidence": ["m3"], "thread_id": "t2", "category": "people", '
            '"adversarial": true}\n',
            encoding="utf-8",
        )
        assert read_questions(path) == [
            EvidenceQuestion(question="Where?", evidence=("m1", "m2")),
            EvidenceQuestion(
                question="Who?",
                evidence=("m3",),
                thread_id="t2",
                category="people",
                is_adversarial=True,
            ),
        ]

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('["a"]', "a question must be an object"),
            ('{"evidence": ["m1"]}', "question must be text"),
            ('{"question": "Who?"}', "evidence must be a list of message ids, got None"),
            ('{"question": "Who?", "evidence": "m1"}', "evidence must be a list"),
            ('{"question": "Who?", "evidence": []}', "evidence must be a tuple of message ids"),
            ('{"question": "Who?", "evidence": [7]}', "evidence must be text"),
            ('{"question": 7, "evidence": ["m1"]}', "question must be text"),
            ('{"question": "Who?", "evidence": ["m1"], "thread_id": 7}', "thread_id must be"),
            ('{"question": "Who?", "evidence": ["m1"], "adversarial": 1}', "is_adversarial must"),
            ("{", "not JSON"),
        ],
    )
    def test_what_is_no_question_is_named_with_its_line(self, tmp_path: Path, line: str, says: str):
        path = tmp_path / "questions.jsonl"
        good = json.dumps({"question": "Who?", "evidence": ["m1"]})
        path.write_text(f"{good}\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=says) as raised:
            read_questions(path)
        assert "questions.jsonl, line 2" in str(raised.value)

    @pytest.mark.parametrize("content", ["", "[]"])
    def test_an_empty_file_is_an_error(self, tmp_path: Path, content: str):
        path = tmp_path / "questions.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"questions\.json"):
            read_questions(path)

    def test_a_missing_file_is_named(self, tmp_path: Path):
        with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
            read_questions(tmp_path / "none.jsonl")
