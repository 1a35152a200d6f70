"""What a text says, found without a model: its words, sentences and cues.

The bottom layer of recall, importance and summaries. Everything here is a pure function
of its argument and gives the same answer on every machine, because term ids are written
to disk. English words are stemmed; scripts that do not put spaces between words
(Chinese, Japanese, Thai, Khmer, Lao, Burmese) and Korean, which glues particles to
them, become character pairs; other scripts keep their words.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from enum import IntFlag
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import Any, cast

import snowballstemmer  # pyright: ignore[reportMissingTypeStubs]
from langchain_core.messages import AIMessage, BaseMessage

CAPTION_KEYS = ("caption", "alt", "alt_text", "description", "title", "transcript")
"""Where hosts put what a picture, sound or file shows."""

MAX_SENTENCE_CHARS = 600
"""Longer runs without an end mark are cut at a space: a log dump is no sentence."""


def _set(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


BM25_K1 = 1.2
BM25_B = 0.75
"""BM25's usual constants. Source: Robertson and Zaragoza 2009, section 3.4."""
_TERM_ID_BITS = 0x7FFF_FFFF
_PAIR_SPREAD = 0x9E37_79B1
"""2^32 over the golden ratio: ids of pairs spread evenly (Knuth, TAOCP 3, section 6.4)."""
_CACHED_WORDS = 65_536

# --- the text of a message -----------------------------------------------------------


def message_text(message: BaseMessage) -> str:
    """What `message` says in words, to be indexed and recalled; empty if nothing.

    Text blocks as they stand; pictures, sounds and files by their caption in brackets;
    tool calls as `name(arguments)` where the model said nothing beside them. Reasoning
    is left out: it is not part of the conversation.
    """
    content = cast("str | list[Any]", message.content)  # pyright: ignore[reportUnknownMemberType]
    if isinstance(content, str):
        text = content
    else:
        text = "\n".join(part for part in map(_block_text, content) if part)
    if not text.strip() and isinstance(message, AIMessage):
        calls = (_call_text(call["name"], call["args"]) for call in message.tool_calls)
        text = "\n".join(calls)
    return text


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if not isinstance(block, Mapping):
        return ""
    fields = cast("Mapping[str, Any]", block)
    kind = fields.get("type")
    if kind in {"text", "text-plain", "refusal", "input_text", "output_text"}:
        said = fields.get("text") or fields.get("refusal")
        return said if isinstance(said, str) else ""
    if kind == "tool_result":
        inner = fields.get("content")
        if isinstance(inner, str):
            return inner
        parts = cast("list[Any]", inner) if isinstance(inner, list) else []
        return "\n".join(part for part in map(_block_text, parts) if part)
    return _caption(fields)


def _caption(fields: Mapping[str, Any]) -> str:
    places: list[Any] = [fields, fields.get("extras"), fields.get("metadata"), fields.get("image")]
    for place in places:
        if not isinstance(place, Mapping):
            continue
        described = cast("Mapping[str, Any]", place)
        for key in CAPTION_KEYS:
            said = described.get(key)
            if isinstance(said, str) and said.strip():
                return f"[{said.strip()}]"
    return ""


def _call_text(name: str, args: Mapping[str, Any]) -> str:
    compact = json.dumps(args, ensure_ascii=False, separators=(",", ":"), default=str)
    return f"{name}({compact})"


# --- sentences -----------------------------------------------------------------------

_CLOSING = "\"')\\]*_\u2019\u201d\u00bb\u300d\u300f\uff09\u3011"
_ENDS = r".!?\u2026\u061f\u06d4\u0964\u0965\u1362"
_BOUNDARY = re.compile(
    r"(?P<line>\n\s*)"  # a line is a unit: lists, code
    rf"|(?P<wide>[\u3002\uff01\uff1f\uff61\uff0e]+[{_CLOSING}]*\s*)"  # full-width: no space needed
    rf"|(?P<mark>(?<![{_ENDS}])[{_ENDS}]++[{_CLOSING}]*+(?:[ \t]+|$))"
)
_ABBREVIATIONS = _set(
    "mr mrs ms dr prof st sr jr vs etc eg ie e.g i.e cf nos fig vol inc ltd co corp dept "
    "est approx a.m p.m u.s u.k gen sen rep rev hon pp"
)
_LAST_WORD = re.compile(r"[\w.]+$")
_ABBREVIATION_CHARS = 12
"""No abbreviation or list number is longer; looking back further takes quadratic time."""


