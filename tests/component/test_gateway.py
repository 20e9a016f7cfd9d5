"""Answers through a real nginx, as Debian ships it and as we configure it: no token waits for the next one."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from infra.local.ports import free_ports
from schemas.answers import StreamEventName, TokenEvent
from tests.fakes.edge import TOKEN, FakeEdge, an_edge
from tests.processes import events

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
OURS = Path("infra/deploy/gateway/nginx.conf")
PLAIN = """
events {}
http { server { listen 8080; location / { proxy_pass http://127.0.0.1:8765; } } }
"""
TOKENS = 30
PATIENCE_S = 30.0

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here: install the package 'nginx-light'")


@pytest.fixture(params=["as it comes", "as we configure it"])
async def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, FakeEdge]]:
    """The address of an nginx in front of one API process on fakes."""
    fake = an_edge()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(fake.app, lifespan="off", log_config=None, timeout_graceful_shutdown=2))
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    [port] = free_ports(1)
    configuration = _configuration(request.param, tmp_path, port, listener.getsockname()[1])
    said = f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;"
    nginx = await asyncio.create_subprocess_exec(
        str(NGINX), "-p", str(tmp_path), "-c", str(configuration), "-g", said,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}", fake
    finally:
        nginx.terminate()
        await nginx.wait()
        server.should_exit = True
        await serving


def _configuration(which: str, folder: Path, port: int, upstream: int) -> Path:
    """With the addresses of this test."""
    text = OURS.read_text() if which == "as we configure it" else PLAIN
    for ours, here in (
        ("127.0.0.1:8765", f"127.0.0.1:{upstream}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("worker_processes auto", "worker_processes 1"),
    ):
        text = text.replace(ours, here)
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


async def connected(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                await client.get("/livez")
                return
            await asyncio.sleep(0.05)


async def test_every_token_is_passed_on_before_the_next_one_is_said(gateway: tuple[str, FakeEdge]) -> None:
    url, fake = gateway
    fake.questions.hold = asyncio.Event()  # the tokens are ours
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        await connected(client)
        async with client.stream("POST", "/api/v1/query/stream", json={"query": "x"}) as response:
            assert response.status_code == 200
            reading = events(response)
            assert (await anext(reading)).name == "meta"
            [question] = fake.questions.asked
            for number in range(TOKENS):
                said = [(StreamEventName.TOKEN.value, TokenEvent(text=f"{number} ").model_dump_json())]
                await fake.stream.append(question.question_id, 1, number + 2, said)
                async with asyncio.timeout(PATIENCE_S):  # a proxy that buffers waits for what comes only after this
                    event = await anext(reading)
                assert event.data == {"text": f"{number} "}
        fake.questions.hold.set()


async def test_a_stream_that_is_resumed_through_it_goes_on_where_it_was(gateway: tuple[str, FakeEdge]) -> None:
    url, _ = gateway
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as client:
        await connected(client)
        async with client.stream("POST", "/api/v1/query/stream", json={"query": "x"}) as response:
            whole = [event async for event in events(response)]
        resumed = {"Last-Event-ID": whole[1].id}
        async with client.stream("GET", whole[0].data["stream_url"], headers=resumed) as response:
            assert response.headers["cache-control"] == "no-store"
            assert [event async for event in events(response)] == whole[2:]
