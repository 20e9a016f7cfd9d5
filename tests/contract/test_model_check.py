"""What people are told of model servers before they ask anything: the way out, in one line."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infra import settings as settings_module
from infra.local.doctor import examine
from infra.model_check import check_models
from infra.settings import Settings
from tests.stub_ollama import StubOllama


@pytest_asyncio.fixture
async def stub() -> AsyncIterator[StubOllama]:
    async with StubOllama() as server:
        yield server


def some_settings(stub: StubOllama, kind: str, tmp_path: Path, **changes: object) -> Settings:
    values: dict[str, object] = {
        "data_dir": tmp_path,
        "embedder": kind,
        "generator": kind,
        "ollama_url": stub.url,
        "ollama_model": "writer",
        "ollama_embed_model": "embedder",
        "openai_base_url": f"{stub.url}/v1",
        "openai_model": "writer",
        "openai_embed_model": "embedder",
    }
    return settings_module.load(**{**values, **changes})


async def problems(settings: Settings) -> dict[str, str]:
    return {model.role: model.problem for model in await check_models(settings)}


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_models_that_are_there_are_no_problem(kind: str, stub: StubOllama, tmp_path: Path) -> None:
    settings = some_settings(stub, kind, tmp_path)
    assert await problems(settings) == {"embedder": "", "generator": ""}
    assert {finding.name: finding.ok for finding in await examine(settings)}["generator"] is True


async def test_a_missing_model_is_named_with_the_command_that_brings_it(stub: StubOllama, tmp_path: Path) -> None:
    settings = some_settings(stub, "ollama", tmp_path, ollama_model="llama3.1", ollama_embed_model="nomic-embed-text")
    found = await problems(settings)
    assert found["generator"].endswith("run: ollama pull llama3.1")
    assert found["embedder"].endswith("run: ollama pull nomic-embed-text")
    finding = next(finding for finding in await examine(settings) if finding.name == "generator")
    assert (finding.ok, finding.cure) == (False, found["generator"])


async def test_an_endpoint_that_has_other_models_says_which(stub: StubOllama, tmp_path: Path) -> None:
    found = await problems(some_settings(stub, "openai", tmp_path, openai_model="gpt"))
    assert "set LEAT_OPENAI_MODEL; it has writer" in found["generator"]


async def test_a_model_that_can_not_do_its_part_is_a_problem(stub: StubOllama, tmp_path: Path) -> None:
    found = await problems(
        some_settings(stub, "ollama", tmp_path, ollama_model="embedder", ollama_embed_model="writer")
    )
    assert "set LEAT_OLLAMA_MODEL" in found["generator"]
    assert "set LEAT_OLLAMA_EMBED_MODEL" in found["embedder"]


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_server_that_is_gone_is_a_problem_of_both(kind: str, stub: StubOllama, tmp_path: Path) -> None:
    settings = some_settings(stub, kind, tmp_path)
    await stub.stop()
    found = await problems(settings)
    assert all("no connection" in problem for problem in found.values()), found


async def test_models_that_are_here_are_not_asked_for(stub: StubOllama, tmp_path: Path) -> None:
    settings = some_settings(stub, "ollama", tmp_path, embedder="minilm", generator="extractive")
    assert await problems(settings) == {}
    assert stub.requests == []
