"""An embedding model on this machine, which also tells what each word of a turn means.

A turn such as "It was rich and creamy!" says little alone, so it is encoded behind the
end of what was said right before it, and only its own tokens count. Their mean is the
turn's vector, and the tokens' own vectors are kept for late interaction: one pass gives
both. A model whose vectors are not the mean of its tokens is used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from numpy.typing import NDArray

from langchain_ctxmgr.forking import ForkableLock

BATCH_TEXTS = 32
"""Texts encoded together; larger batches are slower on a processor, padding grows."""
CONTEXT_TOKENS = 64
"""So much of what was said before a turn is read along. 32, 64 and 96 give .838, .843 and
.844 of recall at 500 tokens on conversations of short turns, none .83; each costs time."""
_CONTEXT_CHARS = 1_024
_TURN_CHARS = 4_096
"""Characters that hold more tokens than are read."""
_QUESTION_TOKENS = 64
"""Tokens of a question whose vectors are compared; all count for the vector of it."""
_PROBE = "Does the mean of the tokens give the vector?"
_SAME = 0.999

Vectors: TypeAlias = NDArray[np.float32]
Backend: TypeAlias = Literal["torch", "onnx"]


class Tokens(NamedTuple):
    """The tokens of a text."""

    spans: list[tuple[int, int]]
    """Which characters each stands for; of the mark at the end of a turn: none."""
    vectors: Vectors
    """One row a token, of length 1."""


class Encoded(NamedTuple):
    """What a model makes of a text."""

    vector: list[float]
    tokens: Tokens | None
    """None where the model does not tell."""


@runtime_checkable
class TurnEmbeddings(Protocol):
    """An embedding model that reads turns in their context and may give token vectors."""

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Encode each turn, given with what was said before it: `(before, turn)`."""
        ...

    def embed_question(self, question: str) -> Encoded:
        """Encode what is searched for."""
        ...

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """`embed_turns` on an event loop."""
        ...

    async def aembed_question(self, question: str) -> Encoded:
        """`embed_question` on an event loop."""
        ...


