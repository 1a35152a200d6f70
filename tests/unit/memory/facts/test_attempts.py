"""Attempts to make stored text act as an instruction, written apart from the rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from langchain_ctxmgr.memory.facts.extraction import statements
from langchain_ctxmgr.memory.facts.values import Authority

DATA = Path(__file__).parents[3] / "data" / "injections.jsonl"
ATTEMPTS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines() if line]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt["id"])
def test_none_becomes_a_fact(attempt):
    authority = Authority.TOOL if attempt["channel"] == "tool" else Authority.USER
    found = statements(attempt["text"], at=datetime(2026, 1, 1, tzinfo=UTC), authority=authority)
    assert all(each.is_flagged for each in found)
