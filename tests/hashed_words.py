"""An embedding model that needs no weights: words hashed into a small vector."""

from __future__ import annotations

import math
import re
from hashlib import blake2b

from langchain_core.embeddings import Embeddings

SIZE = 32


class HashedWords(Embeddings):
    """Texts that share words are near each other; the same text has the same vector."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [_vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return _vector(text)


def _vector(text: str) -> list[float]:
    vector = [0.0] * SIZE
    for word in re.findall(r"\w+", text.lower()):
        vector[blake2b(word.encode(), digest_size=1).digest()[0] % SIZE] += 1.0
    length = math.hypot(*vector) or 1.0
    return [number / length for number in vector] if any(vector) else [1.0, *vector[1:]]
