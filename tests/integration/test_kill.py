from __future__ import annotations

from tests.integration import kill_loop


def test_nothing_acknowledged_is_lost_to_kill_9():
    assert kill_loop.run(kills=4) > 0