def sentences(text: str) -> list[str]:
    """`text` in sentences; joined without a separator they give `text` back exactly.

    A line end always closes a sentence, so bullets and lines of code stand alone.
    Trailing white space belongs to the sentence before it.
    """
    pieces: list[str] = []
    start = 0
    for boundary in _BOUNDARY.finditer(text):
        end = boundary.end()
        if boundary.lastgroup == "mark" and _goes_on(text, start, boundary.start(), end):
            continue
        if not text[start:end].strip():
            continue
        pieces.extend(_bounded(text[start:end]))
        start = end
    if start < len(text):
        rest = text[start:]
        if pieces and not rest.strip():
            pieces[-1] += rest
        else:
            pieces.extend(_bounded(rest))
    return pieces


def _goes_on(text: str, start: int, mark: int, end: int) -> bool:
    """Whether the full stop at `mark` closes an abbreviation, an initial or a list number."""
    if text[mark] != "." or text[mark : mark + 2] == "..":
        return False
    if end < len(text) and text[end].islower():
        return True
    last = _LAST_WORD.search(text, max(start, mark - _ABBREVIATION_CHARS), mark)
    if last is None:
        return False
    word = last.group()
    if len(word) == 1 and word.isupper() and word != "I":
        return True
    if word.isdigit():
        return not text[start : last.start()].strip()
    return word.casefold() in _ABBREVIATIONS


def _bounded(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE_CHARS:
        cut = sentence.rfind(" ", MAX_SENTENCE_CHARS // 2, MAX_SENTENCE_CHARS) + 1
        cut = cut or MAX_SENTENCE_CHARS
        yield sentence[:cut]
        sentence = sentence[cut:]
    if sentence:
        yield sentence


# --- terms ---------------------------------------------------------------------------

_PAIRED = (
    r"\u0e01-\u0e4e\u0e81-\u0eff"  # Thai, Lao
    r"\u1000-\u109f\u1780-\u17d3"  # Burmese, Khmer
    r"\u1100-\u11ff\uac00-\ud7af"  # Korean
    r"\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Japanese, Chinese
    r"\U00020000-\U0003134f"
)
_MARKS = (
    r"\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"  # Hebrew points, Arabic harakat
    r"\u0900-\u0963\u0966-\u0dff\u0f71-\u0f84"  # the scripts of India, Tibetan vowels
)
_LETTER = rf"[^\W_{_PAIRED}]"
_LETTERS = rf"{_LETTER}+(?:[{_MARKS}]+{_LETTER}*)*"
_TOKEN = re.compile(
    rf"(?P<paired>[{_PAIRED}]+)"
    r"|(?P<number>\d+(?:[.,:/\-]\d+)*(?!\w))"
    rf"|(?P<word>{_LETTERS}(?:['._/@\-]+{_LETTERS})*)"
)
_ASCII_TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,:/\-]\d+)*(?![a-z0-9_]))|(?P<word>[a-z0-9]+(?:['._/@\-]+[a-z0-9]+)*)"
)
_PLAIN_WORD = re.compile(r"[a-z']+|\d+")
_INNER = re.compile(r"['._/@\-]+")
_DROPPED = re.compile(r"[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]+")
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})

STOP_WORDS = _set(
    "a about above after again against all also am an and any are aren't as at be because been "
    "before being below between both but by can can't cannot could couldn't did didn't do does "
    "doesn't doing don't down during each few for from further get gets getting got had hadn't "
    "has hasn't have haven't having he he'd he'll he's her here here's hers herself him himself "
    "his how how's i i'd i'll i'm i've if in into is isn't it it'd it'll it's its itself just "
    "let's me more most much my myself no nor not of off on once only or other our ours "
    "ourselves out over own really same she she'd she'll she's should shouldn't so some such "
    "than that that'd that'll that's the their theirs them themselves then there there's these "
    "they they'd they'll they're they've this those through to too under until up us very was "
    "wasn't we we'd we'll we're we've were weren't what what's when when's where where's which "
    "while who who's whom why why's with won't would wouldn't yeah yes you you'd you'll you're "
    "you've your yours yourself yourselves"
)
"""English words that say nothing about a topic. `may`, `will` and `us` in capitals are kept."""

