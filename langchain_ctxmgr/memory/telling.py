"""What a message tells, as far as its wording shows: the features that importance is made of.

A sentence *tells* something unless it asks, only addresses the other, or is mostly assent,
praise or urging ("Wow, that sounds great, keep it up"): what is left is where facts stand. The
word lists are small and of general English. Text in other languages has none of their words:
all its sentences but the questions tell, and importance goes by the statistics: how many words,
how many of them new, names, dates, whether it answers a question.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from math import log1p
from typing import NamedTuple

from langchain_ctxmgr import analysis

READ_CHARS = 8_192
"""So much of a message is read."""


def _set(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_SELF = _set(
    "i i'm i've i'd i'll my me mine myself im ive we we're we've we'd we'll our ours us ourselves"
)
_OTHER = _set("you your you're you've you'd you'll yours yourself u ya yourselves")
_REPLY = _set(
    "wow awesome nice cool great glad congrats congratulations sounds looks looking must "
    "definitely absolutely totally yeah yep yes sure okay ok thanks thank thx appreciate means "
    "proud welcome good amazing lovely wonderful gorgeous beautiful cute sweet adorable incredible "
    "impressive inspiring exciting fantastic brilliant perfect agree right true exactly haha lol "
    "hey hi hello bye"
)
_URGE = _set("keep let's let can could should hope luck try enjoy take know need believe")
_EMPTY = _REPLY | _URGE
_EMPTY_SHARE = 1 / 3
"""From so many words of reply and urging on, a sentence is nothing else."""
_MOST_DENSE = 2 / 3
"""Beyond, a text is a note of a few words: it tells no more for that."""
_PAST = _set(
    "was were been had did went took got made said told found bought gave met came saw thought "
    "felt left kept began started wrote read ran won lost broke grew brought taught caught built "
    "sent spent fell held heard knew led paid put sat sold spoke stood swam threw wore chose drew "
    "drove ate flew forgot hit hurt"
)
_PREFERS = _set(
    "prefer prefers preferred preference preferences favorite favourite rather allergic allergy "
    "vegetarian vegan hate hates dislike dislikes"
)
_ORDER = re.compile(
    r"\W*(?:(?:please|and|also) )?"
    r"(?:always|never|remember|whenever|don't|do not|from now on|keep in mind)\b"
    r"|.*[,;-] (?:please )?(?:remember|don't forget|keep in mind) (?:that|this|it)\W*$"
)
"""How a sentence begins, or ends, that tells what to keep to."""
_NEVER = re.compile(r"\b(?:never|no longer)\b")
_ENDS_IN_ED = re.compile(r"[A-Za-z]{3}ed\b")
_BODY = _set(
    "doctor hospital sick ill illness injury injured hurt pain surgery diet allergic allergy "
    "asthma therapy therapist diagnosed pregnant died passed accident weight sleep stress anxiety "
    "health"
)
_LATELY = re.compile(
    r"\b(?:yesterday|ago|recently|the other day|back in|when i was|since i was|years? old"
    r"|last (?:night|week|weekend|month|year|summer|winter|spring|fall|autumn|time"
    r"|(?:mon|tue|wed|thu|fri|sat|sun)\w*)"
    r"|this (?:morning|week|weekend|past|month|summer|year)|in (?:19|20)\d\d"
    r"|just (?:got|had|started|went|finished|signed|joined|bought|made|moved|took|came|did|found))"
    r"\b"
)
_EARLY = 16
"""Messages; what the conversation is about is told within about so many."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d[\d.,:/-]*")
_NAME = re.compile(r"(?<=[^\W\d_A-Z] |[,;:] )[^\W\d_]\w+")
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


class Telling(NamedTuple):
    """What a message tells; all but `terms` and `names` are features, a few units at most."""

    terms: frozenset[int]
    names: frozenset[str]
    """Capitalised within a sentence."""
    asks: bool
    """Whether one of its sentences is a question."""
    lately: float
    """1 where a sentence that tells something says that it happened, and when."""
    said: float
    """`ln(1 + n)` of the different words of the sentences that tell something."""
    dense: float
    """Share of its words that say something about a topic, each counted once; at most 2/3."""
    past: float
    """Share of its words that are verbs in the past."""
    urges: float
    """Share of its words that encourage or advise."""
    body: float
    """`ln(1 + n)` of its words about health."""
    orders: float
    """1 where one of its sentences begins as what is to be kept to does."""
    prefers: float
    """1 where it says what is preferred, or cannot be borne."""
    never: float
    """1 where it says what never was, or is no longer."""


