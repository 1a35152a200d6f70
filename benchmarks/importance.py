"""Do the turns that a question will ask for come first, before any question is known?

The turns of a conversation are ranked by importance for what they cost, and taken until a
tenth of the conversation's tokens is full; then its questions are looked at: the mean share of
the turns with the answer that were taken. The same for what `prepare` shows in a tenth of the
tokens where the question is empty: summary and kept turns, word for word, white space folded.
Tokens are o200k_base plus 3 a message; questions with a wrong premise are left out.

    python benchmarks/importance.py [--data ../shared/data] [--fit]

The weights in the package are fitted on all the data there is. No row uses them on the data
they were fitted on but those that say so: *left out* is fitted on the other conversations of
the kind, *other kind* on the other kind alone. `--fit` prints the weights for
`memory/importance_weights.py` and measures nothing. Data: see `conversations.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

import report
from conversations import TOKENS, Conversation, kind_of, read, vocabulary

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.compression.extractive import worth
from langchain_ctxmgr.evaluation.measure import folded
from langchain_ctxmgr.memory.importance import Said, features, heard, in_context
from langchain_ctxmgr.memory.importance_weights import FITTED, Fitted, Side
from langchain_ctxmgr.records import LogRecord

SHARE = 0.1
"""Of the conversation's tokens."""
_C = 0.03
"""Inverse strength of the ridge, as scikit-learn has it, over standardised features."""
_LOWERING = "urges"
_LEAST = 0.1
"""What a feature counts that the data gives the other sign."""
_STEPS = 25
_SHUFFLES = 20


class Case(NamedTuple):
    """A conversation as recorded, and the turns that its questions ask for."""

    conversation: Conversation
    records: list[LogRecord]
    questions: list[list[int]]
    """Slots of each question's turns."""
    tokens: list[int]
    said: list[Said]
    """The turns as they stand in the conversation."""

    @property
    def asked_for(self) -> NDArray[np.float64]:
        """How many questions each turn answers; of one with several turns, its share."""
        found = np.zeros(len(self.records))
        for slots in self.questions:
            found[slots] += 1 / len(slots)
        return found

    def recall(self, kept: Callable[[int], bool]) -> float:
        """The mean share of a question's turns that are kept."""
        return fmean(fmean(kept(slot) for slot in slots) for slots in self.questions)

    def first(self, value: Sequence[float] | NDArray[np.float64]) -> float:
        """The recall of the turns of the greatest value, what does not fit passed over."""
        tokens = self.tokens
        room = int(sum(tokens) * SHARE)
        taken: set[int] = set()
        for slot in sorted(range(len(tokens)), key=lambda slot: -value[slot]):
            if tokens[slot] <= room:
                room -= tokens[slot]
                taken.add(slot)
        return self.recall(taken.__contains__)


def cases_of(path: Path) -> list[Case]:
    """The conversations of a file, recorded with the default settings."""
    found: list[Case] = []
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        for conversation in read(path):
            scope = Scope(tenant_id="importance", thread_id=conversation.id)
            records = manager.record(conversation.messages, scope=scope, at=conversation.at)
            slots = {record.message_id: record.slot for record in records}
            asked = [q for q in conversation.questions(None) if not q.is_adversarial]
            questions = [[slots[name] for name in each.evidence] for each in asked]
            tokens = [TOKENS.messages([record.message]) for record in records]
            sessions = [record.session for record in records]
            said = list(heard([record.message for record in records], sessions))
            found.append(Case(conversation, records, questions, tokens, said))
    return found


def by_worth(case: Case, fitted: Fitted) -> list[float]:
    """What each turn is worth, in context."""
    weighed = in_context(
        [record.message for record in case.records],
        [record.session for record in case.records],
        fitted=fitted,
    )
    return [worth(each.score, n) for each, n in zip(weighed, case.tokens, strict=True)]


class Rows(NamedTuple):
    """What is fitted: features of the turns of one side, and how much each is asked for."""

    names: list[str]
    features: NDArray[np.float64]
    asked_for: NDArray[np.float64]


def rows_of(cases: Sequence[Case], side: Side) -> Rows | None:
    """The turns of `side` in all `cases`; None where there are none."""
    names: list[str] = []
    values: list[list[float]] = []
    asked_for: list[float] = []
    for case in cases:
        for said, asked in zip(case.said, case.asked_for, strict=True):
            if said.side is side:
                found = features(said)
                names = list(found)
                values.append(list(found.values()))
                asked_for.append(float(asked))
    return Rows(names, np.array(values), np.array(asked_for)) if values else None


def fit(rows: Rows) -> dict[str, float]:
    """Log-odds per unit of each feature that a turn is asked for.

    Urging may only lower the score, the others only raise it; what would do otherwise counts
    next to nothing, since no reader would understand why a date makes a message matter less.
    """
    left_out: set[str] = set()
    while True:
        kept = [place for place, name in enumerate(rows.names) if name not in left_out]
        names = [rows.names[place] for place in kept]
        weights = _fit(rows._replace(names=names, features=rows.features[:, kept]))
        wrong = {name for name in names if (weights[name] < 0) != (name == _LOWERING)}
        if not wrong:
            least = {name: -_LEAST if name == _LOWERING else _LEAST for name in rows.names}
            return {"base": weights.pop("base"), **least, **weights}
        left_out |= wrong


