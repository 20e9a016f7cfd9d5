"""What only a real Ollama can show. Skipped where there is none (see ``tests/real_ollama.py``)."""

import asyncio
import json
import unicodedata
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from infra import settings as settings_module
from infra.embedding import ModelRefused, describe_model, make_embedder
from infra.generation import make_generator
from infra.model_servers import ModelMissing
from infra.settings import Settings
from streams.errors import PermanentError
from streams.ports import TextGenerator
from tests.golden.minilm_reference import GOLDEN
from tests.real_ollama import real_ollama

MESSAGES = [{"role": "user", "content": "What is kept when a topic is compacted?"}]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ollama_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with real_ollama(tmp_path_factory.mktemp("ollama")) as url:
        yield url


@pytest.fixture
def settings(ollama_url: str, tmp_path: Path) -> Settings:
    return settings_module.load(
        data_dir=tmp_path,
        ollama_url=ollama_url,
        ollama_model="tiny",
        ollama_num_ctx=2048,
        generator="ollama",
        openai_base_url=f"{ollama_url}/v1",
        openai_model="tiny",
        openai_embed_model="minilm",
    )


def a_generator(settings: Settings, kind: str) -> TextGenerator:
    generator = make_generator(settings.model_copy(update={"generator": kind}))
    assert generator is not None
    return generator


@pytest.mark.parametrize("name", ["ollama:minilm", "openai:minilm"])
async def test_its_vectors_equal_ours(name: str, settings: Settings) -> None:
    model = await describe_model(settings, name)
    assert model.dimensions == 384
    theirs = make_embedder(settings, name, purpose="bulk", model=model)
    texts = [row["text"] for row in json.loads(GOLDEN.read_text())]
    texts += [unicodedata.normalize("NFD", text) for text in texts]
    ours = await make_embedder(settings, "minilm", purpose="bulk").embed_passages(texts)
    cosines = (await theirs.embed_passages(texts) * ours).sum(axis=1)
    assert cosines.min() >= 0.999, cosines


async def test_a_text_longer_than_the_model_reads_is_cut_by_us(settings: Settings) -> None:
    model = await describe_model(settings, "ollama:minilm")
    embedder = make_embedder(settings, "ollama:minilm", purpose="bulk", model=model)
    vectors = await embedder.embed_passages(["a document about brokers " * 400, "short"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_it_streams_an_answer(kind: str, settings: Settings) -> None:
    generator = a_generator(settings, kind)
    pieces = [piece async for piece in generator.stream(MESSAGES, max_tokens=40)]
    assert len(pieces) > 5
    assert len("".join(pieces)) > 20


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_closing_the_iterator_frees_the_model_for_the_next(kind: str, settings: Settings) -> None:
    generator = a_generator(settings, kind)
    async with aclosing(generator.stream(MESSAGES, max_tokens=100_000)) as pieces:  # type: ignore[type-var]
        await anext(pieces)
    # It runs one answer at a time, and the first would go on for minutes.
    async with asyncio.timeout(60):
        assert [piece async for piece in generator.stream(MESSAGES, max_tokens=3)]


async def test_a_missing_model_names_the_command(settings: Settings) -> None:
    with pytest.raises(ModelMissing, match="ollama pull no-such-model"):
        await describe_model(settings, "ollama:no-such-model")


async def test_models_are_refused_for_what_they_cannot_do(settings: Settings) -> None:
    with pytest.raises(ModelRefused):
        await describe_model(settings, "ollama:tiny")
    generator = make_generator(settings.model_copy(update={"ollama_model": "minilm"}))
    assert generator is not None
    with pytest.raises(PermanentError):
        await anext(generator.stream(MESSAGES, max_tokens=3))
