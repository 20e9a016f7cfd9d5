"""Embedding by a model server: batches, prefixes, texts that turn out too long, and the refusal to mix models."""

import asyncio
import logging
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from infra.breaker import PAUSE_S as BREAKER_PAUSE_S
from infra.breaker import CircuitBreaker
from infra.embedding.errors import ModelRefused
from infra.model_servers import ModelMissing
from streams.errors import PermanentError, TransientError
from streams.model import EmbeddingModel, FloatMatrix, FloatVector

log = logging.getLogger(__name__)

# One request. More gains nothing: servers run a few texts at a time, and a lost request is a lost minute.
BATCH_TEXTS = 32
BATCH_CHARS = 64_000
# A model that was pulled anew under its old name gives other vectors. Asking costs a millisecond.
RECHECK_S = 60.0
# How servers say that an input is longer than the model reads; Ollama, vLLM and OpenAI in turn.
TOO_LONG = re.compile(r"context|too long|maximum.{0,20}length", re.IGNORECASE)
SHORTEST_CUT = 64


@dataclass(frozen=True, slots=True)
class KnownModel:
    """What a family of models expects of its input; no server tells."""

    passage_prefix: str = ""
    query_prefix: str = ""
    wordpiece: bool = False
    """It has the vocabulary of bert-base-uncased, as all-MiniLM-L6-v2 has, so its tokens can be counted exactly."""


_RETRIEVE = "Represent this sentence for searching relevant passages: "
KNOWN_MODELS = {
    "nomic-embed-text": KnownModel("search_document: ", "search_query: ", wordpiece=True),
    "mxbai-embed-large": KnownModel("", _RETRIEVE, wordpiece=True),
    "snowflake-arctic-embed2": KnownModel("", "query: "),
    "snowflake-arctic-embed": KnownModel("", _RETRIEVE, wordpiece=True),
    "all-minilm": KnownModel(wordpiece=True),
    "embeddinggemma": KnownModel("title: none | text: ", "task: search result | query: "),
}
UNKNOWN_MODEL = KnownModel()


def known_model(name: str) -> KnownModel:
    """By the start of the last part of a name, as in ``nomic-ai/nomic-embed-text-v1.5`` or ``all-minilm:l6-v2``."""
    base = name.rsplit("/", 1)[-1].lower()
    return next((known for start, known in KNOWN_MODELS.items() if base.startswith(start)), UNKNOWN_MODEL)


class EmbeddingServer(Protocol):
    """One model on one server."""

    async def describe(self) -> EmbeddingModel:
        """What the server has under the model's name now.

        Raises:
            ModelMissing: it has no such model; the message has the way to get it.
            ModelRefused: it has, but that model does not embed.
        """
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Vectors of any length, in order.

        Raises:
            PermanentError: the server refuses the request, as when a text is longer than the model reads.
        """
        ...

    async def close(self) -> None: ...


class RemoteEmbedder:
    """An ``Embedder`` over a model server, one call at a time."""

    def __init__(
        self,
        server: EmbeddingServer,
        model: EmbeddingModel,
        known: KnownModel,
        *,
        breaker_pause_s: float = BREAKER_PAUSE_S,
    ) -> None:
        self._server = server
        self._model = model
        self._known = known
        self._turn = asyncio.Lock()
        self._breaker = CircuitBreaker(model.name.partition(":")[0], pause_s=breaker_pause_s, ignored=(ModelMissing,))
        self._checked_at = -RECHECK_S

    @property
    def model(self) -> EmbeddingModel:
        return self._model

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        prefixed = [self._known.passage_prefix + _composed(text) for text in texts]
        vectors = np.empty((len(texts), self._model.dimensions), np.float32)
        async with self._turn:
            for batch in _batches(prefixed):
                vectors[batch] = await self._embed(prefixed[batch])
        return vectors

    async def embed_query(self, text: str) -> FloatVector:
        async with self._turn:
            vector: FloatVector = (await self._embed([self._known.query_prefix + _composed(text)]))[0]
        return vector

    async def close(self) -> None:
        await self._server.close()

    async def _embed(self, texts: Sequence[str]) -> FloatMatrix:
        with self._breaker.attempt():
            await self._refuse_to_mix()
            return await self._embed_or_cut(texts)

    async def _embed_or_cut(self, texts: Sequence[str]) -> FloatMatrix:
        """Where a text is too long for the model, that one alone loses its end, and it is logged."""
        try:
            return _unit_length(await self._server.embed(texts), len(texts), self._model.dimensions)
        except PermanentError as error:
            if not TOO_LONG.search(error.detail) or (len(texts) == 1 and len(texts[0]) <= SHORTEST_CUT):
                raise
        if len(texts) > 1:
            return np.concatenate([await self._embed_or_cut([text]) for text in texts])
        kept = len(texts[0]) * 3 // 4
        log.warning("embedding_input_cut", extra={"model": self._model.name, "kept_chars": kept})
        return await self._embed_or_cut([texts[0][:kept]])

    async def _refuse_to_mix(self) -> None:
        if time.monotonic() - self._checked_at < RECHECK_S:
            return
        present = await self._server.describe()
        if (present.fingerprint, present.dimensions) != (self._model.fingerprint, self._model.dimensions):
            raise ModelRefused(
                f"{self._model.name} is not the model that the index was built with ({present.fingerprint}, want "
                f"{self._model.fingerprint}); reindex the collection, or bring the old model back"
            )
        self._checked_at = time.monotonic()


def _composed(text: str) -> str:
    """In NFC: Ollama (seen on 0.9.6) keeps accents that come as separate code points, as in file names and texts from
    macOS, where the model's own tokenizer drops them. One such word has a cosine of 0.34 to what it should be.
    """
    return unicodedata.normalize("NFC", text)


def _batches(texts: Sequence[str]) -> Iterator[slice]:
    start, chars = 0, 0
    for end, text in enumerate(texts):
        if end > start and (end - start >= BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
            yield slice(start, end)
            start, chars = end, 0
        chars += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def _unit_length(rows: Sequence[Sequence[float]], count: int, dimensions: int) -> FloatMatrix:
    try:
        vectors = np.asarray(rows, np.float32)
    except (ValueError, TypeError) as error:
        raise TransientError("the model server answered something that is not vectors") from error
    if vectors.shape != (count, dimensions):
        raise TransientError(f"the model server answered shape {vectors.shape}, want {(count, dimensions)}")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise TransientError("the model server answered a vector without a direction")
    vectors /= norms
    return vectors


class ByteCounter:
    """For models whose tokenizer we do not have: a third of the UTF-8 bytes.

    An estimate. With bert-base-uncased's vocabulary, English prose has 4 to 5 bytes a token, Vietnamese and Portuguese
    3.3, Chinese 3, but code 2.5, Cyrillic 2.2 and tables 2: those may have half as many tokens again as we count, so
    where a model reads little more than a passage, ``RemoteEmbedder`` may have to cut.
    """

    def count(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "surrogatepass")) // 3)

    def count_exact(self, text: str) -> int:
        return self.count(text)
