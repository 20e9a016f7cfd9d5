"""Generators on model servers: what they stream when all is well, and what they say of every way to fail."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import pytest_asyncio

from infra import settings as settings_module
from infra.generation import make_generator
from infra.model_servers import ModelMissing
from infra.settings import Settings
from streams.errors import LeatError, PermanentError, TransientError, Unavailable
from streams.ports import TextGenerator
from tests.stub_ollama import Faults, StubOllama

MESSAGES = [{"role": "system", "content": "Answer from the passages."}, {"role": "user", "content": "What is kept?"}]
SENTENCE = "Kafka keeps the newest record [1]."


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[StubOllama]:
    async with StubOllama() as server:
        yield server


def some_settings(stub: StubOllama, kind: str, **changes: object) -> Settings:
    values: dict[str, object] = {
        "generator": kind,
        "ollama_url": stub.url,
        "ollama_model": "writer",
        "openai_base_url": f"{stub.url}/v1",
        "openai_model": "writer",
    }
    return settings_module.load(**{**values, **changes})


def a_generator(stub: StubOllama, kind: str, **changes: object) -> TextGenerator:
    generator = make_generator(some_settings(stub, kind, **changes))
    assert generator is not None
    return generator


async def read(generator: TextGenerator, *, max_tokens: int = 100) -> str:
    return "".join([piece async for piece in generator.stream(MESSAGES, max_tokens=max_tokens)])


@pytest_asyncio.fixture(params=["ollama", "openai"])
async def generator(request: pytest.FixtureRequest, stub: StubOllama) -> AsyncIterator[TextGenerator]:
    made = a_generator(stub, request.param)
    yield made
    await made.close()  # type: ignore[attr-defined]


async def test_an_answer_streams_piece_by_piece(generator: TextGenerator, stub: StubOllama) -> None:
    pieces = [piece async for piece in generator.stream(MESSAGES, max_tokens=100)]
    assert pieces == stub.answer
    assert "".join(pieces) == SENTENCE
    body = stub.requests[-1][1]
    assert body["messages"] == MESSAGES


async def test_the_limit_of_tokens_reaches_the_model(generator: TextGenerator) -> None:
    assert await read(generator, max_tokens=2) == "Kafka keeps "


async def test_closing_the_iterator_stops_the_generation(generator: TextGenerator, stub: StubOllama) -> None:
    stub.faults = Faults(endless=True, pause_s=0.01)
    async with aclosing(generator.stream(MESSAGES, max_tokens=10_000)) as pieces:  # type: ignore[type-var]
        await anext(pieces)
    await _until(lambda: stub.open_connections == 0)
    sent = stub.tokens_sent
    await asyncio.sleep(0.1)
    assert stub.tokens_sent == sent


async def test_cancelling_the_reader_stops_the_generation(generator: TextGenerator, stub: StubOllama) -> None:
    stub.faults = Faults(endless=True, pause_s=0.01)
    reader = asyncio.create_task(read(generator, max_tokens=10_000))
    await _until(lambda: stub.tokens_sent > 2)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await _until(lambda: stub.open_connections == 0)


@pytest.mark.parametrize(
    ("faults", "patience", "error"),
    [
        (Faults(hang_after=0), {"first_token_timeout_s": 1.5}, Unavailable),
        (Faults(hang_before_headers=True), {"first_token_timeout_s": 1.5}, Unavailable),
        (Faults(hang_after=3), {"token_timeout_s": 1.5}, TransientError),
        (Faults(endless=True, pause_s=0.1), {"answer_timeout_s": 3.0}, TransientError),
        (Faults(cut_after=3), {}, TransientError),
        (Faults(die_after=3), {}, TransientError),
        (Faults(garbage_after=3), {}, TransientError),
        (Faults(status=500), {}, TransientError),
        (Faults(status=503), {}, Unavailable),
        (Faults(status=400), {}, PermanentError),
    ],
    ids=["no token", "no headers", "stalls", "endless", "cut", "runner dies", "garbage", "500", "503", "400"],
)
@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_every_way_to_fail_ends_with_an_error_of_ours(
    kind: str, stub: StubOllama, faults: Faults, patience: dict[str, float], error: type[LeatError]
) -> None:
    """One time-out at a time is short; the others are a minute, which would come too late."""
    generator = a_generator(stub, kind, **{"first_token_timeout_s": 60.0, "token_timeout_s": 60.0, **patience})
    assert await read(generator) == SENTENCE
    stub.faults = faults
    async with asyncio.timeout(45):
        with pytest.raises(error):
            await read(generator, max_tokens=10_000)
    await _until(lambda: stub.open_connections == 0)
    stub.faults = Faults()
    assert await read(generator) == SENTENCE


async def test_a_server_that_is_gone_is_unavailable_and_comes_back(generator: TextGenerator, stub: StubOllama) -> None:
    port = int(stub.url.rpartition(":")[2])
    await stub.stop()
    with pytest.raises(Unavailable):
        await read(generator)
    await stub.start(port)
    assert await read(generator) == SENTENCE


async def test_five_failures_stop_the_asking(generator: TextGenerator, stub: StubOllama) -> None:
    stub.faults = Faults(cut_after=1)
    for _ in range(5):
        with pytest.raises(TransientError):
            await read(generator)
    asked = len(stub.requests)
    with pytest.raises(Unavailable, match="5 calls in a row"):
        await read(generator)
    assert len(stub.requests) == asked


@pytest.mark.parametrize(("kind", "cure"), [("ollama", "ollama pull llama3.1"), ("openai", "LEAT_OPENAI_MODEL")])
async def test_a_missing_model_is_an_outage_with_its_cure(kind: str, cure: str, stub: StubOllama) -> None:
    generator = a_generator(stub, kind, ollama_model="llama3.1", openai_model="llama3.1")
    with pytest.raises(ModelMissing, match=cure):
        await read(generator)


async def test_a_model_that_only_embeds_cannot_answer(stub: StubOllama) -> None:
    with pytest.raises(PermanentError, match="not-a-generator"):
        await read(a_generator(stub, "ollama", ollama_model="embedder"))


async def test_a_model_that_takes_longer_to_load_than_an_answer_may_is_there_for_the_next(stub: StubOllama) -> None:
    stub.faults.load_s = 3.0
    generator = a_generator(stub, "ollama", answer_timeout_s=1.5)
    with pytest.raises(Unavailable, match="still being loaded"):
        await read(generator)
    await _until(lambda: "writer" in stub.loaded)
    assert await read(generator) == SENTENCE
    assert stub.paths.count("/api/generate") == 1


async def test_loading_does_not_count_as_waiting_for_the_first_token(stub: StubOllama) -> None:
    stub.faults.load_s = 3.0
    assert await read(a_generator(stub, "ollama", first_token_timeout_s=1.5)) == SENTENCE


async def test_ollama_keeps_the_model_for_as_long_as_is_set(stub: StubOllama) -> None:
    await read(a_generator(stub, "ollama", ollama_keep_alive="2h"))
    assert {body["keep_alive"] for path, body in stub.requests if path in ("/api/generate", "/api/chat")} == {"2h"}


async def test_the_context_is_always_the_same_so_that_ollama_keeps_the_model(stub: StubOllama) -> None:
    generator = a_generator(stub, "ollama", ollama_num_ctx=4096)
    await read(generator, max_tokens=10)
    await read(generator, max_tokens=500)
    contexts = {body["options"]["num_ctx"] for path, body in stub.requests if "options" in body}
    assert contexts == {4096}


def test_extractive_needs_no_generator() -> None:
    assert make_generator(settings_module.load(generator="extractive")) is None


def test_openai_without_an_endpoint_says_what_to_set() -> None:
    with pytest.raises(Unavailable, match="LEAT_OPENAI_BASE_URL"):
        make_generator(settings_module.load(generator="openai"))


async def _until(condition, *, within_s: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.01)
