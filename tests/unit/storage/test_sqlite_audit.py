"""Tampering is found and told where; what is erased is gone from the bytes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest

from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.storage.message_log import MAX_PROBLEMS, Withdrawal
from langchain_ctxmgr.storage.sqlite import SqliteLog
from tests.contracts.message_log import ALICE, ALICES, BOB, OTHER, draft, ids, talk

CANARY = "xylophonecanary"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def log(path):
    with SqliteLog(path, busy_timeout=timedelta(seconds=0.3)) as log:
        yield log


def tamper(path, *statements):
    with closing(sqlite3.connect(path)) as other:
        for statement in statements:
            assert other.execute(statement).rowcount != 0, statement
        other.commit()


class TestVerifying:
    @pytest.fixture(autouse=True)
    def recorded(self, log):
        log.append(BOB, talk(4))
        log.append(ALICE, talk(6))
        log.append(ALICE, [draft("edited", "m2"), draft("fork", "f")])

    def problems(self, log):
        found = log.verify()
        assert not found.ok
        assert log.verify(BOB).ok
        return found.problems

    def test_changed_content_is_found(self, log, path):
        tamper(path, "UPDATE contents SET payload = replace(payload, 'm1', 'mX') WHERE seq = 6")
        [problem] = self.problems(log)
        assert problem == "tenant 'acme', thread 't1', position 1: its content was changed"

    def test_changed_content_with_its_digest_is_found(self, log, path):
        tamper(path, "UPDATE contents SET digest = zeroblob(32) WHERE seq = 6")
        assert any("position 1: its fields" in problem for problem in self.problems(log))

    @pytest.mark.parametrize("column", ["digest", "row_digest", "chain"])
    def test_what_is_left_of_a_withdrawn_record_is_checked(self, log, path, column):
        log.withdraw(ALICES, Withdrawal(message_ids=("m1",)))
        assert log.verify().ok
        tamper(path, f"UPDATE withdrawn SET {column} = zeroblob(32)")  # noqa: S608 - of ours
        assert any("position 1: what is left of it" in problem for problem in self.problems(log))

    def test_a_withdrawal_is_not_hidden(self, log, path):
        log.withdraw(ALICES, Withdrawal(message_ids=("m1",)))
        tamper(path, "UPDATE threads SET withdrawn = 0 WHERE withdrawn > 0")
        assert any("counts were changed" in problem for problem in self.problems(log))

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("user_id", "'mallory'"),
            ("branch", "7"),
            ("slot", "70"),
            ("revision", "3"),
            ("parent", "0"),
            ("session", "1"),
            ("message_id", "x'00'"),
            ("role", "'ai'"),
            ("speaker", "x'41'"),
            ("at", "at + 1"),
            ("tokens", "tokens + 1"),
            ("encoding", "'x'"),
            ("importance", "0.51"),
            ("cues", "4"),
            ("total_tokens", "0"),
            ("total_importance", "0.0"),
        ],
    )
    def test_a_changed_field_is_found(self, log, path, column, value):
        tamper(path, f"UPDATE records SET {column} = {value} WHERE seq = 7")  # noqa: S608
        problems = self.problems(log)
        assert any("'t1', position 2: its fields were changed" in found for found in problems)

    def test_changed_terms_are_found(self, log, path):
        tamper(path, "UPDATE contents SET terms = x'00000000' WHERE seq = 7")
        assert "position 2: its fields" in self.problems(log)[0]

    def test_a_missing_record_is_found(self, log, path):
        tamper(path, "DELETE FROM records WHERE seq = 7", "DELETE FROM contents WHERE seq = 7")
        [problem] = self.problems(log)
        assert problem == "tenant 'acme', thread 't1', position 2: missing"

    def test_missing_records_in_a_row_are_one_problem(self, log, path):
        tamper(path, "DELETE FROM records WHERE seq IN (5, 6, 7)")
        problems = self.problems(log)
        assert "position 0 to 2: missing" in problems[0]
        assert "3 contents whose record is missing" in problems

    def test_missing_content_is_found(self, log, path):
        tamper(path, "DELETE FROM contents WHERE seq = 7")
        assert "position 2: its content is missing" in self.problems(log)[0]

    def test_swapped_records_are_found(self, log, path):
        tamper(
            path,
            "UPDATE records SET position = 99 WHERE seq = 6",
            "UPDATE records SET position = 1 WHERE seq = 7",
            "UPDATE records SET position = 2 WHERE seq = 6",
        )
        problems = "\n".join(self.problems(log))
        assert "position 1: its fields" in problems
        assert "position 2: recorded out of order" in problems

    def test_swapped_contents_are_found(self, log, path):
        tamper(
            path,
            "UPDATE contents SET seq = 99 WHERE seq = 6",
            "UPDATE contents SET seq = 6 WHERE seq = 7",
            "UPDATE contents SET seq = 7 WHERE seq = 99",
        )
        problems = "\n".join(self.problems(log))
        assert "position 1: its fields" in problems
        assert "position 2: its fields" in problems

    def test_a_cut_off_end_is_found(self, log, path):
        for table in ("records", "contents"):
            tamper(path, f"DELETE FROM {table} WHERE seq = (SELECT max(seq) FROM {table})")  # noqa: S608
        assert any("position 7: missing: the end is cut off" in p for p in self.problems(log))

    def test_a_changed_end_is_found(self, log, path):
        tamper(path, "UPDATE threads SET chain = zeroblob(32) WHERE thread_id = 't1'")
        assert "does not end where it was left" in self.problems(log)[0]

    def test_an_emptied_thread_is_found(self, log, path):
        tamper(path, "DELETE FROM records WHERE thread = 2", "DELETE FROM contents WHERE seq > 4")
        assert "position 0 to 7: missing: the end is cut off" in self.problems(log)[0]

    def test_records_of_a_missing_thread_are_found(self, log, path):
        tamper(path, "DELETE FROM threads WHERE thread_id = 't1'")
        assert "8 records whose thread is missing" in self.problems(log)

    def test_a_moved_branch_end_is_found(self, log, path):
        tamper(path, "UPDATE branches SET tip_slot = 1 WHERE thread = 2 AND branch = 0")
        assert any("branch 0" in problem for problem in self.problems(log))

    def test_a_lost_branch_is_found(self, log, path):
        tamper(path, "DELETE FROM branches WHERE thread = 2 AND branch = 1")
        assert "1 branches lost" in self.problems(log)[0]

    def test_changed_counts_are_found(self, log, path):
        tamper(path, "UPDATE threads SET bytes = 1 WHERE thread_id = 't1'")
        assert "its counts were changed" in self.problems(log)[0]

    def test_many_problems_are_counted(self, log, path):
        log.append(ALICE, talk(300, first=20))
        tamper(path, "UPDATE records SET cues = 1 WHERE thread = 2")
        problems = self.problems(log)
        assert len(problems) == MAX_PROBLEMS + 1
        assert problems[-1] == f"and {308 - MAX_PROBLEMS} more"


class TestErasing:
    def bytes_on_disk(self, path):
        return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())

    def fill(self, log):
        for number in range(60):
            size = (10, 400, 9_000)[number % 3]
            drafts = [
                draft(f"{CANARY} {number} " + "filler " * (size // 7), f"{CANARY}-{number}"),
                draft("ordinary", f"m{number}"),
            ]
            log.append(ALICE, drafts[:1])
            log.append(BOB, drafts[1:])
            log.append(ALICE, [draft(f"edited {CANARY}", f"{CANARY}-{number}")])
            choice = f"{CANARY} {number}".encode() * 20
            log.put_derived(log.branch(ALICE), "choice", f"k{number}", choice)

    def test_no_byte_of_an_erased_thread_is_left(self, log, path):
        self.fill(log)
        assert CANARY.encode() in self.bytes_on_disk(path)
        erased = log.erase(ALICES)
        assert (erased.messages, erased.derived) == (120, 8)
        assert CANARY.encode() not in self.bytes_on_disk(path)
        assert len(ids(log.history(BOB))) == 60
        assert log.verify().ok
        log.append(BOB, talk(1, first=60))
        assert CANARY.encode() not in self.bytes_on_disk(path)

    def test_no_byte_is_left_while_others_have_the_file_open(self, log, path):
        self.fill(log)
        with SqliteLog(path) as other:
            assert len(list(other.history(BOB))) == 60
            log.erase(ALICES)
            assert CANARY.encode() not in self.bytes_on_disk(path)
            assert list(other.history(ALICE)) == []

    def test_the_keyword_index_forgets_the_terms(self, log, path):
        log.append(ALICE, [draft("x", terms=(0x7ABCDEF0,))])
        log.append(OTHER, [draft("x", terms=(0x7ABCDEF1,))])
        log.erase(ALICES)
        assert b"7abcdef0" not in self.bytes_on_disk(path)
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE VIRTUAL TABLE temp.words USING fts5vocab(main, 'keywords', 'row')"
            )
            words = {word for (word,) in other.execute("SELECT term FROM temp.words")}
        assert "7abcdef1" in words
        assert "7abcdef0" not in words

    def test_a_reader_that_keeps_the_bytes_is_told_and_the_next_erase_finishes(self, log, path):
        self.fill(log)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM records").fetchone()
            with pytest.raises(StorageError, match="call erase again"):
                log.erase(ALICES)
            assert list(log.history(ALICE)) == []
            reader.execute("COMMIT")
        assert log.erase(ALICES).messages == 0
        assert CANARY.encode() not in self.bytes_on_disk(path)
