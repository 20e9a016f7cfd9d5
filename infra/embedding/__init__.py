"""Embedding models by name: ``minilm``, ``minilm-int8``, ``hash``, ``ollama[:MODEL]``, ``openai[:MODEL]``.

The first three are here and known at once. The others live on servers that must be asked first, so of those
``describe_model`` comes before ``make_embedder``.
"""

from typing import Literal

from infra.embedding.errors import ModelRefused
from infra.embedding.hashing import HASH_MODEL, HashEmbedder
from infra.embedding.minilm import MODELS as MINILM_MODELS
from infra.embedding.minilm import MiniLmEmbedder, Precision, available_cores
from infra.embedding.minilm_tokens import WordPieceCounter
from infra.embedding.minilm_weights import verified_weights
from infra.embedding.ollama_server import OllamaEmbeddings
from infra.embedding.openai_server import OpenAiEmbeddings
from infra.embedding.remote import ByteCounter, EmbeddingServer, RemoteEmbedder, known_model
from infra.settings import Settings
from streams.model import EmbeddingModel
from streams.ports import Embedder, TokenCounter

__all__ = ["ModelRefused", "Purpose", "describe_model", "make_embedder", "make_token_counter"]

Purpose = Literal["query", "bulk"]
_PRECISIONS: dict[str, Precision] = {"minilm": "fp32", "minilm-int8": "int8"}


def make_embedder(settings: Settings, name: str, *, purpose: Purpose, model: EmbeddingModel | None = None) -> Embedder:
    """An embedder whose model loads in the background; it also has ``async close()``.

    ``query``: one thread, for questions. ``bulk``: ``settings.embed_threads``, at lower priority, for passages.
    ``model`` is what the vectors must fit, from the generation that they belong to or from ``describe_model``. Models
    on servers need it, and refuse to embed (``ModelRefused``) when the server has another one under the same name.

    Raises:
        ModelRefused: no such model, a wrong weights file, or a stand-in in production.
    """
    kind, remote_name = _parse(settings, name)
    if kind == "hash":
        _refuse_stand_in(settings)
        return HashEmbedder()
    if precision := _PRECISIONS.get(kind):
        weights = verified_weights(settings.data_dir / "cache")
        if purpose == "query":
            return MiniLmEmbedder(weights, precision)
        threads = settings.embed_threads or available_cores()
        return MiniLmEmbedder(weights, precision, threads=threads, background=True)
    if model is None:
        raise ModelRefused(f"{name} lives on a server: pass the model that describe_model() returned")
    return RemoteEmbedder(
        _server(settings, kind, remote_name),
        model,
        known_model(remote_name),
        breaker_pause_s=settings.breaker_pause_s,
    )


async def describe_model(settings: Settings, name: str) -> EmbeddingModel:
    """What an embedding model is, without loading it; one that lives on a server is asked for.

    Raises:
        ModelRefused: no such model, a stand-in in production, or a model that does not embed.
        Unavailable: the server does not answer, or has not got the model (the message says how to pull it).
    """
    kind, remote_name = _parse(settings, name)
    if kind == "hash":
        _refuse_stand_in(settings)
        return HASH_MODEL
    if precision := _PRECISIONS.get(kind):
        return MINILM_MODELS[precision]
    server = _server(settings, kind, remote_name)
    try:
        return await server.describe()
    finally:
        await server.close()


def make_token_counter(settings: Settings, name: str) -> TokenCounter:
    """A counter of the model's tokens: exact where its vocabulary is known, else an estimate (``ByteCounter``)."""
    kind, remote_name = _parse(settings, name)
    if kind in ("ollama", "openai") and not known_model(remote_name).wordpiece:
        return ByteCounter()
    return WordPieceCounter()


def _parse(settings: Settings, name: str) -> tuple[str, str]:
    """``ollama:nomic-embed-text:v1.5`` is (``ollama``, ``nomic-embed-text:v1.5``); without a model, the settings'."""
    kind, _, remote_name = name.partition(":")
    if kind == "ollama":
        return kind, remote_name or settings.ollama_embed_model
    if kind == "openai":
        return kind, remote_name or settings.openai_embed_model
    if name != "hash" and name not in _PRECISIONS:
        raise ModelRefused(f"no embedding model '{name}'; there are {', '.join(_PRECISIONS)}, hash, ollama and openai")
    return name, ""


def _server(settings: Settings, kind: str, model: str) -> EmbeddingServer:
    if kind == "ollama":
        url = settings.ollama_embed_url or settings.ollama_url
        return OllamaEmbeddings(url, model, keep_alive=settings.ollama_keep_alive)
    return OpenAiEmbeddings(settings, model)


def _refuse_stand_in(settings: Settings) -> None:
    if settings.mode == "production":
        raise ModelRefused(
            "the hash embedder understands nothing; production needs LEAT_EMBEDDER=minilm, ollama, openai"
        )
