"""A summary without any model: what says most, in the order it was said.

Short messages that matter stand whole, word for word, ranked by importance for what they cost;
the best sentences of the others fill what is left. A sentence counts by how central it is (how
much of the conversation's vocabulary it shares), by the importance of its message and by what
it adds to the sentences already taken. Every line names the message it is from, so that nothing
in the summary stands without its source. The cost is bounded whatever it is given.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import log, sqrt
from typing import NamedTuple

from langchain_ctxmgr import analysis
from langchain_ctxmgr.analysis import Cue
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.prompt.layout import headings, row, summary_message
from langchain_ctxmgr.records import LogRecord, Summary

MAX_SENTENCES = 256
"""Read at most, shared evenly between the records."""
_SENTENCE_CHARS = 160
"""Read for each sentence of a record's share: what matters tends to stand early."""
_IMPORTANCE_FLOOR = 0.1
"""Added to every record's importance, so that none counts for nothing."""
_EMPTY_WEIGHT = 0.25
"""Small talk, questions (the answer tells what is so), and lines that only lead up to code."""
_TELLING_WEIGHT = 1.25
"""Sentences with a date, a number, a decision, a wish, or who someone is."""
_EMPTY_CUES = Cue.SMALL_TALK | Cue.QUESTION | Cue.CODE
_TELLING_CUES = (
    Cue.DATE
    | Cue.NUMBER
    | Cue.DECISION
    | Cue.PREFERENCE
    | Cue.COMMITMENT
    | Cue.CORRECTION
    | Cue.IDENTITY
    | Cue.INSTRUCTION
)
_PIVOT = 0.3
"""How far sentence vectors are scaled to length 1; without it one common word is enough.

Source: Singhal, Buckley and Mitra 1996, "Pivoted document length normalization".
"""
_OWN_SHARE = 0.5
"""How much of its likeness to itself a sentence loses: an aside is like nothing else."""
_KNOWN_WEIGHT = 0.3
"""What a word is still worth once a sentence with it was taken."""
_LENGTH_POWER = 0.6
"""Between 0 (long sentences win) and 1 (fragments win).

Source: Lin and Bilmes 2010, "Multi-document summarization via budgeted maximization of
submodular functions" (scaled cost).
"""
_LINE_CHARS = 40
"""About what naming the source costs, in characters: keeps one-word sentences out."""
_MAX_MISSES = 12
"""Sentences in a row that did not fit: then the budget is as full as it gets."""

_WHOLE_PARTS = 8
"""A message that takes no more than this part of a summary stands whole, or not at all."""
_LEAST_WHOLE = 0.011
"""Importance from which on a message may stand whole: small talk has less."""
_NEVER_WHOLE = frozenset({"tool", "function"})
"""Short output is no less likely to be of no use later than long."""
_COST_POWER = 0.75
"""How far what a message costs counts against it: between 0 (long ones win) and 1."""

EMPTY = Summary(text="", tokens=0, source_ids=())


@dataclass(frozen=True, slots=True)
class _Sentence:
    record: int
    place: int
    text: str
    weights: dict[int, float]
    """Term id to its share of the sentence's centrality, before novelty."""
    scale: float


@dataclass(frozen=True, slots=True)
class ExtractiveSummarizer:
    """Makes summaries of recorded messages from their own sentences."""

    def summarize(
        self, records: Sequence[LogRecord], max_tokens: int, counter: TokenCounter
    ) -> Summary:
        """The best sentences of `records` within `max_tokens`, fence and overhead included.

        Args:
            records: What to summarize, oldest first; meant for up to about 64.
            max_tokens: For the whole summary message.
            counter: The counter of the model that will read it.

        Returns:
            The text without its fence and the message ids it comes from. Empty when not
            even one sentence fits. `tokens` is what `layout.summary_message` of it costs.
        """
        room = max_tokens - counter.message(summary_message(""))
        if room <= 0:
            return EMPTY
        page = _Page(records, room, counter)
        _take_whole(page, records, max_tokens)
        _pick(_weigh(_read(records, page.shown)), page)
        while page.taken:
            text = _render(page.taken, records)
            tokens = counter.message(summary_message(text))
            if tokens <= max_tokens:
                sources = sorted({sentence.record for sentence in page.taken})
                return Summary(
                    text=text,
                    tokens=tokens,
                    source_ids=tuple(records[index].message_id for index in sources),
                )
            page.taken.pop()
        return EMPTY


