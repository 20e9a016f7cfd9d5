"""A stand-in for a model: words hashed into 384 signed buckets. For tests and for the pipeline's own overhead."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from zlib import crc32

import numpy as np

from infra.embedding.minilm_tokens import MAX_TOKENS
from streams.model import EmbeddingModel, FloatMatrix, FloatVector

DIMENSIONS = 384
# Passages are cut as for minilm, so both embed the same texts.
HASH_MODEL = EmbeddingModel("hash", "hash-v1", DIMENSIONS, MAX_TOKENS)
TEXTS_AT_ONCE = 256
MAX_CACHED_WORDS = 200_000


class HashEmbedder:
    """Texts with words in common are near each other; nothing more is understood. The same on every machine."""

    def __init__(self) -> None:
        self._buckets = _Buckets()

    @property
    def model(self) -> EmbeddingModel:
        return HASH_MODEL

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        vectors = np.empty((len(texts), DIMENSIONS), np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            vectors[start : start + TEXTS_AT_ONCE] = self._embed(texts[start : start + TEXTS_AT_ONCE])
            await asyncio.sleep(0)
        return vectors

    async def embed_query(self, text: str) -> FloatVector:
        vector: FloatVector = self._embed([text])[0]
        return vector

    async def close(self) -> None:
        """Nothing to let go of; like the other embedders."""

    def _embed(self, texts: Sequence[str]) -> FloatMatrix:
        words = [text.split() for text in texts]
        counts = np.fromiter(map(len, words), np.int64, len(words))
        buckets = np.fromiter(map(self._buckets.__getitem__, chain.from_iterable(words)), np.int64, int(counts.sum()))
        buckets += np.repeat(np.arange(len(texts)) * 2 * DIMENSIONS, counts)
        sums = np.bincount(buckets, minlength=len(texts) * 2 * DIMENSIONS).reshape(len(texts), 2, DIMENSIONS)
        vectors = (sums[:, 0] - sums[:, 1]).astype(np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        for row in map(int, np.flatnonzero(norms[:, 0] == 0)):  # no words, or words that cancel out
            vectors[row, crc32(texts[row].encode("utf-8", "surrogatepass")) % DIMENSIONS] = norms[row] = 1
        vectors /= norms
        return vectors


class _Buckets(dict[str, int]):
    """Word to bucket: 0 to 383 counts up, 384 to 767 counts down. Case and punctuation at the ends do not matter."""

    def __missing__(self, word: str) -> int:
        stem = word.strip(".,;:!?…\"'`*_()[]{}<>|#-").casefold()
        bucket = crc32(stem.encode("utf-8", "surrogatepass")) % (2 * DIMENSIONS)
        if len(self) >= MAX_CACHED_WORDS:
            self.clear()
        self[word] = bucket
        return bucket
