"""What a user asks for that holds from then on, such as always to answer in metric units.

Found by wording, a sentence at a time, without a model: an order or a wish to the assistant with a
word that says it is for good. What people say of themselves ("I always walk") is none. English.
"""

from __future__ import annotations

import re
from typing import Final

from langchain_ctxmgr.analysis import is_question, sentences

READ_CHARS: Final = 8_192
"""So much of a message is read."""
_MOST_CHARS: Final = 300
"""A longer sentence is no plain request."""
_FOR_GOOD: Final = (
    r"(?:always|never|from now on|going forward|whenever|(?:every|each|any) ?time|at all times)"
)
_REQUEST: Final = re.compile(
    r"^(?:(?:and|also|so|but|ok|okay|please|just|then|hey|btw),? )*"
    r"(?:always|never|from now on|going forward|in (?:the )?future|by default"
    r"|whenever (?:i|you|we)|(?:every|each|any) ?time (?:i|you|we)"
    r"|for (?:all|every) \w+ (?:answer|repl(?:y|ies)|response|message)s?)\b"
    r"|\b(?:i(?:'d| would)? (?:want|need|like|prefer)|you (?:should|must|need to|have to)"
    r"|make sure(?: to| you)?|remember to|be sure to|please|do not|don't)\b"
    rf"[^.!?]{{0,40}}\b{_FOR_GOOD}\b",
    re.IGNORECASE,
)


def standing_requests(text: str) -> list[str]:
    """The sentences of a user's message that ask for something from then on, as they stand."""
    said = (sentence.strip() for sentence in sentences(text[:READ_CHARS]))
    return [
        each
        for each in said
        if len(each) <= _MOST_CHARS
        and not is_question(each)
        and _REQUEST.search(each.replace("\u2019", "'"))
    ]
