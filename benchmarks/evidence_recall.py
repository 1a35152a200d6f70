"""Does the turn that answers the question stand in the context, at a given budget?

Conversations with questions and the ids of the turns that hold each answer are recorded
and asked through `langchain_ctxmgr.evaluation`, with the default settings of `prepare`. The
peers of `evidence_peers.py` get the same turns, questions, embeddings and measure: the mean
share of the turns with the answer whose text stands in the view word for word (white space
folded). Tokens are counted here once more, apart from the product: o200k_base over every
text and name plus 3 a message; a view over its budget scores 0. Questions with a wrong
premise are reported apart.

    python benchmarks/evidence_recall.py [--data ../shared/data] [--keyword-only]
    python benchmarks/evidence_recall.py --only "mem0, infer=False" --data …

With `--only` the rows named are measured anew and the others kept. Data: see
`conversations.py`. The package for a peer comes with the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import report
from conversations import (
    MESSAGE_TOKENS,
    TOKENS,
    Conversation,
    Remembered,
    kind_of,
    local_model,
    read,
    remembered,
    vocabulary,
)
from evidence_peers import Peer, peers

from langchain_ctxmgr import ContextManager, Scope
from langchain_ctxmgr.evaluation import EvidenceQuestion, RecallFigures, evidence_recall
from langchain_ctxmgr.evaluation.measure import Score, folded, held, recall_figures
from langchain_ctxmgr.memory.embeddings import embeddings_from

BUDGETS = (500, 1_000, 2_000, 4_000)

Figures = dict[str, Any]
Questions = Sequence[EvidenceQuestion]


def ours(
    conversations: Sequence[Conversation], questions: Questions, embeddings: Remembered | None
) -> Figures:
    """Record everything, then prepare for each question and budget."""
    with ContextManager.open(None, model="gpt-4o-mini", embeddings=embeddings) as manager:
        for conversation in conversations:
            scope = Scope(tenant_id="evidence", thread_id=conversation.id)
            manager.record(conversation.messages, scope=scope, at=conversation.at)
        found = evidence_recall(
            manager,
            questions,
            scope=Scope(tenant_id="evidence"),
            max_tokens=BUDGETS,
            token_counter=TOKENS.messages,
        )
    table = {
        str(budget): _told(
            lambda category, is_adversarial, budget=budget: found.figures(
                budget, category=category, is_adversarial=is_adversarial
            ),
            questions,
        )
        for budget in BUDGETS
    }
    return {"budgets": table, "over_budget": found.over_budget}


def theirs(
    conversations: Sequence[Conversation], questions: Questions, made: Callable[[], Peer]
) -> Figures:
    """The same measure for another method."""
    try:
        peer = made()
    except ImportError as error:
        return {"missing": str(error)}
    by_id = {conversation.id: conversation for conversation in conversations}
    scores: dict[int, list[tuple[EvidenceQuestion, Score]]] = {budget: [] for budget in BUDGETS}
    for question in questions:
        conversation = by_id[str(question.thread_id)]
        gold = [conversation.texts[name] for name in question.evidence]
        for budget in BUDGETS:
            room = budget - MESSAGE_TOKENS - TOKENS.text(question.question)
            view = folded(peer.view(conversation, question.question, room))
            kept = held(gold, view, TOKENS.text)
            score = Score(conversation.id, kept.share, kept.token_share)
            scores[budget].append((question, score))

    def figures(budget: int, category: str | None, is_adversarial: bool) -> RecallFigures | None:
        return recall_figures(
            [
                score
                for question, score in scores[budget]
                if question.is_adversarial == is_adversarial
                and (category is None or question.category == category)
            ]
        )

    table = {
        str(budget): _told(
            lambda category, is_adversarial, budget=budget: figures(
                budget, category, is_adversarial
            ),
            questions,
        )
        for budget in BUDGETS
    }
    return {"budgets": table}


def _told(
    figures: Callable[[str | None, bool], RecallFigures | None], questions: Questions
) -> Figures:
    """All questions, those with a wrong premise, and each category."""
    named = {each.category for each in questions if each.category and not each.is_adversarial}
    return {
        **_plain(figures(None, False)),
        "adversarial": _plain(figures(None, True)),
        "categories": {name: _plain(figures(name, False)) for name in sorted(named)},
    }


def _plain(figures: RecallFigures | None) -> Figures:
    return {"n": 0} if figures is None else asdict(figures)


def row(name: str, result: Figures) -> str:
    """One line of the printed table."""
    if "missing" in result:
        return f"  {name:<36} cannot be had here: {result['missing']}"
    cells = [result["budgets"][str(budget)] for budget in BUDGETS]
    recall = "  ".join(
        f"{c['recall']:.3f} [{c['interval'][0]:.2f} {c['interval'][1]:.2f}]" for c in cells
    )
    wrong = [cell["adversarial"].get("recall") for cell in cells]
    apart = f"  wrong premise {wrong[0]:.3f}" if wrong[0] is not None else ""
    over = f"  over {result['over_budget']}" if "over_budget" in result else ""
    return f"  {name:<36} {recall}  all@1000 {cells[1]['all_gold']:.3f}{apart}{over}"


def kept_rows(path: Path, limit: int | None) -> dict[str, Figures]:
    """The rows measured before on the same data, by the data's digest."""
    if not path.exists():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["limit"] != limit or tuple(before["budgets"]) != BUDGETS:
        sys.exit(f"{path} was measured with other budgets or --limit: --only cannot add to it")
    return {part["sha256"]: part["methods"] for part in before["data"]}