def worth(importance: float, tokens: int) -> float:
    """What `importance` is worth where showing it costs `tokens`: what matters most comes first."""
    return importance / max(1, tokens) ** _COST_POWER


class Extract(NamedTuple):
    """The sentences of a message that say most."""

    record: LogRecord
    text: str
    """In their order, `…` where something between them is left out."""


def extract(records: Sequence[LogRecord], max_tokens: int, counter: TokenCounter) -> list[Extract]:
    """The best sentences of `records` in about `max_tokens`, by message, in their order."""
    page = _Page(records, max_tokens - counter.message(summary_message("")), counter)
    _pick(_weigh(_read(records)), page)
    said = _by_record(page.taken)
    return [Extract(records[index], _joined(sentences)) for index, sentences in said.items()]


class _Page:
    """What is taken so far, and the room that is left for more."""

    def __init__(self, records: Sequence[LogRecord], room: int, counter: TokenCounter) -> None:
        self.taken: list[_Sentence] = []
        self.shown: set[int] = set()
        """Places of the records that something is taken of."""
        self.room = room
        self._records = records
        self._counter = counter
        self._headed: set[int | date] = set()

    def cost(self, record: int, text: str) -> int:
        """What `text` of a record adds, its line's head and its day included where new."""
        if record in self.shown:
            return self._counter.text(f" … {text}")
        shown = self._records[record]
        above = headings(shown.at.date()).items()
        lines = [_line(shown, text), *(line for at, line in above if at not in self._headed)]
        return sum(map(self._counter.text, lines))

    def take(self, sentence: _Sentence, cost: int) -> None:
        """Put `sentence` down at its cost."""
        self.room -= cost
        self.taken.append(sentence)
        self.shown.add(sentence.record)
        self._headed.update(headings(self._records[sentence.record].at.date()))


def _take_whole(page: _Page, records: Sequence[LogRecord], max_tokens: int) -> None:
    """Short messages that matter stand word for word, those first that are worth most.

    One that says no more than another adds nothing.
    """
    found: list[tuple[float, int, str]] = []
    for index, record in enumerate(records):
        if record.importance < _LEAST_WHOLE or record.role in _NEVER_WHOLE:
            continue
        text = analysis.message_text(record.message).strip()
        if analysis.terms(text[:_SENTENCE_CHARS]):
            cost = page.cost(index, text)
            if cost <= max_tokens // _WHOLE_PARTS:
                found.append((-worth(record.importance, cost), index, text))
    told: list[frozenset[int]] = []
    for _, index, text in sorted(found):
        cost = page.cost(index, text)
        says = frozenset(analysis.terms(text))
        if cost <= page.room and not any(map(says.issubset, told)):
            page.take(_Sentence(index, 0, text, {}, 0.0), cost)
            told.append(says)


