"""Telling a provider's "the prompt is too long" from its other refusals.

Providers say it in their own ways and integrations pass it on in others: an exception class of
LangChain's, a `code` in the body of a plain invalid-request error, or words. Status and code
are read first, words only of an error that has a refusal's status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from langchain_core.exceptions import ContextOverflowError

_STATUSES: Final = frozenset({400, 413, 422})
_CODES: Final = frozenset({"context_length_exceeded", "string_above_max_length"})
_WORDS: Final = re.compile(
    r"maximum context length|context[ _]length|context window|prompt is too long"
    r"|input is too long|too many (input )?tokens|exceeds the (maximum|model)",
    re.IGNORECASE,
)
_NUMBERS: Final = re.compile(r"(\d[\d,]*) tokens|(\d[\d,]*) (?:> |maximum)", re.IGNORECASE)
_MARGIN: Final = 0.9
"""Of the room that the provider's own numbers leave."""
_SMALLER: Final = 0.6
"""Of what was sent, where the provider gives no numbers."""


def is_overflow(error: BaseException) -> bool:
    """Whether a provider refused a prompt for its length."""
    if isinstance(error, ContextOverflowError):
        return True
    status = getattr(error, "status_code", None)
    if status not in _STATUSES:
        return False
    return bool(_CODES & _codes(error)) or status == 413 or _WORDS.search(str(error)) is not None  # noqa: PLR2004


def smaller(sent_tokens: int, error: BaseException) -> int:
    """The limit to try next, from what was sent and what the provider says of it.

    Where it names its limit and the length it counted, the room is scaled by these: its
    tokens may be others than those counted here.
    """
    said = [int((a or b).replace(",", "")) for a, b in _NUMBERS.findall(str(error))]
    if len(said) > 1 and 0 < min(said) < max(said):
        return max(1, int(sent_tokens * _MARGIN * min(said) / max(said)))
    return max(1, int(sent_tokens * _SMALLER))


def _codes(error: BaseException) -> set[str]:
    """The codes an error carries: its own, and those in its body, `error` inside or not."""
    found = [getattr(error, "code", None)]
    body: Any = getattr(error, "body", None)
    for _ in range(2):
        if isinstance(body, Mapping):
            fields = cast("Mapping[str, Any]", body)
            found += [fields.get("code"), fields.get("type")]
            body = fields.get("error")
    return {code for code in found if isinstance(code, str)}
