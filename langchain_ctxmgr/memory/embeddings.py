"""Embedding models by name, loaded when they are first used.

Vectors of two models never mix, so a model comes with a name that identifies it in the
index. `sentence-transformers` costs seconds to import: only a spec that asks for it does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from math import isfinite
from typing import Final

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_ctxmgr._plans import Plan, call
from langchain_ctxmgr.errors import StorageError
from langchain_ctxmgr.memory.breaker import Breaker
from langchain_ctxmgr.memory.cached import Cached
from langchain_ctxmgr.memory.local import (
    Backend,
    Encoded,
    LocalEmbeddings,
    Tokens,
    TurnEmbeddings,
)
from langchain_ctxmgr.records import Scope
from langchain_ctxmgr.storage.vectors import DenseVectors

QUESTION_TTL = timedelta(hours=1)
"""How long a question's vector is kept: a tool loop or a second try asks it again within
minutes."""

_LOCAL: Final[Mapping[str, Backend]] = {
    "sentence-transformers": "torch",
    "sentence-transformers-onnx": "onnx",
}
"""What runs a model on this machine, by the provider that a spec names."""
_OPENAI = "openai"
PROBE = "size"
"""A text that any model takes: to learn its size, and whether it answers at all."""
_IN_CONTEXT = " in context"
"""Tells vectors of turns read in their context from those of the turns alone."""
_SECRETS = ("key", "token", "secret", "password", "credential", "auth")
_NAME_FIELDS = ("model", "model_name", "model_id", "repo_id", "deployment")


class UnknownSizeError(StorageError):
    """There is no index for an embedding model yet, and the model cannot be asked."""


class Embedder:
    """An embedding model and the name that its vectors go by.

    Hand one to `ContextManager` for a model that does not say which it is.

    Raises:
        ValueError: If `model` is no `Embeddings`, or `name` is empty.
    """

    def __init__(self, model: Embeddings, name: str) -> None:
        if not isinstance(model, Embeddings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"model must be a LangChain Embeddings, got {type(model).__name__}")
        if not isinstance(name, str) or not name.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"name must be text that is not empty, got {name!r}")
        self.model = model
        self.name = name
        self._size: int | None = None

    def dense(self) -> DenseVectors:
        """Name and size of its vectors.

        Raises:
            UnknownSizeError: If the model has not answered to `learn` yet.
        """
        if self._size is None:
            raise UnknownSizeError(
                f"the embedding model {self.name!r} has not answered yet, so the size of its "
                "vectors is unknown"
            )
        is_in_context = isinstance(self.model, TurnEmbeddings)
        name = f"{self.name}{_IN_CONTEXT}" if is_in_context else self.name
        return DenseVectors(name=name, size=self._size)

    def learn(self, *, anew: bool = False) -> Plan[None]:
        """Ask the model for the size of its vectors, once unless `anew`."""
        if anew or self._size is None:
            self._size = len((yield from call(self.model.embed_query, PROBE)))


def learn_size(embedder: Embedder | None, encoder: Breaker) -> Plan[None]:
    """Load the model off the event loop, before an index asks it the size of its vectors.

    The boundary for the model: that it is down is told to its `encoder` breaker.
    """
    if embedder is None or not encoder.is_closed:
        return
    try:
        yield from embedder.learn()
    except Exception as error:  # noqa: BLE001 - any model may be behind it
        encoder.failed(error)


class QuestionVectors:
    """The vectors of questions, each asked of the model once in `QUESTION_TTL`.

    Args:
        embedder: The model.
        cached: Where vectors are kept, under digests of the questions.
    """

    def __init__(self, embedder: Embedder, cached: Cached) -> None:
        self._embedder = embedder
        self._cached = cached

    def encoded(self, scope: Scope, question: str, dense: DenseVectors | None) -> Plan[Encoded]:
        """What the model makes of `question`, in 32-bit precision whether it was kept or not.

        Raises:
            ValueError: If the model's answer cannot be searched; the model's own errors pass.
        """
        asked = question.encode(errors="replace").decode()  # no model takes a lone surrogate

        def ask() -> Plan[bytes]:
            model = self._embedder.model
            if isinstance(model, TurnEmbeddings):
                answer = yield from call(model.embed_question, asked)
            else:
                answer = Encoded((yield from call(model.embed_query, asked)), None)
            with np.errstate(over="ignore"):
                vector = np.asarray(answer.vector, dtype="<f4")
            check_vectors([vector.tolist()], count=1, dense=dense)
            return _to_bytes(vector, answer.tokens)

        size = 0 if dense is None else dense.size
        name = self._embedder.name if dense is None else dense.name
        told = f"{name}\0{size}\0{asked}"
        key = f"question/{sha256(told.encode()).hexdigest()}"
        return _of_bytes((yield from self._cached.value(scope, key, ask, ttl=QUESTION_TTL)))


def _to_bytes(vector: NDArray[np.float32], tokens: Tokens | None) -> bytes:
    """The vector with its size ahead, then the tokens' spans and vectors."""
    parts = [np.array([len(vector)], dtype="<f4"), vector]
    if tokens is not None:
        rows = np.hstack([np.array(tokens.spans, dtype="<f4"), tokens.vectors.astype("<f4")])
        parts.append(rows.ravel())
    return np.concatenate(parts).tobytes()


