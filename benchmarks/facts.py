"""What is the share of facts that are found without a model, and of what is found that is so?

    python benchmarks/facts.py

Reads each message of `tests/data/fact_sentences.jsonl` as it is read when recorded, and compares
what it is taken to state with what it states, as `tests/data/README.md` says. Prints precision,
recall, and the share of messages without a fact in which one was found.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from langchain_ctxmgr.analysis import terms
from langchain_ctxmgr.memory.facts.extraction import statements
from langchain_ctxmgr.memory.facts.reading import AUTHORITIES
from langchain_ctxmgr.memory.facts.values import Authority, Statement

DATA = Path(__file__).parents[1] / "tests" / "data" / "fact_sentences.jsonl"
SAID_AT = datetime(2026, 1, 1, tzinfo=UTC)
HALF = 0.5
_LEAD = re.compile(r"^(?:the|a|an|my|our|your|his|her|their|speaker's|user's)\s+", re.IGNORECASE)


class Figures(NamedTuple):
    """How many facts there are, and how many of them were found."""

    gold: int
    found: int
    right: int
    """Found facts with a match."""
    recalled: int
    """Gold facts with a match."""
    empty: int
    disturbed: int
    """Messages without a fact in which one was found."""

    @property
    def precision(self) -> float:
        """Share of the found facts that are so."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """Share of the facts that are found."""
        return self.recalled / self.gold if self.gold else 1.0


def measured(lines: Iterable[dict[str, Any]], *, shows: bool = False) -> Figures:
    """The figures of `lines`; `shows` prints what is wrong and what is missing."""
    sums = Figures(0, 0, 0, 0, 0, 0)
    for line in lines:
        found = stated(line)
        pairs = [
            (one, gold) for one in found for gold in line["facts"] if is_match(one, gold, line)
        ]
        right = [one for one in found if any(one is each for each, _ in pairs)]
        recalled = [gold for gold in line["facts"] if any(gold is each for _, each in pairs)]
        is_empty = not line["facts"]
        of_line = (
            len(line["facts"]),
            len(found),
            len(right),
            len(recalled),
            int(is_empty),
            int(is_empty and bool(found)),
        )
        sums = Figures(*map(sum, zip(sums, of_line, strict=True)))
        if shows and (len(right) < len(found) or len(recalled) < len(line["facts"])):
            print(f"{line['id']} {line['role']} {line['kind']}: {line['text']}")
            for one in found:
                mark = "ok " if one in right else "BAD"
                print(f"   {mark} {one.subject} | {one.relation} | {one.object}")
            for gold in line["facts"]:
                if gold not in recalled:
                    print(f"   MISSED {gold['subject']} | {gold['relation']} | {gold['object']}")
    return sums


def stated(line: dict[str, Any]) -> list[Statement]:
    """What a message is taken to state when it is recorded; flagged text states nothing."""
    authority = AUTHORITIES.get(line["role"])
    if authority is None:
        return []
    speaker = line["speaker"] if authority is Authority.USER else None
    found = statements(line["text"], at=SAID_AT, speaker=speaker, authority=authority)
    return [one for one in found if not one.is_flagged]


def is_match(one: Statement, gold: dict[str, str], line: dict[str, Any]) -> bool:
    """Whether a found fact is `gold`."""
    wanted = content(gold["object"])
    if not wanted or len(wanted & content(one.object)) < HALF * len(wanted):
        return False
    return is_one(
        subject_of(one.subject, line),
        one.relation,
        subject_of(gold["subject"], line),
        gold["relation"],
    )


class Subject(NamedTuple):
    """Whom or what a fact is about."""

    owner: str
    """Empty where the thing is nobody's."""
    thing: str
    """Empty for the owner."""


def subject_of(subject: str, line: dict[str, Any]) -> Subject:
    """A subject without case, article and possessive."""
    name = subject.casefold()
    me = {"i", "me", "we", "speaker", str(line["speaker"]).casefold()}
    if line["role"] in {"ai", "tool"}:
        me = {"you", "user", "the user", "speaker"}
    elif line["speaker"] is None:
        me.add("user")
    if name in me:
        return Subject("speaker", "")
    owner, apart, thing = name.partition("'s ")
    if apart:
        return Subject("speaker" if owner in me else _LEAD.sub("", owner), thing)
    return Subject("", _LEAD.sub("", name))


def is_one(ours: Subject, our_relation: str, gold: Subject, gold_relation: str) -> bool:
    """Whether both are the same, a property of it perhaps in the relation."""
    if (ours.thing or ours.owner) == (gold.thing or gold.owner):
        return True
    for one, relation, other in ((ours, gold_relation, gold), (gold, our_relation, ours)):
        whole = other.owner or other.thing if not (other.owner and other.thing) else None
        if one.owner and one.thing and one.owner == whole:
            return bool(content(one.thing) & content(relation))
    return False


def content(text: str) -> set[int]:
    """Stems of the words that say something; of all where none does."""
    found = set(terms(text))
    if not found and text.strip():
        return {hash(word) for word in re.findall(r"\w+", text.casefold())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--show", action="store_true", help="print what is wrong or missing")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.data.read_text("utf-8").splitlines() if line]
    figures = measured(lines, shows=given.show)
    print(
        f"{len(lines)} messages, {figures.gold} facts; found {figures.found}, right {figures.right}"
    )
    print(f"precision {figures.precision:.3f}, recall {figures.recall:.3f}")
    print(f"{figures.disturbed} of {figures.empty} messages without a fact disturbed")


if __name__ == "__main__":
    main()