def _read(records: Sequence[LogRecord], shown: Collection[int] = ()) -> list[_Sentence]:
    """The sentences of the most important records but those `shown` already."""
    left = [index for index in range(len(records)) if index not in shown]
    left = sorted(heapq.nlargest(MAX_SENTENCES, left, key=lambda i: (records[i].importance, -i)))
    share = max(2, MAX_SENTENCES // max(1, len(left)))
    found: list[_Sentence] = []
    for index in left:
        record = records[index]
        text = analysis.message_text(record.message)
        weight = _IMPORTANCE_FLOOR + record.importance
        for place, sentence in enumerate(_opening(text, share)):
            said = " ".join(sentence.split())
            counts = Counter(analysis.terms(said))
            if not counts:
                continue
            scale = weight / (len(said) + _LINE_CHARS) ** _LENGTH_POWER
            found.append(_Sentence(index, place, said, dict(counts), scale))
    return found


def _opening(text: str, share: int) -> list[str]:
    """Up to `share` whole sentences from the start; a first one that is too long is cut."""
    limit = share * _SENTENCE_CHARS
    parts = analysis.sentences(text[:limit])
    if len(text) > limit:
        parts = parts[:-1] or [f"{part.rstrip()}…" for part in parts]
    return parts[:share]


def _telling(sentence: str) -> float:
    cues = analysis.cues(sentence)
    if cues & _EMPTY_CUES or sentence.endswith(":"):
        return _EMPTY_WEIGHT
    return _TELLING_WEIGHT if cues & _TELLING_CUES else 1.0


def _weigh(found: Sequence[_Sentence]) -> list[_Sentence]:
    """Give each term its part in `v . c`: sentence vector times centroid.

    That product is the sum of the sentence's similarities to all others.

    Source: Erkan and Radev 2004, "LexRank", degree centrality over tf-idf cosines.
    """
    spread = Counter(term for sentence in found for term in sentence.weights)
    rarity = {term: log(1 + len(found) / seen) for term, seen in spread.items()}
    centroid: defaultdict[int, float] = defaultdict(float)
    vectors = [
        {term: (1 + log(n)) * rarity[term] for term, n in sentence.weights.items()}
        for sentence in found
    ]
    lengths = [sqrt(sum(value * value for value in vector.values())) for vector in vectors]
    usual = sum(lengths) / max(1, len(lengths))
    for vector, length in zip(vectors, lengths, strict=True):
        scale = 1 / (_PIVOT * length + (1 - _PIVOT) * usual)
        for term, value in vector.items():
            vector[term] = value * scale
            centroid[term] += value * scale
    return [
        _Sentence(
            sentence.record,
            sentence.place,
            sentence.text,
            {term: value * (centroid[term] - _OWN_SHARE * value) for term, value in vector.items()},
            sentence.scale,
        )
        for sentence, vector in zip(found, vectors, strict=True)
    ]


def _pick(found: Sequence[_Sentence], page: _Page) -> None:
    """Greedy by gain: what a sentence is worth shrinks as its words get known.

    A gain only ever shrinks, so a stale one on top of the heap is worked out anew and put
    back, and the rest need no look. What a sentence tells is looked at only then, too.
    """
    known: defaultdict[int, float] = defaultdict(lambda: 1.0)
    scales: dict[int, float] = {}
    heap = [
        (-sum(sentence.weights.values()) * sentence.scale * _TELLING_WEIGHT, index)
        for index, sentence in enumerate(found)
    ]
    heapq.heapify(heap)
    misses = 0
    while heap and misses < _MAX_MISSES:
        _, index = heapq.heappop(heap)
        sentence = found[index]
        if index not in scales:
            scales[index] = sentence.scale * _telling(sentence.text)
        gain = scales[index] * sum(value * known[term] for term, value in sentence.weights.items())
        if heap and -gain > heap[0][0]:
            heapq.heappush(heap, (-gain, index))
            continue
        cost = page.cost(sentence.record, sentence.text)
        if cost > page.room:
            misses += 1
            continue
        misses = 0
        page.take(sentence, cost)
        for term in sentence.weights:
            known[term] *= _KNOWN_WEIGHT


def _line(record: LogRecord, text: str) -> str:
    return row(slot=record.slot, speaker=record.speaker, role=record.role, text=text)


def _render(taken: Iterable[_Sentence], records: Sequence[LogRecord]) -> str:
    parts: list[str] = []
    above: dict[int | date, str] = {}
    for index, said in _by_record(taken).items():
        record = records[index]
        new = headings(record.at.date())
        parts += (line for at, line in new.items() if at not in above)
        above = new
        parts.append(_line(record, _joined(said)))
    return "".join(parts).rstrip("\n")


def _by_record(taken: Iterable[_Sentence]) -> dict[int, list[_Sentence]]:
    by_record: defaultdict[int, list[_Sentence]] = defaultdict(list)
    for sentence in sorted(taken, key=lambda sentence: (sentence.record, sentence.place)):
        by_record[sentence.record].append(sentence)
    return by_record


def _joined(said: Sequence[_Sentence]) -> str:
    text = said[0].text
    for before, after in pairwise(said):
        text += f" {after.text}" if after.place == before.place + 1 else f" … {after.text}"
    return text