def _of_bytes(kept: bytes) -> Encoded:
    """As `_to_bytes` wrote it."""
    numbers = np.frombuffer(kept, dtype="<f4")
    size = int(numbers[0])
    vector, rows = numbers[1 : 1 + size], numbers[1 + size :].reshape(-1, 2 + size)
    if not len(rows):
        return Encoded(vector.tolist(), None)
    spans = [(int(start), int(end)) for start, end in rows[:, :2]]
    return Encoded(vector.tolist(), Tokens(spans, rows[:, 2:]))


def answers(embedder: Embedder) -> Plan[bool]:
    """Whether the model takes a plain text: then it is the text it refused that is at fault."""
    try:
        yield from call(embedder.model.embed_query, PROBE)
    except Exception:  # noqa: BLE001 - any model may be behind it
        return False
    return True


def check_vectors(
    vectors: Sequence[Sequence[float]], *, count: int, dense: DenseVectors | None
) -> None:
    """Return when a model's answer can be stored and searched.

    Raises:
        ValueError: If there are not `count` vectors, one has another size than the index, or
            holds a number that is not finite.
    """
    if len(vectors) != count:
        raise ValueError(f"the embedding model gave {len(vectors)} vectors for {count} texts")
    for vector in vectors:
        if dense is not None and len(vector) != dense.size:
            raise ValueError(
                f"the embedding model gave {len(vector)} numbers, the index has {dense.size}"
            )
        if not all(map(isfinite, vector)):
            raise ValueError("the embedding model gave numbers that are not finite")


def embeddings_from(spec: Embeddings | str | Embedder | None) -> Embedder | None:
    """The model that `spec` names; None stays None: keyword recall only.

    Args:
        spec: A LangChain `Embeddings`, `sentence-transformers:<name or path>` (the same with
            ONNX Runtime: `sentence-transformers-onnx:<name or path>`), `openai:<name>`, or an
            `Embedder`, which has its name.

    Raises:
        ValueError: If `spec` is none of these, or an `Embeddings` that nothing tells from
            another of its class, or an OpenAI model without credentials.
        ImportError: If the package for it is missing; the message names the extra.
    """
    if spec is None or isinstance(spec, Embedder):
        return spec
    if isinstance(spec, Embeddings):
        return Embedder(spec, _name_of(spec))
    provider, _, name = spec.partition(":") if isinstance(spec, str) else ("", "", "")  # pyright: ignore[reportUnnecessaryIsInstance]
    if not name or provider not in {*_LOCAL, _OPENAI}:
        local = ", ".join(f"'{each}:<name or path>'" for each in _LOCAL)
        raise ValueError(
            f"embeddings must be a LangChain Embeddings, {local} or '{_OPENAI}:<name>', "
            f"got {spec!r}"
        )
    if provider in _LOCAL:
        return Embedder(LocalEmbeddings(name, backend=_LOCAL[provider]), spec)
    try:
        from langchain_openai import OpenAIEmbeddings
    except ImportError as error:
        raise ImportError(
            f"{spec!r} needs langchain-openai: pip install 'langchain-ctxmgr[openai]'"
        ) from error
    from openai import OpenAIError

    try:
        return Embedder(OpenAIEmbeddings(model=name), spec)
    except OpenAIError as error:
        raise ValueError(
            f"{spec!r} needs credentials: set OPENAI_API_KEY, or give the Embeddings itself"
        ) from error


def _name_of(model: Embeddings) -> str:
    """The class with the model's name; without one, with a digest of its plain settings.

    Raises:
        ValueError: If it holds something, but nothing that tells it from others of its class.
    """
    named = (getattr(model, field, None) for field in _NAME_FIELDS)
    name = next((value for value in named if isinstance(value, str) and value), "")
    kind = type(model)
    if name:
        return f"{kind.__name__}:{name}"
    path = f"{kind.__module__}.{kind.__qualname__}"
    held: dict[str, object] = getattr(model, "__dict__", {})
    told = {
        field: value
        for field, value in held.items()
        if isinstance(value, str | int | float) and not _is_private(field)
    }
    if held and not told:
        raise ValueError(
            f"embeddings must say which model they are, got {path} with neither a model name nor "
            "a plain setting; hand in Embedder(embeddings, name='...') to name it"
        )
    if not told:
        return path
    settings = json.dumps(told, sort_keys=True).encode("utf-8", "backslashreplace")
    return f"{path}:{sha256(settings).hexdigest()[:16]}"


def _is_private(field: str) -> bool:
    """Whether a setting is not for a name: internal, or a secret."""
    return field.startswith("_") or any(word in field.lower() for word in _SECRETS)
