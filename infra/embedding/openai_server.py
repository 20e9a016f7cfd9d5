"""An embedding model behind ``/v1/embeddings``: vLLM, LiteLLM, OpenAI and everything that speaks like them."""

import hashlib
from collections.abc import Sequence
from typing import Any

import httpx

from infra.embedding.errors import ModelRefused
from infra.embedding.remote import known_model
from infra.model_servers import CONNECT_TIMEOUT_S, openai_client, openai_errors
from infra.settings import Settings
from streams.model import EmbeddingModel

EMBED_TIMEOUT_S = 120.0
RESERVED_TOKENS = 16
# What nearly every embedding model reads, for endpoints that do not tell (vLLM does: max_model_len).
DEFAULT_CONTEXT = 512


class OpenAiEmbeddings:
    """Implements ``EmbeddingServer``."""

    def __init__(self, settings: Settings, model: str) -> None:
        if not model:
            raise ModelRefused("no embedding model is set; set LEAT_OPENAI_EMBED_MODEL")
        self._model = model
        self._client = openai_client(settings, timeout=httpx.Timeout(EMBED_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))

    async def describe(self) -> EmbeddingModel:
        """The protocol tells no dimensions, so one word is embedded to count them."""
        dimensions = len((await self.embed(["dimensions"]))[0])
        known = known_model(self._model)
        content = "\0".join((self._model, str(dimensions), known.passage_prefix, known.query_prefix))
        fingerprint = f"openai-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        max_tokens = await self._context() - RESERVED_TOKENS
        return EmbeddingModel(f"openai:{self._model}", fingerprint, dimensions, max_tokens)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        with openai_errors(self._model):
            body = {"model": self._model, "input": list(texts), "encoding_format": "float"}
            response = await self._client.post("/embeddings", json=body)
            response.raise_for_status()
            rows: list[dict[str, Any]] = response.json()["data"]
            return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]

    async def close(self) -> None:
        await self._client.aclose()

    async def _context(self) -> int:
        """Not every endpoint lists its models, and few say how much they read."""
        response = await self._list_models()
        if response.is_error:
            return DEFAULT_CONTEXT
        with openai_errors(self._model):
            models = response.json().get("data", [])
            return next((int(each.get("max_model_len") or 0) for each in models if each["id"] == self._model), 0) or (
                DEFAULT_CONTEXT
            )

    async def _list_models(self) -> httpx.Response:
        with openai_errors(self._model):
            return await self._client.get("/models")
