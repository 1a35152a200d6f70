"""Text that tells the memory what to believe, rather than stating something.

It is kept as data and flagged. A user may ask for something to be remembered; a tool's output,
a page or a document may not.
"""

from __future__ import annotations

import re
from typing import Final

from langchain_ctxmgr.memory.facts.values import Authority

_INSTRUCTS: Final = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass) (?:all |any |the |your |every |everything )*"
    r"(?:previous|prior|above|earlier|system|other|safety|existing|instructions?|rules?|memor(?:y"
    r"|ies)|facts?|guidelines)\b"
    r"|\bsystem prompt\b|\byou are now\b|\byou must (?:now|always|never|obey)\b"
    r"|\bnew instructions?\b"
    r"|\b(?:update|overwrite|set|save|store|write|add|insert|append|put)\b[^.]{0,40}\b(?:your"
    r"|long-term|the) (?:memory|memories|facts|profile)\b"
    r"|\bfrom now on,? (?:you|always|never|the (?:user|assistant))\b|\b(?:assistant|ai|model"
    r"|bot)(?: must| should|:)"
    r"|\bthe user (?:is|has|wants|prefers|said|told|authori[sz]ed|likes|lives|works)\b"
    r"|</?(?:system|assistant|instructions?|recalled|facts)\b"
    r"|\b(?:my|the user's) (?:permissions?|privileges?|access)\b|\b(?:superusers?|sudo)\b"
    r"|[\u202a-\u202e\u2066-\u2069]"  # what turns the direction of writing hides the words
    r"|\b(?:admin|root|developer) (?:mode|access|override)\b"
    r"|\b(?:remember|memori[sz]e)\b[^.]{0,60}\b(?:admin\w*|passwords?|authori[sz]ed|always|never"
    r"|must)\b",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(
    r"\b(?:remember|memori[sz]e|note|keep in mind|do not forget|don't forget|important"
    r"|attention)\b(?: that|:| this|!)",
    re.IGNORECASE,
)


def is_instruction(sentence: str, authority: Authority) -> bool:
    """Whether `sentence` reads like an instruction to the memory."""
    if _INSTRUCTS.search(sentence):
        return True
    return authority in {Authority.TOOL, Authority.AGENT} and bool(_ASKS.search(sentence))