def main() -> None:
    """Measure every file of the data folder and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    repository = Path(__file__).resolve().parents[1]
    parser.add_argument("--data", type=Path, default=repository.parent / "shared" / "data")
    parser.add_argument("--embeddings", help="as ContextManager takes it; default: local MiniLM")
    parser.add_argument("--keyword-only", action="store_true", help="no embedding model at all")
    parser.add_argument("--limit", type=int, help="questions a conversation")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="measure these, keep the others")
    arguments = parser.parse_args()
    files = sorted(arguments.data.glob("*.jsonl")) if arguments.data.is_dir() else []
    if not files:
        sys.exit(f"no conversations (*.jsonl) in {arguments.data}; name their folder with --data")
    spec = None if arguments.keyword_only else arguments.embeddings or local_model()
    embedder = embeddings_from(spec)
    embeddings = remembered(embedder) if embedder else None
    methods: dict[str, Callable[[Sequence[Conversation], Questions], Figures]] = {
        name: lambda c, q, made=made: theirs(c, q, made) for name, made in peers(embeddings).items()
    }
    methods["prepare, keywords only"] = lambda c, q: ours(c, q, None)
    if embeddings is not None:
        methods["prepare, with embeddings"] = lambda c, q: ours(c, q, embeddings)
    chosen = arguments.only or list(methods)
    if unknown := set(chosen) - methods.keys():
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(methods)}")
    kept = kept_rows(report.RESULTS / "evidence_recall.json", arguments.limit)
    results: list[Figures] = []
    for path in files:
        conversations = read(path)
        digest = sha256(path.read_bytes()).hexdigest()
        results.append(
            {
                "kind": kind_of(conversations),
                "conversations": len(conversations),
                "turns": sum(len(conversation.turns) for conversation in conversations),
                "sha256": digest,
                "methods": kept.get(digest, {}) if arguments.only else {},
            }
        )
    model = None if embeddings is None else Path(embeddings.model).parts[-2:]
    about = {"budgets": BUDGETS, "embeddings": model, "limit": arguments.limit}
    for path, part in zip(files, results, strict=True):
        conversations = read(path)
        questions = [each for c in conversations for each in c.questions(arguments.limit)]
        print(
            f"{part['kind']}: {len(conversations)} conversations, {len(questions)} questions; "
            f"recall [95 %] at {', '.join(map(str, BUDGETS))} tokens",
            flush=True,
        )
        found: dict[str, Figures] = part["methods"]
        for name in chosen:
            found[name] = {**methods[name](conversations, questions), "commit": report.commit()}
            print(row(name, found[name]), flush=True)
            part["methods"] = {name: found[name] for name in methods if name in found}
            report.write("evidence_recall", {**about, "data": results})


if __name__ == "__main__":
    vocabulary()
    main()
