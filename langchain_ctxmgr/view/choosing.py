"""Choosing what stands ahead of a question: what is recalled for it, known of the user, pinned.

All of it is one block inside one fence, priced as a whole against what the frame has left.
"""

from __future__ import annotations

from typing import Final

from langchain_core.messages import BaseMessage

from langchain_ctxmgr._plans import Plan
from langchain_ctxmgr.analysis import message_text
from langchain_ctxmgr.budget.allocation import Allocation
from langchain_ctxmgr.budget.tokens import TokenCounter
from langchain_ctxmgr.memory.recall import Recall
from langchain_ctxmgr.prompt.layout import assemble, beside_recalled, fence_tokens
from langchain_ctxmgr.view.beside import NO_SECTIONS, Beside, Sections, Shares
from langchain_ctxmgr.view.current_turn import CurrentTurn
from langchain_ctxmgr.view.history import Window
from langchain_ctxmgr.view.request import ViewRequest
from langchain_ctxmgr.view.settled import NOTHING, Chosen

FACTS_OF_RECALLED: Final = 0.25
"""Of the room for what is recalled for a question, for facts of the user, at most."""
STANDING_OF_RECALLED: Final = 0.05
"""The same for what the user asked for from then on."""


class Chooser:
    """Chooses for a question; safe to share between threads and tasks.

    Args:
        recall: Finds what was said before the window.
        beside: Finds pins and facts; None: neither.
        counter: What sizes are counted with.
        score_threshold: Nothing is recalled where the chance that it bears on the question is
            below.
    """

    def __init__(
        self,
        recall: Recall,
        beside: Beside | None,
        counter: TokenCounter,
        *,
        score_threshold: float,
    ) -> None:
        self._recall = recall
        self._beside = beside
        self._counter = counter
        self._score_threshold = score_threshold

    def choose(
        self,
        request: ViewRequest,
        turn: CurrentTurn,
        window: Window,
        *,
        shares: Allocation,
        limit: int,
        room: int,
        has_notes: bool = True,
    ) -> Plan[Chosen]:
        """What stands beside the question: recalled from before the window, facts and pins.

        At most `limit`; for pins also what else is left of `room`. With notes by a model, which
        tell what was asked for, that is not looked for.
        """
        question = turn.question
        text = "" if question is None else message_text(question)
        sections = yield from self._sections(
            request,
            turn,
            window,
            shares=shares,
            question=text,
            limit=limit,
            room=room,
            has_notes=has_notes,
        )
        limit += min(sections.pinned_tokens, room - limit)
        recalled = limit - sections.tokens
        if question is None:
            return NOTHING
        if not text.strip() or window.start_slot == 0:
            recalled = 0
        while recalled > 0:
            found = yield from self._recall.find(
                request.scope,
                text,
                branch=request.branch,
                before_slot=window.start_slot,
                shown=window.seqs | sections.seqs,
                max_tokens=recalled,
                asked_at=request.asked_at,
                score_threshold=self._score_threshold,
                weights=request.marks.weights,
            )
            block = beside_recalled(found.block, sections.text)
            cost = self._added(question, block)
            if cost <= limit:
                carried = {**found.carried, **sections.carried}
                considered = (*found.considered, *sections.considered)
                return Chosen(block, cost, carried, considered, sections.text, sections.abroad)
            # A block that meets the question may join into other tokens than it was priced at.
            recalled = min(recalled, found.tokens) - (cost - limit)
        if not sections.considered:
            return NOTHING
        block = beside_recalled("", sections.text)
        cost = self._added(question, block)
        chosen = Chosen(
            block, cost, sections.carried, sections.considered, sections.text, sections.abroad
        )
        return chosen if cost <= max(0, room) else chosen.gone()

    def _sections(
        self,
        request: ViewRequest,
        turn: CurrentTurn,
        window: Window,
        *,
        shares: Allocation,
        question: str,
        limit: int,
        room: int,
        has_notes: bool,
    ) -> Plan[Sections]:
        """What is pinned and known of the user, beside at least `1 - FACTS_OF_RECALLED`."""
        beside, marks = self._beside, request.marks
        left = room - fence_tokens(self._counter)
        if beside is None or left <= 0:
            return NO_SECTIONS
        facts = shares.facts
        if window.start_slot > 0:
            facts = min(facts, int(limit * FACTS_OF_RECALLED))
        pinned = min(shares.working, left)
        standing = 0 if has_notes or window.start_slot == 0 else int(limit * STANDING_OF_RECALLED)
        return (
            yield from beside.sections(
                request.scope,
                request.branch,
                turn,
                window,
                marks=marks,
                question=question,
                at=request.asked_at,
                shares=Shares(pinned=pinned, standing=standing, facts=min(facts, left), all=left),
            )
        )

    def _added(self, question: BaseMessage, block: str) -> int:
        """What `block` adds to the question it stands ahead of."""
        count = self._counter.messages
        return count(assemble(turn=[question], recalled=block)) - count([question])