def telling(text: str) -> Telling:
    """What `text` tells; code between fences is passed over."""
    prose = _CODE.sub(" ", text[:READ_CHARS]).replace("\u2019", "'")
    spoken: list[str] = []
    told: list[str] = []
    asks = orders = False
    for sentence in analysis.sentences(prose):
        lowered = sentence.lower()
        said = _WORD.findall(lowered)
        spoken += said
        orders = orders or _ORDER.match(lowered) is not None
        if analysis.is_question(sentence):
            asks = True
        elif _tells(said):
            told.append(sentence)
    facts = " ".join(told)
    count = max(1, len(spoken))
    terms = frozenset(analysis.terms(prose))
    return Telling(
        terms=terms,
        names=frozenset(name for name in _NAME.findall(prose) if name[0].isupper()),
        asks=asks,
        lately=float(_LATELY.search(facts.lower()) is not None),
        said=log1p(len(set(analysis.terms(facts)))),
        dense=min(len(terms) / count, _MOST_DENSE),
        past=(_count(spoken, _PAST) + len(_ENDS_IN_ED.findall(prose))) / count,
        urges=_count(spoken, _URGE) / count,
        body=log1p(_count(spoken, _BODY)),
        orders=float(orders),
        prefers=float(not _PREFERS.isdisjoint(spoken)),
        never=float(_NEVER.search(prose.lower()) is not None),
    )


def _tells(said: Sequence[str]) -> bool:
    """Whether a sentence of these words, which does not ask, tells something."""
    if not said or (not _OTHER.isdisjoint(said) and _SELF.isdisjoint(said)):
        return False
    return _count(said, _EMPTY) < _EMPTY_SHARE * len(said)


def _count(said: Sequence[str], listed: frozenset[str]) -> int:
    return sum(map(listed.__contains__, said))


class Heard:
    """What a conversation said so far, as far as the importance of what comes next needs it.

    Args:
        speakers: The names of those who take part.
        last: Of each word the place of the last message in which a person says it.
    """

    def __init__(self, speakers: Collection[str], last: Mapping[int, int]) -> None:
        self._last = last
        self._place = 0
        self._terms: set[int] = set()
        self._names: set[str] = set()
        self._speakers = [part.casefold() for name in speakers for part in name.split()]
        self._session: int | None = None
        self._asks = False

    def fresh(self, told: Telling, session: int) -> Fresh:
        """What `told` adds, said next in `session`; from then on it was heard."""
        opens = session != self._session
        new = told.terms - self._terms
        names = {name for name in told.names - self._names if not self._is_speaker(name)}
        again = sum(self._last.get(term, -1) > self._place for term in told.terms)
        count = max(1, len(told.terms))
        fresh = Fresh(
            news=len(new) / count,
            names=log1p(len(names)),
            opens=float(opens),
            answers=float(self._asks and not opens),
            again=again / count,
            early=1 / (1 + self._place / _EARLY),
        )
        self._place += 1
        self._terms |= new
        self._names |= names
        self._session, self._asks = session, told.asks
        return fresh

    def _is_speaker(self, name: str) -> bool:
        """Whether a participant is addressed, by a short form of the name too."""
        return any(part.startswith(name.casefold()) for part in self._speakers)


class Fresh(NamedTuple):
    """What a message is to its conversation; features."""

    news: float
    """Share of its words that were not said before."""
    names: float
    """`ln(1 + n)` of the names first mentioned in it, the participants' own aside."""
    opens: float
    """1 for the first message of a session."""
    answers: float
    """1 where the message before it asks something."""
    again: float
    """Share of its words that people say again later."""
    early: float
    """1 for the first message, half of that `_EARLY` messages on."""


def alone(told: Telling) -> Fresh:
    """What a message adds as far as it shows on its own: every name is a new one."""
    return Fresh(
        news=USUAL_NEWS,
        names=log1p(len(told.names)),
        opens=0.0,
        answers=0.0,
        again=USUAL_AGAIN,
        early=0.0,
    )


USUAL_NEWS = 0.15
"""Share of a message's words that were not said before, where the conversation is not at hand."""
USUAL_AGAIN = 2 / 3
"""Share of a message's words that people say again later, where that is not known."""
