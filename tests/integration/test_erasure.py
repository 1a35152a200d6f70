"""A user who is forgotten is in no file, table or key, in a short run."""

from __future__ import annotations

from tests.integration.erasure import over_a_folder, over_servers

MESSAGES = 160


def test_over_a_folder(tmp_path):
    receipt = over_a_folder(tmp_path / "data", MESSAGES)
    assert receipt.messages == MESSAGES + 2


def test_over_servers():
    receipt = over_servers(MESSAGES)
    assert receipt.messages == MESSAGES + 2
