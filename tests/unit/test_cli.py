from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_ctxmgr.cli import app, checks
from langchain_ctxmgr.importers import read_conversation
from langchain_ctxmgr.storage.edge import EdgeVectorStore

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "The gate code of the allotment is 4711.", "name": "Ana"},
    {"role": "assistant", "content": "Noted: 4711 for the gate."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Dry until Sunday."},
    {"role": "assistant", "content": "It stays dry until Sunday.", "at": "2026-02-02T08:00:00Z"},
]

SHOP = ("--tenant", "acme", "--thread", "t1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATA", "TENANT", "THREAD", "MODEL", "EMBEDDINGS"):
        monkeypatch.delenv(f"CTXMGR_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.json").write_text(json.dumps(CHAT), encoding="utf-8")
    return tmp_path


def ctxmgr(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def as_json(*arguments: str) -> Any:
    return json.loads(ctxmgr(*arguments, "--json"))


class TestDemo:
    @pytest.fixture
    def no_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "installed_embeddings", lambda: None)

    def test_it_shows_contexts_evidence_tokens_money_and_time(self, no_model: None):
        shown = ctxmgr("demo")
        assert "recall: keyword only" in shown
        for word in ("tokens", "evidence", "saved per 1,000", "USD", " ms", "padlock", "m0016"):
            assert word in shown

    def test_contexts_keep_to_the_budget_save_money_and_hold_most_evidence(self):
        shown = as_json("demo", "--keyword-only")
        assert shown["recall"] == "keyword only"
        assert {answer["max_tokens"] for answer in shown["answers"]} == {500, 1_000, 2_000}
        for answer in shown["answers"]:
            assert answer["tokens"] <= answer["max_tokens"] < answer["full_tokens"]
            assert float(answer["saved_usd"]) > 0

        widest = [answer for answer in shown["answers"] if answer["max_tokens"] == 2_000]
        complete = [
            all(set(group) & set(answer["found"]) for group in answer["evidence"])
            for answer in widest
        ]
        assert sum(complete) >= 5


class TestPrepare:
    def test_the_context_is_shown_with_its_receipt(self, folder: Path):
        shown = ctxmgr("prepare", "chat.json", "-q", "What is the gate code?", "-n", "500")
        assert "The gate code of the allotment is 4711." in shown
        assert "of 500 tokens" in shown
        assert "current" in shown

    def test_json_is_a_file_that_can_be_read_again(self, folder: Path):
        found = as_json("prepare", "chat.json", "-q", "What is the gate code?", "-n", "60")
        assert found["tokens"] <= found["max_tokens"] == 60
        assert {"id", "kind", "included", "reason"} <= set(found["receipt"][0])
        (folder / "view.json").write_text(json.dumps(found), encoding="utf-8")
        view = read_conversation(folder / "view.json").messages
        assert view[-1].text.endswith("What is the gate code?")

    def test_one_of_several_conversations_is_chosen(self, folder: Path):
        both = [{"title": "A", "messages": CHAT}, {"title": "B", "messages": CHAT[:2]}]
        (folder / "two.json").write_text(json.dumps(both), encoding="utf-8")
        question = ("-q", "What is the gate code?", "-n", "500")
        assert "choose one by number or title" in ctxmgr("prepare", "two.json", *question, code=1)
        assert "4711" in ctxmgr("prepare", "two.json", *question, "--conversation", "B")

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (("gone.json", "-q", "x", "-n", "50"), "error: gone.json: No such file or directory"),
            (("empty.json", "-q", "x", "-n", "50"), "error: empty.json: the file is empty"),
            (("chat.json", "-q", "x", "-n", "2"), "raise max_tokens to at least"),
        ],
    )
    def test_an_error_is_one_line(self, folder: Path, arguments: tuple[str, ...], error: str):
        (folder / "empty.json").touch()
        told = ctxmgr("prepare", *arguments, code=1)
        assert error in told
        assert told.startswith("error: ")
        assert told.count("\n") == 1

    @pytest.mark.parametrize(
        "arguments",
        [("chat.json",), ("chat.json", "-q", "x"), ("chat.json", "-q", "x", "-n", "0"), ()],
    )
    def test_wrong_usage_is_exit_code_2(self, folder: Path, arguments: tuple[str, ...]):
        assert ctxmgr("prepare", *arguments, code=2)


