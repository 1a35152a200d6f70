from __future__ import annotations

from langchain_ctxmgr.storage.message_log import MessageLog
from langchain_ctxmgr.storage.sqlite import SqliteLog
from tests.contracts.message_log import MessageLogContract
from tests.contracts.weights import WeightsContract
from tests.contracts.withdrawal import WithdrawalContract


class TestSqliteLog(MessageLogContract, WeightsContract, WithdrawalContract):
    def make(self, tmp_path) -> MessageLog:
        return SqliteLog(tmp_path / "log.db")
