"""A real Ollama for tests: the one at ``LEAT_TEST_OLLAMA_URL``, else the ``ollama`` on the path, else none.

Two models are made in it, without a model hub: ``minilm``, the weights that Leat itself embeds with, and ``tiny``,
random weights that stream word salad.
"""

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.embedding.minilm_weights import model_folder

TEMPLATE = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


@asynccontextmanager
async def real_ollama(folder: Path) -> AsyncIterator[str]:
    """The URL of a server that has both models; skips the test where there is none."""
    if url := os.environ.get("LEAT_TEST_OLLAMA_URL"):
        await _create_models(url, folder)
        yield url
        return
    binary = shutil.which("ollama")
    if binary is None:
        pytest.skip("no Ollama: set LEAT_TEST_OLLAMA_URL or put `ollama` on the path")
    port = _free_port()
    environment = {**os.environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(folder / "models")}
    process = _start(binary, environment, folder / "ollama.log")
    try:
        url = f"http://127.0.0.1:{port}"
        await _answers(url)
        await _create_models(url, folder)
        yield url
    finally:
        process.terminate()
        process.wait(15)


def _start(binary: str, environment: dict[str, str], log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("wb") as log:
        return subprocess.Popen([binary, "serve"], env=environment, stdout=log, stderr=log)


async def _create_models(url: str, folder: Path) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await _create(client, {"model": "minilm"}, model_folder())
        tool = Path(__file__).parents[2] / "shared" / "tools" / "ollama-local" / "tiny_llama.py"
        if tool.exists():
            await asyncio.to_thread(subprocess.run, [sys.executable, str(tool), str(folder / "tiny")], check=True)
            extra = {"template": TEMPLATE, "parameters": {"stop": ["<|im_end|>"], "num_thread": 1}}
            await _create(client, {"model": "tiny", **extra}, folder / "tiny")


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


async def _answers(url: str) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(30):
        while True:
            try:
                (await client.get(f"{url}/api/version")).raise_for_status()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            else:
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