class TestRecordAndLookUp:
    @pytest.fixture(autouse=True)
    def recorded(self, folder: Path) -> None:
        assert "5 of 5 messages recorded" in ctxmgr("record", "chat.json", *SHOP)

    def test_a_second_time_adds_nothing(self):
        assert as_json("record", "chat.json", *SHOP) == {"messages": 5, "appended": 0}

    def test_a_file_that_grew_adds_what_is_new(self, folder: Path):
        longer = [*CHAT, {"role": "user", "content": "Thanks"}]
        (folder / "chat.json").write_text(json.dumps(longer), encoding="utf-8")
        assert as_json("record", "chat.json", *SHOP) == {"messages": 6, "appended": 1}

    def test_recall_finds_it_in_the_thread_and_across_threads(self):
        assert "4711" in ctxmgr("recall", "gate code", *SHOP)
        found = as_json("recall", "gate code", "--tenant", "acme", "-k", "1")
        assert len(found) == 1
        assert "4711" in found[0]["text"]

    def test_another_tenant_finds_nothing(self):
        assert as_json("recall", "gate code", "--tenant", "other") == []
        assert "nothing found" in ctxmgr("recall", "gate code", "--tenant", "other")

    def test_history_prints_everything_and_its_json_can_be_read_again(self, folder: Path):
        shown = ctxmgr("history", *SHOP)
        assert "human Ana" in shown
        assert "→ weather {}" in shown

        (folder / "copy.jsonl").write_text(ctxmgr("history", *SHOP, "--json"), encoding="utf-8")
        copy = read_conversation(folder / "copy.jsonl")
        original = read_conversation(folder / "chat.json").messages
        assert [m.content for m in copy.messages] == [m.content for m in original]
        assert all(copy.at)

    def test_an_empty_thread_is_said_to_be_empty(self):
        arguments = ("history", "--tenant", "acme", "--thread", "t2")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0
        assert "nothing is recorded in thread 't2'" in result.stderr

    def test_verify_passes(self):
        assert "5 records, no problems" in ctxmgr("verify")
        assert as_json("verify") == {"records": 5, "ok": True, "problems": []}

    def test_reindex_rebuilds_the_vectors(self):
        assert as_json("reindex") == {"indexed": 5, "remaining": 0}
        assert "4711" in ctxmgr("recall", "gate code", *SHOP)

    def test_environment_variables_stand_in_for_options(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("CTXMGR_DATA", str(folder / "ctxmgr-data"))
        monkeypatch.setenv("CTXMGR_TENANT", "acme")
        monkeypatch.setenv("CTXMGR_THREAD", "t1")
        monkeypatch.chdir("/")
        assert "4711" in ctxmgr("recall", "gate code")

    @pytest.mark.parametrize("option", ["--model", "--embeddings"])
    def test_an_unknown_model_is_named(self, option: str):
        told = ctxmgr("record", "chat.json", *SHOP, option, "nobody-1", code=1)
        assert told.startswith("error: ")
        assert "'nobody-1'" in told

    def test_a_tenant_is_never_assumed(self):
        assert "--tenant" in ctxmgr("recall", "gate code", code=2)

    @pytest.mark.parametrize(
        "command",
        [("recall", "x", "--tenant", "a"), ("verify",), ("reindex",), ("history", *SHOP)],
    )
    def test_looking_makes_no_folder(self, folder: Path, command: tuple[str, ...]):
        told = ctxmgr(*command, "--data", "elsewhere", code=1)
        assert "nothing is recorded in elsewhere" in told
        assert not (folder / "elsewhere").exists()

    def test_a_folder_that_is_owned_still_records_and_says_so(self, folder: Path):
        store = EdgeVectorStore(folder / "ctxmgr-data" / "vectors" / "keywords")
        store.setup()
        try:
            result = CliRunner().invoke(app, ["recall", "gate code", *SHOP])
            told = as_json("doctor")
        finally:
            store.close()
        assert result.exit_code == 0
        assert "4711" in result.stdout
        assert result.stderr.startswith("note: vectors")
        owner = next(check for check in told if check["name"] == "vectors' owner")
        assert owner["state"] == "degraded"
        assert owner["mend"]


class TestEvaluate:
    @pytest.fixture(autouse=True)
    def recorded(self, folder: Path) -> None:
        ctxmgr("record", "chat.json", *SHOP)

    @pytest.fixture
    def questions(self, folder: Path) -> str:
        first, *_ = ctxmgr("history", *SHOP, "--json").splitlines()
        name = json.loads(first)["data"]["id"]
        asked = [
            {"question": "What is the gate code?", "evidence": [name], "category": "codes"},
            {"question": "Who sold the gate?", "evidence": [name], "adversarial": True},
        ]
        lines = "".join(f"{json.dumps(each)}\n" for each in asked)
        (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
        return "questions.jsonl"

    def test_recall_on_the_recorded_conversation(self, questions: str):
        shown = as_json("evaluate", "recall", questions, *SHOP, "-n", "300", "-n", "600")
        assert list(shown["budgets"]) == ["300", "600"]
        assert shown["budgets"]["300"]["recall"] == 1.0
        assert shown["budgets"]["300"]["categories"]["codes"]["n"] == 1
        assert shown["budgets"]["300"]["adversarial"]["n"] == 1
        assert [answer["max_tokens"] for answer in shown["answers"]] == [300, 600, 300, 600]

    def test_recall_as_a_table(self, questions: str):
        shown = ctxmgr("evaluate", "recall", questions, *SHOP)
        for words in ("codes", "wrong premise", "1.000 to 1.000", "4,000"):
            assert words in shown

    def test_policies_side_by_side(self, questions: str):
        shown = as_json("evaluate", "policies", questions, *SHOP, "-n", "300")
        recall = {each["policy"]: each["recall"]["recall"] for each in shown}
        assert list(recall) == ["last 10 turns", "summary", "most important", "hybrid", "prepare"]
        assert recall["prepare"] == 1.0
        table = ctxmgr("evaluate", "policies", questions, *SHOP, "-n", "300")
        assert "most important" in table

    def test_evidence_that_is_not_recorded_is_one_line(self, folder: Path):
        line = json.dumps({"question": "Who?", "evidence": ["nobody"]})
        (folder / "wrong.jsonl").write_text(line, encoding="utf-8")
        said = ctxmgr("evaluate", "recall", "wrong.jsonl", *SHOP, code=1)
        assert said == "error: evidence 'nobody' is no message of thread 't1'\n"

    def test_needles_are_found_and_drawn(self, folder: Path):
        options = ("--longest", "2000", "--lengths", "2", "--depths", "3")
        shown = as_json("evaluate", "needle", *options, "--picture", "map.png")
        assert shown["found"] == len(shown["cells"]) == 6
        assert (folder / "map.png").read_bytes()[:4] == b"\x89PNG"
        assert "6 of 6 found in 2,000 tokens" in ctxmgr("evaluate", "needle", *options)

    def test_needles_in_a_file_of_ones_own(self, folder: Path):
        options = ("--haystack", "chat.json", "--longest", "20", "--lengths", "1", "--depths", "1")
        assert as_json("evaluate", "needle", *options)["found"] == 1

    def test_a_picture_that_cannot_be_drawn_is_told_first(self, folder: Path):
        said = ctxmgr("evaluate", "needle", "--picture", "map.txt", code=1)
        assert said.startswith("error: path must end in .png, .svg, .pdf")


class TestDoctor:
    def test_it_looks_at_every_part(self, folder: Path):
        names = {check["name"] for check in as_json("doctor")}
        assert {
            "versions",
            "vocabulary o200k_base",
            "message log",
            "vectors",
            "data folder",
            "embeddings",
            "prices",
            "PostgreSQL",
            "Redis",
            "Qdrant server",
        } <= names
        assert not (folder / "ctxmgr-data").exists()

    def test_what_is_missing_comes_with_how_to_mend_it(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        monkeypatch.setattr(checks, "installed_embeddings", lambda: None)
        shown = ctxmgr("doctor")
        assert "degraded" in shown
        assert "doctor --download" in shown
        assert "recall by keyword only" in shown

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"not a database at all" * 400, "file is not a database"),
            (b"SQLite format 3\0" + b"\x10" * 4_000, "log.sqlite3"),
        ],
    )
    def test_a_log_that_is_none_is_broken(self, folder: Path, content: bytes, says: str):
        (folder / "ctxmgr-data").mkdir()
        (folder / "ctxmgr-data" / "log.sqlite3").write_bytes(content)
        (log,) = self.checked("recorded log", code=1)
        assert log["state"] == "broken"
        assert says in log["found"]
        assert "restore a backup" in log["mend"]

    def test_another_programs_database_is_no_log(self, folder: Path):
        (folder / "ctxmgr-data").mkdir()
        with closing(sqlite3.connect(folder / "ctxmgr-data" / "log.sqlite3")) as other:
            other.execute("CREATE TABLE theirs (x)")
        (log,) = self.checked("recorded log", code=1)
        assert "another program's database" in log["found"]

    def test_a_damaged_page_is_found(self, folder: Path):
        ctxmgr("record", "chat.json", *SHOP)
        path = folder / "ctxmgr-data" / "log.sqlite3"
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096)
        (log,) = self.checked("recorded log", code=1)
        assert log["state"] == "broken"

    def test_a_good_folder_is_looked_into_and_left_as_it_is(self, folder: Path):
        ctxmgr("record", "chat.json", *SHOP)
        path = folder / "ctxmgr-data" / "log.sqlite3"
        before = path.read_bytes()
        (log,) = self.checked("recorded log")
        assert (log["state"], log["found"]) == ("ok", "5 records")
        assert path.read_bytes() == before
        assert {check["state"] for check in self.checked("vectors' owner")} == {"ok"}

    def test_an_unreadable_index_says_how_to_rebuild_it(self, folder: Path):
        ctxmgr("record", "chat.json", *SHOP)
        for path in (folder / "ctxmgr-data").rglob("index.json"):
            path.write_text("{damaged", encoding="utf-8")
        (owner,) = self.checked("vectors' owner")
        assert owner["state"] == "degraded"
        assert "index.json is damaged" in owner["found"]
        assert "ctxmgr reindex" in owner["mend"]

    def test_what_cannot_be_written_or_checked_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        ctxmgr("record", "chat.json", *SHOP)
        monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
        (data,) = self.checked("data folder")
        assert "not writable" in data["found"]

        def refused(_: Path) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(shutil, "disk_usage", refused)
        (data,) = self.checked("data folder")
        assert data["found"].startswith("could not be checked: ")

    def test_a_file_in_the_folders_place_is_broken(self, folder: Path):
        (folder / "ctxmgr-data").touch()
        (data,) = self.checked("data folder", code=1)
        assert "is not a folder" in data["found"]

    def checked(self, name: str, *, code: int = 0) -> list[Any]:
        result = CliRunner().invoke(app, ["doctor", "--json"])
        assert result.exit_code == code, result.output
        return [check for check in json.loads(result.stdout) if check["name"] == name]

    def test_an_absent_embedding_package_is_no_model(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(checks, "find_spec", lambda name: None)
        assert checks.installed_embeddings() is None


class TestTheCommandItself:
    def test_importing_it_loads_nothing_heavy(self):
        heavy = (
            "torch",
            "sentence_transformers",
            "qdrant_edge",
            "tiktoken",
            "numpy",
            "langchain_core",
        )
        script = (
            f"import sys, langchain_ctxmgr.cli; print([m for m in {heavy!r} if m in sys.modules])"
        )
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"

    def test_without_a_command_it_shows_help(self):
        result = CliRunner().invoke(app, [])
        assert "prepare" in result.output
        assert "doctor" in result.output


class TestMemory:
    def test_what_is_known_is_learned_shown_and_forgotten(self, folder):
        ana = ("--tenant", "acme", "--user", "ana")
        assert "user lives in Berlin" in ctxmgr("learn", "I live in Berlin.", *ana)
        [learned] = as_json("learn", "I live in Oslo.", *ana)
        assert (learned["relation"], learned["object"]) == ("lives in", "Oslo")
        assert "lives in Oslo" in ctxmgr("facts", *ana)
        held = [fact["object"] for fact in as_json("facts", "--ever", *ana)]
        assert held == ["Berlin", "Oslo"]
        assert as_json("facts", "--as-of", "2001-01-01", *ana) == []
        assert "nothing is known" in ctxmgr("facts", "--tenant", "acme", "--user", "bob")
        lines = ctxmgr("export", *ana).splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["message"] * 2 + ["fact"] * 2
        memory = as_json("remember", "I like tea.", *ana)["memory"]
        assert [fact["object"] for fact in as_json("facts", "tea", *ana)] == ["tea"]
        ctxmgr("pin", memory, *ana)
        ctxmgr("boost", memory, "--weight", "3", *ana)
        [mark] = as_json("marks", *ana)
        assert (mark["id"], mark["is_pinned"], mark["weight"]) == (memory, True, 3.0)
        assert "yes" in ctxmgr("marks", *ana)
        ctxmgr("unpin", memory, *ana)
        ctxmgr("mute", memory, *ana)
        [mark] = as_json("marks", *ana)
        assert (mark["is_pinned"], mark["weight"]) == (False, 0.0)
        ctxmgr("boost", memory, "--weight", "1", *ana)
        assert "nothing is marked" in ctxmgr("marks", *ana)
        assert as_json("forget", "--memory", memory, *ana)["messages"] == 1
        assert as_json("facts", "tea", *ana) == []
        assert as_json("expire", "--tenant", "acme", "--days", "7", "--dry-run")["threads"] == []
        assert "erased 2 messages" in ctxmgr("forget", *ana)
        assert as_json("facts", "--ever", *ana) == []

    def test_a_tenant_is_not_forgotten_by_leaving_something_out(self, folder):
        ctxmgr("learn", "I live in Berlin.", "--tenant", "acme", "--user", "ana")
        error = ctxmgr("forget", "--tenant", "acme", code=1)
        assert "--everything" in error
        assert as_json("forget", "--tenant", "acme", "--everything")["messages"] == 1

    def test_single_messages_are_forgotten(self, folder):
        ctxmgr("record", "chat.json", *SHOP)
        assert as_json("forget", *SHOP, "--matching", "GATE")["messages"] == 2
        assert "4711" not in ctxmgr("history", *SHOP)
        tomorrow = "2099-01-01"
        assert as_json("forget", *SHOP, "--since", tomorrow)["messages"] == 0
        assert as_json("forget", *SHOP, "--until", tomorrow)["messages"] == 3
        assert "5 records" in ctxmgr("verify")
