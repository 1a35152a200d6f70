"""Tokens by script, for a machine without a vocabulary.

ASCII text is split roughly as OpenAI's vocabularies split it: short words, runs of digits
and of punctuation are a token each. Other characters cost a rate by script, measured
against each vocabulary on translated software messages, manuals and chat (2 to 5 % are
added, since a prompt that fits by an estimate should fit). A script without a rate costs a
token a byte, which no vocabulary of bytes exceeds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

_ASCII_MARGIN = 1.05
"""Rare words take two tokens: 1 to 2 % in chat, 5 % in code and logs."""

_PIECE = re.compile(
    r"_?[A-Z]?[a-z]{1,8}(?:'(?:[smdt]|ll|re|ve)\b)?"
    r"|_?[A-Z]{1,4}"
    r"|[0-9]{1,3}"
    r"|([!-/:-@\[-`{-~])\1{3,63}"  # rulers and indentation marks
    r"|[!-/:-@\[-`{-~]{1,3}(?:\r?\n)*"
    r"|[ \t]*[\r\n]+"
    r"|[ \t]{2,80}"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
"""About a token each; a single space belongs to the word after it."""

_PACKED = re.compile(r"[A-Za-z0-9+/]{40,}")
_PACKED_CHARS_PER_EXTRA_TOKEN = 8
"""Base64 and the like: its pieces are no words, so every other one takes two tokens."""

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")

_TRADITIONAL = frozenset(
    "們這個來說時對會學國過為發後經當動種樣從現實與點請開關應無單體電話問題檔錯誤選項設執"
    "資訊網頁連線號碼數機關係書讀寫買賣車東馬鳥魚麼還沒讓給長門見覺謝認識聽寶愛氣"
)
"""Frequent characters that simplified Chinese writes otherwise."""
_TRADITIONAL_SHARE = 0.05
_TRADITIONAL_RATES = (0.98, 1.43)

_KANA = (0x3041, 0x30FF)
_HAN = (0x3400, 0x9FFF)


class _Rates(NamedTuple):
    """Tokens a character from `start` up to the next entry, by vocabulary."""

    start: int
    o200k_base: float
    cl100k_base: float


_BLOCKS = (
    _Rates(0x0080, 1.0, 1.1),
    _Rates(0x00C0, 0.9, 1.8),  # accented Latin: also stands for words that are not English
    _Rates(0x0250, 1.5, 2.0),
    _Rates(0x0370, 0.43, 1.06),  # Greek
    _Rates(0x0400, 0.36, 0.60),  # Cyrillic
    _Rates(0x0530, 0.40, 2.16),  # Armenian
    _Rates(0x0590, 0.54, 1.23),  # Hebrew
    _Rates(0x0600, 0.42, 0.88),  # Arabic
    _Rates(0x0700, 2.0, 2.0),
    _Rates(0x0750, 0.60, 1.20),
    _Rates(0x0780, 2.0, 2.0),
    _Rates(0x0900, 0.44, 1.28),  # Devanagari
    _Rates(0x0980, 0.44, 1.43),  # Bengali
    _Rates(0x0A00, 0.68, 2.03),  # Gurmukhi
    _Rates(0x0A80, 0.48, 2.03),  # Gujarati
    _Rates(0x0B00, 1.19, 3.0),  # Oriya
    _Rates(0x0B80, 0.40, 1.55),  # Tamil
    _Rates(0x0C00, 0.52, 2.03),  # Telugu
    _Rates(0x0C80, 0.46, 2.03),  # Kannada
    _Rates(0x0D00, 0.43, 1.83),  # Malayalam
    _Rates(0x0D80, 0.67, 2.18),  # Sinhala
    _Rates(0x0E00, 0.46, 1.02),  # Thai
    _Rates(0x0E80, 3.0, 3.0),
    _Rates(0x1000, 0.60, 2.12),  # Burmese
    _Rates(0x10A0, 0.38, 2.13),  # Georgian
    _Rates(0x1100, 3.0, 3.0),
    _Rates(0x1780, 0.65, 1.85),  # Khmer
    _Rates(0x1800, 3.0, 3.0),
    _Rates(0x1E00, 0.6, 1.2),  # Vietnamese
    _Rates(0x1F00, 3.0, 3.0),
    _Rates(0x2000, 1.0, 1.3),  # quotes, dashes, joiners
    _Rates(0x2070, 1.6, 2.0),
    _Rates(0x2500, 1.1, 1.4),  # boxes
    _Rates(0x2600, 1.8, 2.1),  # symbols that double as emoji
    _Rates(0x27C0, 3.0, 3.0),
    _Rates(0x3000, 1.0, 1.0),  # CJK punctuation
    _Rates(_KANA[0], 0.66, 0.98),
    _Rates(0x3100, 2.0, 2.5),
    _Rates(0x3130, 1.2, 2.0),
    _Rates(0x3190, 3.0, 3.0),
    _Rates(_HAN[0], 0.80, 1.10),
    _Rates(_HAN[1] + 1, 3.0, 3.0),
    _Rates(0xAC00, 0.80, 1.36),  # Hangul
    _Rates(0xD7B0, 3.0, 3.0),
    _Rates(0xFE00, 1.0, 1.5),  # emoji presentation
    _Rates(0xFE10, 3.0, 3.0),
    _Rates(0xFF00, 1.1, 1.4),  # full-width forms
    _Rates(0xFF61, 3.0, 3.0),
    _Rates(0x10000, 4.0, 4.0),
    _Rates(0x1F000, 2.2, 2.9),  # emoji
    _Rates(0x1F600, 1.95, 2.15),  # faces
    _Rates(0x1F650, 2.3, 3.0),
    _Rates(0x1FB00, 4.0, 4.0),
)
_STARTS = tuple(block.start for block in _BLOCKS)


class Estimator:
    """Estimates what a vocabulary counts.

    `encoding` is `o200k_base` or `cl100k_base`; None takes the higher rate of the two.
    """

    def __init__(self, encoding: str | None) -> None:
        self._encoding = encoding
        self._rates: dict[str, float] = {}

    def tokens(self, text: str) -> int:
        """Estimated tokens of `text`."""
        pieces = len(_PIECE.findall(text))
        for packed in _PACKED.findall(text):
            if not packed.isalpha():
                pieces += len(packed) // _PACKED_CHARS_PER_EXTRA_TOKEN
        total = pieces * _ASCII_MARGIN
        if not text.isascii():
            total += self._non_ascii("".join(_NON_ASCII.findall(text)))
        return max(math.ceil(total), 1 if text else 0)

    def _non_ascii(self, text: str) -> float:
        counts = Counter(text)
        rates = self._rates
        total = 0.0
        han = traditional = 0
        for char, times in counts.items():
            rate = rates.get(char)
            if rate is None:
                rate = rates[char] = self._rate_of(char)
            total += rate * times
            if _HAN[0] <= ord(char) <= _HAN[1]:
                han += times
                traditional += times if char in _TRADITIONAL else 0
        if traditional > han * _TRADITIONAL_SHARE:
            plain = self._pick(*_BLOCKS[bisect_right(_STARTS, _HAN[0]) - 1][1:])
            total += han * (self._pick(*_TRADITIONAL_RATES) - plain)
        return total

    def _rate_of(self, char: str) -> float:
        block = _BLOCKS[bisect_right(_STARTS, ord(char)) - 1]
        return self._pick(block.o200k_base, block.cl100k_base)

    def _pick(self, o200k_base: float, cl100k_base: float) -> float:
        if self._encoding == "o200k_base":
            return o200k_base
        if self._encoding == "cl100k_base":
            return cl100k_base
        return max(o200k_base, cl100k_base)
