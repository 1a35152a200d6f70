from __future__ import annotations

from tests.integration import summary_kills


def test_what_is_due_is_made_once_whatever_is_killed():
    assert "none left due" in summary_kills.run(kills=3)
