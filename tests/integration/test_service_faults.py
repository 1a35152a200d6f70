from __future__ import annotations

import pytest

from langchain_ctxmgr.memory import breaker
from tests.integration import service_faults


# A client whose server is killed leaves sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_turns_go_on_while_each_service_is_killed_paused_and_restarted(monkeypatch):
    monkeypatch.setattr(breaker, "REST_SECONDS", 1.0)
    monkeypatch.setattr(breaker, "LOG_REST_SECONDS", 1.0)
    faults = tuple(fault._replace(seconds=min(fault.seconds, 1)) for fault in service_faults.FAULTS)
    figures = service_faults.run(turns=100, faults=faults)
    assert figures.turns >= 100
    assert figures.degraded