class LocalEmbeddings(Embeddings):
    """A sentence-transformers model on this machine, one processor thread.

    Args:
        name: Name on the Hugging Face hub, or path of a folder.
        backend: What runs it. With "onnx" a model that comes without an ONNX file is
            converted whenever it is loaded, which takes seconds.
    """

    def __init__(self, name: str, *, backend: Backend = "torch") -> None:
        self.model = name if backend == "torch" else f"{name} ({backend})"
        self._name = name
        self._backend: Backend = backend
        self._loading = ForkableLock()
        self._encoder: Any = None
        self._is_mean: bool | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of length 1 for `texts`, encoded in batches of like length."""
        return self._encode("encode_document", texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self._encode("encode_query", [text])[0]

    def embed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """Encode each turn behind the end of what was said before it: `(before, turn)`.

        Of a turn longer than the model reads, its beginning counts: long turns of users read
        whole, in windows or without what was said before, give .002 to .007 less recall.
        """
        if not self._gives_tokens():
            vectors = self.embed_documents([turn for _, turn in turns])
            return [Encoded(vector, None) for vector in vectors]
        encoder = self._loaded()
        tokenizer = encoder.tokenizer
        most = encoder.max_seq_length - 2
        inputs: list[_Input] = []
        for before, turn in turns:
            ahead = _pieces(tokenizer, before[-_CONTEXT_CHARS:]).ids[-CONTEXT_TOKENS:]
            own = _pieces(tokenizer, turn[:_TURN_CHARS])
            room = most - len(ahead)
            ids = [tokenizer.cls_token_id, *ahead, *own.ids[:room], tokenizer.sep_token_id]
            inputs.append(_Input(ids, 1 + len(ahead), [*own.spans[:room], (0, 0)]))
        with _half_precision(encoder.device.type) if self._backend == "torch" else nullcontext():
            states = self._states([each.ids for each in inputs])
        return [
            _encoded(each.spans, state[each.start :])
            for each, state in zip(inputs, states, strict=True)
        ]

    def embed_question(self, question: str) -> Encoded:
        """The vector of a question and those of its tokens."""
        if not self._gives_tokens():
            return Encoded(self.embed_query(question), None)
        encoder = self._loaded()
        tokenizer = encoder.tokenizer
        pieces = _pieces(tokenizer, question)
        ids = pieces.ids[: encoder.max_seq_length - 2]
        (state,) = self._states([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
        spans = pieces.spans[: min(len(ids), _QUESTION_TOKENS)]
        tokens = _encoded(spans, state[1 : 1 + len(spans)]).tokens if spans else None
        return Encoded(_encoded([], state).vector, tokens)

    async def aembed_turns(self, turns: Sequence[tuple[str, str]]) -> list[Encoded]:
        """`embed_turns` on an event loop, in a worker thread."""
        return await run_in_executor(None, self.embed_turns, turns)

    async def aembed_question(self, question: str) -> Encoded:
        """`embed_question` on an event loop, in a worker thread."""
        return await run_in_executor(None, self.embed_question, question)

    def _encode(self, method: str, texts: list[str]) -> list[list[float]]:
        encode = getattr(self._loaded(), method)
        vectors = encode(
            texts, batch_size=BATCH_TEXTS, normalize_embeddings=True, show_progress_bar=False
        )
        return cast("list[list[float]]", vectors.tolist())

    def _gives_tokens(self) -> bool:
        """Whether the model's vectors are the mean of its tokens, found out by trying."""
        if self._is_mean is None:
            encoder = self._loaded()
            tokenizer = encoder.tokenizer
            self._is_mean = False
            if getattr(tokenizer, "is_fast", False) and None not in {
                tokenizer.cls_token_id,
                tokenizer.sep_token_id,
                encoder.max_seq_length,
            }:
                ids = _pieces(tokenizer, _PROBE).ids
                ids = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
                mean = _encoded([], self._states([ids])[0]).vector
                asked = self._encode("encode_query", [_PROBE])[0]
                stored = self._encode("encode_document", [_PROBE])[0]
                self._is_mean = all(np.dot(mean, one) > _SAME for one in (asked, stored))
        return self._is_mean

    def _states(self, inputs: Sequence[list[int]]) -> list[Vectors]:
        """The last hidden states of each input, encoded in batches of like length."""
        import torch

        encoder = self._loaded()
        found: list[Vectors] = [np.empty((0, 0), dtype=np.float32)] * len(inputs)
        places = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
        for start in range(0, len(places), BATCH_TEXTS):
            batch = places[start : start + BATCH_TEXTS]
            padded = encoder.tokenizer.pad(
                {"input_ids": [inputs[place] for place in batch]}, return_tensors="pt"
            ).to(encoder.device)
            with torch.inference_mode():
                states = encoder[0].auto_model(**padded).last_hidden_state.float().cpu().numpy()
            for row, place in enumerate(batch):
                found[place] = states[row, : len(inputs[place])]
        return found

    def _loaded(self) -> Any:
        with self._loading:
            if self._encoder is None:
                load = _with_onnx if self._backend == "onnx" else _with_torch
                try:
                    self._encoder = load(self._name)
                except ImportError as error:
                    extra = {"torch": "local", "onnx": "onnx"}[self._backend]
                    raise ImportError(
                        f"the model {self._name!r} needs sentence-transformers with "
                        f"{self._backend}: pip install 'langchain-ctxmgr[{extra}]'"
                    ) from error
            return self._encoder


def _with_torch(name: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(name)


def _with_onnx(name: str) -> Any:
    from sentence_transformers import SentenceTransformer

    options = import_module("onnxruntime").SessionOptions()
    options.intra_op_num_threads = 1
    settings = {"provider": "CPUExecutionProvider", "session_options": options}
    return SentenceTransformer(name, backend="onnx", model_kwargs=settings)


def _half_precision(device: str) -> AbstractContextManager[object]:
    """Encode in 16 bits where the processor has matrix units for that; else as it is.

    Twice as fast for turns read in their context, and a turn's vector keeps a cosine of
    .9999 with the exact one, less than is lost when it is stored. Questions stay exact.
    """
    import torch

    ask: Any = getattr(torch.cpu, "get_capabilities", None)  # older releases of torch lack it
    told: dict[str, Any] = {} if ask is None else ask()
    if device != "cpu" or not told.get("amx_bf16"):
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


class _Pieces(NamedTuple):
    ids: list[int]
    spans: list[tuple[int, int]]


class _Input(NamedTuple):
    ids: list[int]
    start: int
    """Where the turn's own tokens begin."""
    spans: list[tuple[int, int]]


def _pieces(tokenizer: Any, text: str) -> _Pieces:
    made = tokenizer(
        text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return _Pieces(made["input_ids"], made["offset_mapping"])


def _encoded(spans: list[tuple[int, int]], states: Vectors) -> Encoded:
    """Their mean, of length 1, and the tokens, each of length 1."""
    mean = states.mean(axis=0)
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    tokens = Tokens(spans, states / np.maximum(lengths, 1e-12))
    return Encoded((mean / max(float(np.linalg.norm(mean)), 1e-12)).tolist(), tokens)
