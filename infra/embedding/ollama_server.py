"""An embedding model on Ollama."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from infra.embedding.errors import ModelRefused
from infra.embedding.remote import known_model
from infra.model_servers import CONNECT_TIMEOUT_S, ModelMissing, ollama_client, ollama_errors
from streams.model import EmbeddingModel

# The first request also loads the model; embedding models are small, but disks may be slow.
EMBED_TIMEOUT_S = 120.0
# Special tokens and a prefix, which a passage must leave room for.
RESERVED_TOKENS = 16
DEFAULT_CONTEXT = 512


class OllamaEmbeddings:
    """Implements ``EmbeddingServer``."""

    def __init__(self, url: str | None, model: str, *, keep_alive: str) -> None:
        self._model = model
        self._keep_alive = keep_alive
        self._client = ollama_client(url, timeout=httpx.Timeout(EMBED_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))

    async def describe(self) -> EmbeddingModel:
        with ollama_errors(self._model):
            shown = await self._client.show(self._model)
            installed = (await self._client.list()).models
        if shown.capabilities is not None and "embedding" not in shown.capabilities:
            # Ollama would answer with vectors all the same, and they would be bad ones.
            raise ModelRefused(f"'{self._model}' generates text, it does not embed; set LEAT_OLLAMA_EMBED_MODEL")
        info = shown.modelinfo or {}
        dimensions = _number(info, "embedding_length")
        if dimensions is None:
            raise ModelRefused(f"ollama does not say how many dimensions '{self._model}' has; update ollama")
        digest = next((each.digest for each in installed if _same(each.model, self._model)), None)
        if not digest:
            raise ModelMissing("ollama", self._model, f"run: ollama pull {self._model}")
        context = _number(info, "context_length") or DEFAULT_CONTEXT
        name = f"ollama:{self._model}"
        return EmbeddingModel(name, _fingerprint(self._model, digest), dimensions, context - RESERVED_TOKENS)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        with ollama_errors(self._model):
            # truncate: Ollama would cut silently, and nobody would know which texts lost their end.
            answer = await self._client.embed(self._model, texts, truncate=False, keep_alive=self._keep_alive)
        return answer.embeddings

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]


def _number(info: Mapping[str, Any], suffix: str) -> int | None:
    """``bert.embedding_length``, ``nomic-bert.embedding_length`` … by their end."""
    return next((int(value) for key, value in info.items() if key.endswith(f".{suffix}")), None)


def _same(installed: str | None, model: str) -> bool:
    return installed in (model, f"{model}:latest")


def _fingerprint(model: str, digest: str) -> str:
    """Weights and prefixes; the name does not matter, the same weights under another tag are the same model."""
    known = known_model(model)
    content = "\0".join((digest.removeprefix("sha256:"), known.passage_prefix, known.query_prefix))
    return f"ollama-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
