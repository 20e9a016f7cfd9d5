"""A real Ollama for tests: the one at ``LEAT_TEST_OLLAMA_URL``, else one that is started with the ``ollama`` that is
installed or in the tools folder (where CI builds it), else none.

Two models are made in it, without a model hub: ``minilm``, the weights that Leat itself embeds with, and ``tiny``,
random weights that stream word salad.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.embedding.minilm_weights import model_folder
from infra.local.ports import free_ports
from infra.local.process import Child
from tests.services import tools_dir
from tests.tiny_llama import write_tiny_llama

TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
# On a machine that also runs everything else two threads wait for each other most of the time.
ONE_THREAD = {"num_thread": 1}
READY_WITHIN_S = 120.0


class RealOllama:
    """A server of our own, at an address that stays over restarts, with models that stay too."""

    def __init__(self, binary: Path, folder: Path) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._binary = binary
        self._folder = folder
        self._child: Child | None = None

    async def start(self) -> None:
        """Start, and return when it answers."""
        environment = {
            **os.environ,
            "HOME": str(self._folder),
            "OLLAMA_HOST": self.url.removeprefix("http://"),
            "OLLAMA_MODELS": str(self._folder / "models"),
        }
        log_file = self._folder / "ollama.log"
        self._child = await Child.spawn("ollama", [self._binary, "serve"], log_file=log_file, env=environment)
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(READY_WITHIN_S):
            while True:
                assert self._child.exit_code is None, f"Ollama ended: {log_file.read_text()[-2000:]}"
                try:
                    (await client.get(f"{self.url}/api/version")).raise_for_status()
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
                else:
                    return

    async def stop(self) -> None:
        """End it and the processes that run its models."""
        if self._child is not None:
            await self._child.stop(15)


def find_ollama() -> Path | None:
    """A program that is installed, else the one that CI builds."""
    if found := shutil.which("ollama"):
        return Path(found)
    built = tools_dir() / "ollama" / "ollama"
    return built if built.is_file() else None


@asynccontextmanager
async def real_ollama(folder: Path) -> AsyncIterator[str]:
    """The URL of a server that has both models; skips the test where there is none."""
    if url := os.environ.get("LEAT_TEST_OLLAMA_URL"):
        await create_models(url, folder)
        yield url
        return
    async with our_ollama(folder) as server:
        yield server.url


@asynccontextmanager
async def our_ollama(folder: Path) -> AsyncIterator[RealOllama]:
    """A server that a test may stop and start; skips the test where there is no program to start."""
    binary = find_ollama()
    if binary is None:
        pytest.skip("no Ollama: set LEAT_TEST_OLLAMA_URL, or put `ollama` on the path or into .leat/tools/ollama/")
    server = RealOllama(binary, folder)
    try:
        await server.start()
        await create_models(server.url, folder)
        yield server
    finally:
        await server.stop()


async def create_models(url: str, folder: Path) -> None:
    tiny = folder / "tiny"
    await asyncio.to_thread(write_tiny_llama, tiny)
    async with httpx.AsyncClient(base_url=url, timeout=240, trust_env=False) as client:
        await _create(client, {"model": "minilm", "parameters": ONE_THREAD}, model_folder())
        stop = {**ONE_THREAD, "stop": ["<|im_end|>"]}
        await _create(client, {"model": "tiny", "template": TEMPLATE, "parameters": stop}, tiny)


async def _create(client: httpx.AsyncClient, body: dict[str, Any], folder: Path) -> None:
    """Through the API, since ``ollama create`` forgets the folders of files (``1_Pooling/config.json``)."""
    files = {}
    for name, data in _model_files(folder):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if (await client.head(f"/api/blobs/{digest}")).is_error:
            (await client.post(f"/api/blobs/{digest}", content=data)).raise_for_status()
        files[name] = digest
    response = await client.post("/api/create", json={**body, "files": files, "stream": False})
    response.raise_for_status()


def _model_files(folder: Path) -> list[tuple[str, bytes]]:
    paths = (each for each in folder.rglob("*") if each.name.endswith((".safetensors", ".json", "vocab.txt")))
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(paths)]
