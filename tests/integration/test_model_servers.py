"""Leat on model servers: what it does while they serve, when they die, and once they are back.

On a stub wherever tests run, and on a real Ollama where there is one (see ``tests/real_ollama.py``); through Ollama's
own API and through the OpenAI-compatible one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api.app import WANTED, edge_of
from api.routes import build_api, wrapped
from consumers.app import PIPELINE, wired
from infra.resources import open_resources
from streams.topology import ANSWERER
from tests.pipeline import Pipeline, eventually, prepared
from tests.real_ollama import our_ollama
from tests.services import Services
from tests.stub_ollama import StubOllama

TOKEN = "a-token-for-tests"
DOCUMENTS = "/api/v1/collections/default/documents"
QUERY = {"query": "How long does the walrus archive keep its records?"}

pytestmark = pytest.mark.slow


@dataclass
class Site:
    kind: str
    pipeline: Pipeline
    client: httpx.AsyncClient
    stop_the_models: Callable[[], Awaitable[None]]
    start_the_models: Callable[[], Awaitable[None]]
    generator: str

    async def put(self, name: str, text: str) -> str:
        put = await self.client.put(f"{DOCUMENTS}/{name}", content=text, headers={"Content-Type": "text/markdown"})
        assert put.status_code == 202, put.text
        return str(put.json()["position"])

    async def ask(self, **body: Any) -> dict[str, Any]:
        answer = await self.client.post("/api/v1/query", json={**QUERY, **body})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def without_vector(self) -> int:
        return int((await self.client.get("/api/v1/status")).json()["passages_without_vector"])


@pytest_asyncio.fixture(
    scope="module", loop_scope="session", params=["stub-ollama", "stub-openai", "real-ollama", "real-openai"]
)
async def site(
    request: pytest.FixtureRequest, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    server, _, kind = request.param.partition("-")
    folder = tmp_path_factory.mktemp(request.param)
    async with AsyncExitStack() as stack:
        if server == "stub":
            stub = await stack.enter_async_context(StubOllama())
            port = int(stub.url.rpartition(":")[2])
            url, writer, embedder = stub.url, "writer", "embedder"
            stop, start = stub.stop, lambda: stub.start(port)
        else:
            ollama = await stack.enter_async_context(our_ollama(folder))
            url, writer, embedder = ollama.url, "tiny", "minilm"
            stop, start = ollama.stop, ollama.start
        options = {
            "embedder": kind, "generator": kind, "api_token": TOKEN, "answer_cache_ttl_s": 0,
            "ollama_url": url, "ollama_model": writer, "ollama_embed_model": embedder, "ollama_num_ctx": 2048,
            "openai_base_url": f"{url}/v1", "openai_model": writer, "openai_embed_model": embedder,
        }  # fmt: skip
        pipeline = await stack.enter_async_context(prepared(services, folder, **options))
        client = await stack.enter_async_context(_serving(pipeline))
        yield Site(request.param, pipeline, client, stop, start, f"{kind}:{writer}")


@asynccontextmanager
async def _serving(pipeline: Pipeline) -> AsyncIterator[httpx.AsyncClient]:
    roles = (*PIPELINE, ANSWERER.name)
    async with (
        wired(roles, pipeline.settings, asyncio.Event()) as wiring,
        open_resources(pipeline.settings, want=WANTED) as resources,
    ):
        edge = edge_of(pipeline.settings, resources, asyncio.Event())
        transport = httpx.ASGITransport(wrapped(build_api(edge), edge))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=120
        ) as client:
            yield client
        assert wiring.bug is None, wiring.bug


async def test_meaning_and_words_come_from_the_models(site: Site) -> None:
    position = await site.put("walrus.md", "# Retention\n\nThe walrus archive keeps its records for nine years.\n")
    state = await site.client.get(
        f"{DOCUMENTS}/walrus.md", params={"min_position": position, "until": "embedded", "wait_ms": 60_000}
    )
    assert state.status_code == 200, state.text
    assert await site.without_vector() == 0
    answer = await site.ask()
    assert (answer["degraded"], answer["generator"]) == (False, site.generator)
    assert answer["answer"]
    assert "nine years" in answer["sources"][0]["text"]


async def test_without_the_models_passages_still_come_and_changes_are_found_by_words(site: Site) -> None:
    await site.stop_the_models()
    try:
        answer = await site.ask()
        assert answer["degraded"] is True
        assert answer["degraded_reason"] in ("embedder-unavailable", "generator-unavailable")
        assert "nine years" in answer["answer"]
        assert "nine years" in answer["sources"][0]["text"]
        position = await site.put("ibex.md", "# Ibex\n\nThe ibex station opens in May.\n")
        body = {"query": "When does the ibex station open?", "min_position": position, "wait_ms": 60_000}
        found = await site.ask(**body)
        assert (found["degraded"], "May" in found["answer"]) == (True, True), found
        assert await site.without_vector() == 1
        letters = (await site.client.get("/api/v1/dead-letters")).json()
        assert letters["dead_letters"] == []
    finally:
        await site.start_the_models()


async def test_once_they_are_back_meaning_follows_and_they_write_again(site: Site) -> None:
    async def level() -> bool:
        return await site.without_vector() == 0

    # A circuit that was opened lets the next call through after half a minute.
    await eventually(level, within_s=150)

    async def written() -> bool:
        return (await site.ask())["generator"] == site.generator

    await eventually(written, within_s=150)
