"""A log in which nothing is recorded, for a view while the real one cannot be read."""

from __future__ import annotations

from typing import cast

from langchain_ctxmgr.storage.message_log import MessageLog


class _NothingRecorded:
    """What a view reads of a log, all of it empty."""

    def read(self, *_: object, **__: object) -> list[object]:
        return []

    top = fetch = read

    def find(self, *_: object, **__: object) -> None:
        return None

    locate = revised = get_derived = put_derived = find


NOTHING_RECORDED = cast("MessageLog", _NothingRecorded())
