"""One suite for every embedder: embedded, stand-in, and on servers (stubs here, see `test_real_ollama.py`)."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from infra import settings as settings_module
from infra.embedding import describe_model, make_embedder
from infra.embedding.errors import ModelRefused
from infra.model_servers import ModelMissing
from infra.settings import Settings
from streams.errors import PermanentError, TransientError, Unavailable
from streams.ports import Embedder
from tests.stub_ollama import Faults, Model, StubOllama

TEXTS = [
    "Kafka keeps records in topics.",
    "Tài liệu thay đổi liên tục.",
    "short",
    "a longer text " * 60,
    "",
    "\n",
    "🚀",
]
PURPOSES = ("query", "bulk")


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[StubOllama]:
    async with StubOllama() as server:
        yield server


@pytest.fixture
def settings(stub: StubOllama, tmp_path: Path) -> Settings:
    return settings_module.load(
        data_dir=tmp_path,
        ollama_url=stub.url,
        ollama_embed_model="embedder",
        openai_base_url=f"{stub.url}/v1",
        openai_embed_model="embedder",
        embed_threads=1,
    )


async def an_embedder(settings: Settings, name: str, purpose: str = "bulk") -> Embedder:
    model = await describe_model(settings, name)
    return make_embedder(settings, name, purpose=purpose, model=model)  # type: ignore[arg-type]


@pytest_asyncio.fixture(params=["minilm", "minilm-int8", "hash", "ollama", "openai"])
async def embedder(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Embedder]:
    made = await an_embedder(settings, request.param)
    yield made
    await made.close()  # type: ignore[attr-defined]


async def test_every_text_gets_a_vector_of_unit_length_in_its_place(embedder: Embedder) -> None:
    vectors = await embedder.embed_passages(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.model.dimensions)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    backwards = await embedder.embed_passages(TEXTS[::-1])
    cosines = (backwards[::-1] * vectors).sum(axis=1)
    assert cosines.min() > 0.95


async def test_a_text_has_the_same_vector_alone_and_in_a_batch(embedder: Embedder) -> None:
    together = await embedder.embed_passages(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        alone = (await embedder.embed_passages([text]))[0]
        if "int8" in embedder.model.name:  # activations are quantised by the range of the whole batch
            assert alone @ vector > 0.95
        else:
            assert np.abs(alone - vector).max() < 1e-4


async def test_the_same_call_gives_the_same_vectors(embedder: Embedder) -> None:
    assert np.allclose(await embedder.embed_passages(TEXTS), await embedder.embed_passages(TEXTS), atol=1e-6)
    assert np.allclose(await embedder.embed_query("why?"), await embedder.embed_query("why?"), atol=1e-6)


async def test_no_texts_make_an_empty_matrix(embedder: Embedder) -> None:
    assert (await embedder.embed_passages([])).shape == (0, embedder.model.dimensions)


async def test_texts_with_words_in_common_are_nearer_than_others(embedder: Embedder) -> None:
    texts = ["the broker keeps every record of the topic", "my grandmother bakes apple cake on Sunday"]
    near, far = await embedder.embed_passages(texts) @ await embedder.embed_query("which record does the broker keep")
    assert near > far + 0.1


async def test_a_text_longer_than_the_model_reads_still_gets_a_vector(embedder: Embedder) -> None:
    vectors = await embedder.embed_passages(["word " * 5000, "short"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("name", ["minilm", "hash"])
async def test_query_and_bulk_embedders_agree(name: str, settings: Settings) -> None:
    query, bulk = [make_embedder(settings, name, purpose=purpose) for purpose in PURPOSES]  # type: ignore[arg-type]
    for text in TEXTS:
        assert np.abs(await query.embed_query(text) - (await bulk.embed_passages([text]))[0]).max() < 1e-4


# On servers

REMOTE = pytest.mark.parametrize("name", ["ollama", "openai"])


@REMOTE
async def test_a_model_on_a_server_is_described_by_the_server(name: str, settings: Settings, stub: StubOllama) -> None:
    stub.models["embedder"].dimensions = 24
    model = await describe_model(settings, name)
    assert (model.name, model.dimensions, model.max_tokens) == (f"{name}:embedder", 24, 512 - 16)


@REMOTE
async def test_texts_get_the_prefixes_that_their_model_was_trained_with(
    name: str, settings: Settings, stub: StubOllama
) -> None:
    stub.models["nomic-embed-text"] = Model(("embedding",))
    embedder = await an_embedder(settings, f"{name}:nomic-embed-text")
    await embedder.embed_passages(["text"])
    assert stub.requests[-1][1]["input"] == ["search_document: text"]
    await embedder.embed_query("question")
    assert stub.requests[-1][1]["input"] == ["search_query: question"]


@REMOTE
async def test_decomposed_accents_are_sent_composed(name: str, settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, name)
    await embedder.embed_passages(["tie\u0302\u0301ng Vie\u0323\u0302t"])
    assert stub.requests[-1][1]["input"] == ["tiếng Việt"]


async def test_a_missing_model_is_an_outage_with_the_command_that_ends_it(settings: Settings) -> None:
    with pytest.raises(ModelMissing, match="ollama pull mxbai-embed-large"):
        await describe_model(settings, "ollama:mxbai-embed-large")


async def test_a_model_that_generates_is_refused_for_embedding(settings: Settings) -> None:
    with pytest.raises(ModelRefused, match="generates text"):
        await describe_model(settings, "ollama:writer")


async def test_another_model_under_the_same_name_is_refused(settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, "ollama")
    stub.models["embedder"].digest = "b" * 64
    with pytest.raises(ModelRefused, match="reindex"):
        await embedder.embed_passages(["text"])


@REMOTE
async def test_a_server_that_is_gone_is_unavailable(name: str, settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, name)
    await stub.stop()
    with pytest.raises(Unavailable):
        await embedder.embed_passages(["text"])


@REMOTE
@pytest.mark.parametrize(("status", "error"), [(503, Unavailable), (401, Unavailable), (500, TransientError)])
async def test_statuses_are_translated(
    name: str, status: int, error: type[Exception], settings: Settings, stub: StubOllama
) -> None:
    embedder = await an_embedder(settings, name)
    stub.faults.status = status
    with pytest.raises(error):
        await embedder.embed_passages(["text"])


@REMOTE
async def test_answers_that_are_not_vectors_are_not_believed(name: str, settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, name)
    for wrong in (lambda rows: rows[:1], lambda rows: [[0.0] * 16] * 2, lambda rows: [[1.0], [2.0, 3.0]], lambda _: []):
        await embedder.embed_passages(["one", "two"])
        stub.faults = Faults(vectors=wrong)
        with pytest.raises(TransientError):
            await embedder.embed_passages(["one", "two"])
        stub.faults = Faults()


async def test_five_failures_stop_the_asking(settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, "ollama")
    await embedder.embed_query("fine")
    stub.faults.status = 500
    for _ in range(5):
        with pytest.raises(TransientError):
            await embedder.embed_query("text")
    asked = len(stub.requests)
    with pytest.raises(Unavailable, match="5 calls in a row"):
        await embedder.embed_query("text")
    assert len(stub.requests) == asked


async def test_a_request_that_can_never_succeed_is_permanent(settings: Settings, stub: StubOllama) -> None:
    embedder = await an_embedder(settings, "ollama")
    stub.faults.status = 400
    with pytest.raises(PermanentError):
        await embedder.embed_passages(["text"])