def _fit(rows: Rows) -> dict[str, float]:
    """A logistic regression with a ridge, by Newton's method.

    A turn that several questions ask for counts as often.
    """
    spread = rows.features.std(axis=0)
    spread[spread == 0] = 1.0
    x = np.hstack([np.ones((len(rows.features), 1)), rows.features / spread])
    y = (rows.asked_for > 0).astype(float)
    weight = np.where(y > 0, rows.asked_for, 1.0)
    ridge = np.diag([0.0, *[1 / _C] * (x.shape[1] - 1)])
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-x @ beta))
        slope = x.T @ (weight * (y - chance)) - ridge @ beta
        curve = (x * (weight * chance * (1 - chance))[:, None]).T @ x + ridge
        beta += np.linalg.solve(curve, slope)
    found = [float(beta[0]), *(float(b / s) for b, s in zip(beta[1:], spread, strict=True))]
    return dict(zip(["base", *rows.names], found, strict=True))


def fitted_on(cases: Sequence[Case]) -> Fitted:
    """The weights of every side; a side that `cases` lack has those of another."""
    found = {side: fit(rows) for side in Side if (rows := rows_of(cases, side)) is not None}
    if Side.MACHINE in found:
        del found[Side.MACHINE]["base"]  # goes by the role
    return {side: found.get(side) or next(iter(found.values())) for side in Side}


def retained(case: Case, query: str) -> float:
    """The share that stands in what `prepare` shows, word for word."""
    with ContextManager.open(None, model="gpt-4o-mini") as manager:
        scope = Scope(tenant_id="importance", thread_id=case.conversation.id)
        manager.record(case.conversation.messages, scope=scope, at=case.conversation.at)
        room = int(sum(case.tokens) * SHARE)
        shown = manager.prepare(scope=scope, query=query, max_tokens=room).messages
    if TOKENS.messages(shown) > room:
        return 0.0
    view = folded("\n".join(message.text for message in shown))
    return case.recall(lambda slot: folded(case.records[slot].message.text) in view)


def measured(cases: Sequence[Case], others: Sequence[Case]) -> dict[str, float]:
    """The figures of one kind, by what came first."""
    order = np.random.default_rng(0)

    def shuffled(case: Case) -> float:
        values = order.random((_SHUFFLES, len(case.records)))
        return fmean(map(case.first, values))

    def left_out(case: Case) -> float:
        return case.first(by_worth(case, fitted_on([each for each in cases if each is not case])))

    ways: Mapping[str, Callable[[Case], float]] = {
        "random": shuffled,
        "most recent": lambda case: case.first(list(range(len(case.records)))),
        "importance, fitted on the other kind": lambda case: case.first(
            by_worth(case, fitted_on(others))
        ),
        "importance, left out": left_out,
        "importance, as in the package (fitted on these too)": lambda case: case.first(
            by_worth(case, FITTED)
        ),
        "importance as stored, of the text alone": lambda case: case.first(
            [
                worth(record.importance, n)
                for record, n in zip(case.records, case.tokens, strict=True)
            ]
        ),
        "the turns asked for first": lambda case: case.first(case.asked_for / case.tokens),
        "prepare without a question": lambda case: retained(case, ""),
    }
    return {name: fmean(map(way, cases)) for name, way in ways.items()}


def main() -> None:
    """Measure every file of the data folder, or fit on all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    repository = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=repository.parent / "shared" / "data")
    parser.add_argument("--fit", action="store_true", help="print the weights to put in")
    arguments = parser.parse_args()
    files = sorted(arguments.data.glob("*.jsonl")) if arguments.data.is_dir() else []
    if not files:
        sys.exit(f"no conversations (*.jsonl) in {arguments.data}; name their folder with --data")
    parts = [cases_of(path) for path in files]
    if arguments.fit:
        for side, weights in fitted_on([case for part in parts for case in part]).items():
            print(f"    Side.{side.name}: {{")
            for name, value in weights.items():
                print(f'        "{name}": {value:.2f},')
            print("    },")
        return
    data: list[dict[str, Any]] = []
    for part in parts:
        others = [case for other in parts if other is not part for case in other]
        kind = kind_of([case.conversation for case in part])
        print(f"{kind}, {len(part)} conversations: evidence kept in {SHARE:.0%} of the tokens")
        rows = measured(part, others)
        for name, share in rows.items():
            print(f"  {name:<52} {share:.3f}", flush=True)
        data.append({"kind": kind, "conversations": len(part), "rows": rows})
    report.write("importance", {"share": SHARE, "data": data})


if __name__ == "__main__":
    vocabulary()
    main()
