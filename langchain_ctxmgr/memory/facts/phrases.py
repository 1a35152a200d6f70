"""The words behind a verb as the object of a fact."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from langchain_ctxmgr.memory.facts.values import listed

_MOST_WORDS: Final = 12
"""A longer object is a story."""
_CUT: Final = re.compile(
    r"\s*(?:,(?!\d| [A-Z]\w+$| [\w-]+(?: [\w-]+)?(?:,| and | or ))|:(?!\d)|[;(\[]|\b(?:because"
    r"|since (?!\d|last|my|I was)|so that|so I|which|who|whom"
    r"|whose|where|while|although|though|but"
    r"|when|whenever|until|unless|even though|rather than|instead of|and (?:I|we|he|she|they|it"
    r"|then|now|so|also|still)|except|if"
    r"|whether|as I|as we|than|thanks to|due to|these days|right now|at the moment|anymore"
    r"|any more|as well|either|too|lol|haha)\b).*$"
)
_AND_ITS_VERB: Final = re.compile(
    r" and (?:am|is|are|was|were|have|has|had|do|does|did|can|will|would|love|like|hate|enjoy"
    r"|work|live|need|want)s?\b.*$"
)
_WHEN: Final = re.compile(
    r"\s+(?:(?:since|for (?:the )?(?:past |last |about |over |almost |nearly "
    r"|around )?(?:\w+ )?(?:years?|months?|weeks?|days?|decades?|a while|ages|now)\b).*"
    r"|(?:\w+ )?(?:years?|months?|weeks?|days?|decades?) ago|(?:a )?(?:few|couple of"
    r"|couple) \w+ ago|last \w+|this (?:year|month|week|summer|winter|spring|fall|autumn)|now"
    r"|currently"
    r"|nowadays|today|recently|again|already|full-time|part-time|at the moment|yesterday|soon"
    r"|together|a lot|very much|so much|btw|by the way|though|lol|haha|yet|for real|actually)$",
    re.IGNORECASE,
)
_DATED: Final = re.compile(
    r"\s+(?:in|on|from|by|until|around|every|each|starting|at|next|this|early in"
    r"|late in) (?:the )?(?:early |late |mid-?)?"
    r"(?:\d{4}\b|\d{1,2}(?:st|nd|rd|th)?(?: of)? (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov"
    r"|Dec)|\d{1,2}(?::\d\d)? ?(?:am|pm)\b|\d{1,2}:\d\d"
    r"|January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|spring|summer|autumn|fall|winter"
    r"|week|month|year|day|morning|evening"
    r"|afternoon|night|weekends?|weekdays)\b.*$|\s+(?:twice|once|\w+ times) (?:a|per|every) \w+$"
    r"|\s+(?:daily|weekly|tomorrow|tonight)(?: .*)?$"
)
_OPENING: Final = re.compile(
    r"^(?:an?|the|some|also|both|really|just|currently|now|up|about|around|approximately)\s+",
    re.IGNORECASE,
)
_EMPTY: Final = listed(
    "late early short low high it this that these those them him her you me us something "
    "anything everything nothing one ones someone anyone everyone here there lot much more "
    "most less many some any all things stuff others each ready well fine ok okay good way "
    "ways kind sort such mine yours myself yourself itself both so"
)
_EMPTY_OPENING: Final = listed(
    "that how what why when if whether it this these those your you yours him them me us "
    "rid used let to in on at since by through along away back over ahead started going it's too "
    "enough such "
    "here there another any"
)
_ABSTRACT: Final = listed(
    "question questions problem problems issue issues idea ideas feeling feelings doubt "
    "doubts moment look point points time trouble fun concern concerns suggestion "
    "suggestions chance access plan plans thing thoughts thought reason choice clue request "
    "error errors bug bugs bit minute second blast break hunch headache cold need sense "
    "interest confession opinion preference comment hard difficulty luck care news answer "
    "stuff place part reminder experience favor favour note notes advantage mood tab"
)
_VAGUE: Final = listed(
    "good great nice bad terrible awful amazing awesome wonderful horrible perfect "
    "fantastic lovely beautiful interesting fun funny cool weird strange crazy hard "
    "difficult easy simple important huge big small little tiny long short lot bit mess "
    "pain nightmare joke shame pity pleasure disaster total complete real true such few "
    "couple quick better best worst different similar same other whole new-ish super "
    "brilliant decent rough tough busy day week weekend surprise relief idea thing problem "
    "issue question question-mark mistake lie must win-win blessing breeze treat challenge "
    "delight must-see game-changer step reminder"
)


def object_of(rest: Sequence[str], *, keeps_time: bool = False) -> str | None:
    """What a fact says it of; None where that says nothing.

    Args:
        rest: Words behind verb and preposition.
        keeps_time: Whether when it is belongs to it, as with an event.
    """
    said = _AND_ITS_VERB.sub("", _CUT.sub("", " ".join(rest)))
    if not keeps_time:
        while (shorter := _DATED.sub("", _WHEN.sub("", f" {said}").strip())) != said:
            said = shorter
    said = said.strip(" ,.!'\"")
    while (shorter := _OPENING.sub("", said, count=1)) != said:
        said = shorter
    words = said.split()
    if len(words) > _MOST_WORDS and "," in said:
        words = said.partition(",")[0].split()
        said = " ".join(words)
    if not words or len(words) > _MOST_WORDS:
        return None
    if words[0].lower() == "her" and (
        len(words) == 1 or words[1] in {"from", "to", "in", "at", "with", "for", "a", "the"}
    ):
        return None
    first, last = words[0].lower(), words[-1].lower()
    if (
        first in _EMPTY_OPENING
        or (len(words) == 1 and first in _EMPTY)
        or last in {"to", "and", "or", "you", "it"}
    ):
        return None
    return said


def is_abstract(thing: str) -> bool:
    """Whether what one has is no thing to remember: a question, a feeling."""
    head = re.split(
        r"\s(?:about|of|with|for|on|to|in|that|regarding|what|how|whether|why)\s", thing
    )[0].split()
    return bool(head) and head[-1].lower() in _ABSTRACT


def is_vague(complement: str) -> bool:
    """Whether what something is said to be is an opinion: `a great idea`, `a mess`."""
    words = complement.lower().split()
    while words and words[0] in {
        "very",
        "really",
        "pretty",
        "quite",
        "so",
        "such",
        "an",
        "a",
        "the",
        "kind",
        "of",
    }:
        words = words[1:]
    return not words or words[0] in _VAGUE or words[-1] in _VAGUE