_STEMMER = snowballstemmer.EnglishStemmer()
_STEMMING = Lock()
"""A stemmer keeps the word it works on in itself, so threads take turns."""


def terms(text: str) -> tuple[int, ...]:
    """The words of `text` as stable 31-bit ids, in reading order, repeats kept.

    Casefolded, accents and vowel points dropped, English stemmed, English stop words
    left out. Numbers stay whole (`1,250` is `1250`); an identifier such as `KX-12` or
    `user_id` gives itself and its parts; unspaced scripts give character pairs.
    """
    return tuple(map(_term_id, words(text)))


def pair_ids(found: Sequence[int]) -> list[int]:
    """Each two adjacent `terms` as one id, each pair once: a phrase says more than its words."""
    pairs = dict.fromkeys(pairwise(found))
    return list(dict.fromkeys((one * _PAIR_SPREAD + two) & _TERM_ID_BITS for one, two in pairs))


def words(text: str) -> list[str]:
    """The words behind `terms`, before stemming."""
    if text.isascii():
        folded = text.lower()
    else:
        text = text.translate(_QUOTES)
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        folded = unicodedata.normalize("NFKC", _DROPPED.sub("", decomposed))
    found: list[str] = []
    for token in (_ASCII_TOKEN if folded.isascii() else _TOKEN).finditer(folded):
        word = token.group()
        if _PLAIN_WORD.fullmatch(word):
            word = word.removesuffix("'s")
            if word not in STOP_WORDS or (word in {"us", "it"} and _shouted(text, folded, token)):
                found.append(word)
        elif token.lastgroup == "number":
            found.append(word.replace(",", "") if "," in word else word)
        elif token.lastgroup == "paired":
            found.extend(_pairs(word))
        else:
            found.extend(_compound(word))
    return found


def _shouted(text: str, folded: str, token: re.Match[str]) -> bool:
    """Whether a stop word was written in capitals in ordinary text: `US`, `IT`."""
    if len(text) != len(folded):
        return False
    return text[token.start() : token.end()].isupper() and not text.isupper()


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] if len(run) > 1 else [run]


def _compound(word: str) -> list[str]:
    word = word.removesuffix("'s")
    parts = [part for part in _INNER.split(word) if part not in STOP_WORDS]
    if len(parts) < 2:  # noqa: PLR2004 - a single word has no parts of its own
        return parts
    is_identifier = "_" in word or "@" in word or any(c.isdigit() for c in word)
    return [word, *parts] if is_identifier else parts


@lru_cache(_CACHED_WORDS)
def _term_id(word: str) -> int:
    stem = word
    if word.isascii():
        with _STEMMING:
            stem = cast("str", _STEMMER.stemWord(word))  # pyright: ignore[reportUnknownMemberType]
    return zlib.crc32(stem.encode("utf-8", "surrogatepass")) & _TERM_ID_BITS


# --- cues ----------------------------------------------------------------------------


class Cue(IntFlag):
    """What a turn does, as far as its wording shows (English wording; marks of any script)."""

    QUESTION = 1
    """Ends with a question mark."""
    TIME = 2
    """Says when or how long: a weekday, `yesterday`, `for three years`."""
    NUMBER = 4
    DATE = 8
    """Names a month with a day or year, a year, or an ISO date."""
    DECISION = 16
    PREFERENCE = 32
    COMMITMENT = 64
    CORRECTION = 128
    IDENTITY = 256
    """Says who someone is: name, age, home, work, family, health."""
    INSTRUCTION = 512
    """Tells the assistant to remember something or how to behave."""
    SMALL_TALK = 1024
    """A greeting, thanks or assent with nothing else in it."""
    CODE = 2048
    ERROR = 4096


