"""Tokens by script, for a machine without a vocabulary (interim rates)."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z]{1,5}|[0-9]{1,3}|[^\sA-Za-z0-9\x80-\U0010ffff]{1,2}|\s+(?=\s)|\n")
_OTHER = re.compile(r"[^\x00-\x7f]+")


class Estimator:
    """Estimates what a vocabulary would count."""

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding

    def tokens(self, text: str) -> int:
        """Estimated tokens of `text`."""
        total = len(_WORD.findall(text))
        if not text.isascii():
            total += sum(len(run) for run in _OTHER.findall(text)) * 5 // 4 + 1
        return total
