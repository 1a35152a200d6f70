from __future__ import annotations

import threading

import pytest
from langchain_core.messages import AIMessage

from langchain_ctxmgr.budget.calibration import Calibration, PromptSizes


def usage(tokens):
    return {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1}


class TestCalibration:
    def test_starts_at_one_for_a_model_with_its_own_vocabulary(self):
        assert Calibration().factor("gpt-4o") == 1.0
        assert Calibration().factor(None) == 1.0

    def test_starts_above_one_for_others(self):
        assert (
            Calibration().factor("claude-sonnet-4-5") > Calibration().factor("gemini-2.5-pro") > 1
        )

    def test_learns_what_a_model_reports(self):
        calibration = Calibration()
        for _ in range(10):
            assert calibration.observe("m", 1_000, usage(1_200))
        assert calibration.factor("m") == pytest.approx(1.2)
        assert calibration.room("m", 1_200) == 1_000

    def test_stays_on_the_high_side(self):
        calibration = Calibration()
        for tokens in [1_000] * 9 + [1_300]:
            calibration.observe("m", 1_000, usage(tokens))
        calibration.observe("m", 1_000, usage(1_300))
        assert calibration.factor("m") == pytest.approx(1.3)

    def test_usage_below_the_count_gives_nothing_away(self):
        calibration = Calibration()
        calibration.observe("m", 1_000, usage(500))
        assert calibration.factor("m") == 1.0

    def test_forgets_what_was_long_ago(self):
        calibration = Calibration()
        for tokens in [2_000] * 5 + [1_100] * 40:
            calibration.observe("m", 1_000, usage(tokens))
        assert calibration.factor("m") == pytest.approx(1.1)

    @pytest.mark.parametrize(
        ("model", "counted", "reported"),
        [
            ("m", 1_000, None),
            ("m", 1_000, {}),
            ("m", 1_000, usage(0)),
            ("m", 1_000, usage(-5)),
            ("m", 1_000, {"input_tokens": float("nan")}),
            ("m", 1_000, {"input_tokens": True}),
            ("m", 1_000, {"input_tokens": "1000"}),
            ("m", 1_000, usage(900_000)),
            ("m", 10, usage(30)),
            ("m", 0, usage(30)),
            (None, 1_000, usage(1_000)),
        ],
    )
    def test_nonsense_teaches_nothing(self, model, counted, reported):
        calibration = Calibration()
        before = calibration.factor("m")
        assert not calibration.observe(model, counted, reported)
        assert calibration.factor("m") == before

    def test_memory_stays_bounded(self):
        calibration = Calibration()
        for number in range(600):
            calibration.observe(f"m{number}", 1_000, usage(1_500))
        assert len(calibration._ratios) == 256
        assert calibration.factor("m599") == 1.5

    def test_threads_may_share_it(self):
        calibration = Calibration()

        def work() -> None:
            for number in range(300):
                calibration.observe(f"m{number % 7}", 1_000, usage(1_200))
                calibration.factor("m1")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calibration.factor("m1") == 1.2


class TestPromptSizes:
    def test_an_answer_teaches_what_its_threads_last_prompt_really_took(self):
        calibration = Calibration()
        sizes = PromptSizes(calibration, "m")
        sizes.sent("one", 1_000)
        sizes.sent("two", 500)
        sizes.answered("one", [AIMessage("yes", usage_metadata=usage(1_200))])
        assert calibration.factor("m") == pytest.approx(1.2)

    def test_an_answer_is_counted_once(self):
        calibration = Calibration()
        sizes = PromptSizes(calibration, "m")
        sizes.sent("one", 1_000)
        sizes.answered("one", [AIMessage("yes", usage_metadata=usage(1_200))])
        sizes.answered("one", [AIMessage("again", usage_metadata=usage(4_000))])
        assert calibration.factor("m") == pytest.approx(1.2)

    def test_an_answer_without_usage_leaves_the_prompt_waiting(self):
        calibration = Calibration()
        sizes = PromptSizes(calibration, "m")
        sizes.sent("one", 1_000)
        sizes.answered("one", [AIMessage("streamed")])
        sizes.answered("one", [AIMessage("done", usage_metadata=usage(1_200))])
        assert calibration.factor("m") == pytest.approx(1.2)
