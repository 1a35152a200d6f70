"""How well recall does, measured without a judge: on one's own logs, and with needles.

`evidence_recall` asks questions whose answers are known to stand in certain messages, and
looks whether those messages stand in the prepared view. `needle_in_haystack` hides facts in
long conversations and looks whether a view, or a chat model's reply to it, holds them.
`compare_policies` sets ways to keep a part of a conversation side by side. All go through a
manager as an application does. No language model is called unless one is given.
"""

from __future__ import annotations

from langchain_ctxmgr.evaluation.evidence import (
    EvidenceAnswer,
    EvidenceReport,
    aevidence_recall,
    evidence_recall,
)
from langchain_ctxmgr.evaluation.haystack import Needle, default_needles, generated_haystack
from langchain_ctxmgr.evaluation.measure import RecallFigures
from langchain_ctxmgr.evaluation.needle import (
    NeedleCell,
    NeedleReport,
    aneedle_in_haystack,
    needle_in_haystack,
)
from langchain_ctxmgr.evaluation.picture import draw_heat_map
from langchain_ctxmgr.evaluation.policies import (
    POLICIES,
    Policy,
    PolicyFigures,
    acompare_policies,
    compare_policies,
)
from langchain_ctxmgr.evaluation.questions import EvidenceQuestion, read_questions

__all__ = [
    "POLICIES",
    "EvidenceAnswer",
    "EvidenceQuestion",
    "EvidenceReport",
    "Needle",
    "NeedleCell",
    "NeedleReport",
    "Policy",
    "PolicyFigures",
    "RecallFigures",
    "acompare_policies",
    "aevidence_recall",
    "aneedle_in_haystack",
    "compare_policies",
    "default_needles",
    "draw_heat_map",
    "evidence_recall",
    "generated_haystack",
    "needle_in_haystack",
    "read_questions",
]
