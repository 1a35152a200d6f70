from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from langchain_ctxmgr.tiers import ENTERPRISE, PRO, STARTER, Tier


def test_the_presets():
    limits = [
        (t.keep.days, t.context_tokens, t.summaries_usd_per_day) for t in (STARTER, PRO, ENTERPRISE)
    ]
    assert limits == [(7, 2_000, 1), (30, 4_000, 5), (365, 8_000, 100)]
    assert PRO.budget.prompt_tokens == 4_000


@pytest.mark.parametrize("limit", ["keep", "context_tokens", "summaries_usd_per_day"])
def test_a_limit_is_positive(limit):
    given = {"keep": timedelta(1), "context_tokens": 1, "summaries_usd_per_day": Decimal(1)}
    with pytest.raises(ValueError, match=limit):
        Tier(name="own", **given | {limit: type(given[limit])(0)})