_WORDS = re.compile(r"[a-z']+")
_QUESTION_MARKS = "?\uff1f\u061f\u037e\u055e\u2e2e"
_CLOSERS = " \t\r\n\"'\u2019\u201d\u00bb)]*_\u200d\ufe0f"
_FIRST_SYMBOL, _LAST_SYMBOL, _FIRST_EMOJI = "\u2190", "\u2bff", "\U0001f000"
_NUMBER = re.compile(r"\d")
_YEAR_OR_NUMERIC = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d(?!\d)|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{1,2}[\u6708\uc6d4])"
)
_MONTH_DAY = re.compile(
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\b\.? \d{1,2}\b"
    r"|\d(?:st|nd|rd|th)? (?:of )?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)
_MONTHS = _set(
    "jan feb mar apr may jun jul aug sep sept oct nov dec january february march april june july "
    "august september october november december"
)
_TIME_WORDS = _set(
    "monday tuesday wednesday thursday friday saturday sunday weekend yesterday today tonight "
    "tomorrow week weeks month months year years day days hour hours minute minutes morning "
    "afternoon evening ago since recently soon january february march april june july august "
    "september october november december spring summer autumn winter decade decades birthday "
    "anniversary earlier later lately fortnight midnight noon"
)
_CUE_WORDS: tuple[tuple[int, frozenset[str]], ...] = (
    (
        Cue.PREFERENCE.value,
        _set(
            "prefer preferred prefers favorite favourite love loves loved hate hates dislike "
            "dislikes enjoy enjoys allergic allergy vegetarian vegan rather"
        ),
    ),
    (
        Cue.DECISION.value,
        _set("decided decide decision chose chosen agreed agree settled approved"),
    ),
    (
        Cue.COMMITMENT.value,
        _set("promise promised deadline due scheduled appointment booked remind"),
    ),
    (Cue.CORRECTION.value, _set("actually correction mistaken mistake wrong instead")),
    (
        Cue.IDENTITY.value,
        _set(
            "wife husband partner daughter son mother father mom dad sister brother engaged "
            "married divorced pregnant diagnosed graduated retired hired born moved"
        ),
    ),
    (Cue.ERROR.value, _set("traceback exception error failed fails segfault")),
)
_CUE_PHRASES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        Cue.DECISION.value,
        ("let's go with", "we'll go with", "i'll go with", "going with", "made up my"),
    ),
    (
        Cue.COMMITMENT.value,
        ("i will ", "i'll ", "we'll ", "going to ", "i have to ", "by the end of"),
    ),
    (Cue.CORRECTION.value, ("i meant", "not true", "no longer", "changed my mind", "scratch that")),
    (
        Cue.IDENTITY.value,
        ("my name", "i live", "i work", "i'm from", "i am from", "years old", "call me", "my job"),
    ),
    (
        Cue.INSTRUCTION.value,
        ("remember ", "don't forget", "always ", "never ", "make sure", "from now on", "keep in m"),
    ),
    (Cue.CODE.value, ("```", "def ", "function ", "();", "select * ", "import ")),
)
_SMALL_TALK = _set(
    "hi hey hello thanks thank thx ok okay sure great cool nice good wow yes yeah yep no nope bye "
    "goodbye morning night welcome awesome perfect alright fine please see you later soon so much "
    "a lot for the it is that's sounds got very well how are doing today there all i'm and"
)
_MAX_SMALL_TALK_WORDS = 12


def cues(text: str) -> Cue:
    """The cues of `text`; `Cue(0)` for none."""
    lowered = text.lower().replace("\u2019", "'")
    spoken = set(_WORDS.findall(lowered))
    found = _marks(text, lowered, spoken)
    for cue, members in _CUE_WORDS:
        if not spoken.isdisjoint(members):
            found |= cue
    for cue, phrases in _CUE_PHRASES:
        if not found & cue and any(phrase in lowered for phrase in phrases):
            found |= cue
    if spoken and len(spoken) <= _MAX_SMALL_TALK_WORDS and spoken <= _SMALL_TALK:
        found |= Cue.SMALL_TALK.value
    return Cue(found)


def _marks(text: str, lowered: str, spoken: set[str]) -> int:
    found = 0
    if is_question(text):
        found |= Cue.QUESTION.value
    if _NUMBER.search(text):
        found |= Cue.NUMBER.value
        dated = not spoken.isdisjoint(_MONTHS) and _MONTH_DAY.search(lowered)
        if dated or _YEAR_OR_NUMERIC.search(lowered):
            found |= Cue.DATE.value | Cue.TIME.value
    if not spoken.isdisjoint(_TIME_WORDS):
        found |= Cue.TIME.value
    return found


def is_question(text: str) -> bool:
    """Whether `text` ends with a question mark, leaving closing quotes and emoji aside."""
    for character in reversed(text):
        if character in _QUESTION_MARKS:
            return True
        if (
            character not in _CLOSERS
            and not _FIRST_SYMBOL <= character <= _LAST_SYMBOL
            and character < _FIRST_EMOJI
        ):
            return False
    return False
