from __future__ import annotations

import pytest

from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.postgres import PostgresLog
from tests.contracts.message_log import MessageLogContract
from tests.contracts.weights import WeightsContract
from tests.contracts.withdrawal import WithdrawalContract


class TestPostgresLog(MessageLogContract, WeightsContract, WithdrawalContract):
    """As a plain role that may use the tables and owns none."""

    @pytest.fixture(autouse=True)
    def use(self, postgres):
        self.database = postgres
        postgres.empty()

    def make(self, tmp_path) -> MessageLog:
        return PostgresLog(self.database.url(self.database.app))
