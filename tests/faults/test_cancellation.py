"""Requests that are given up at any moment (C11): no reply reaches another caller, and no connection is lost."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import uvicorn
from redis.asyncio import Redis

from infra.index.client import RemoteIndex
from infra.index.edge import EdgeIndex
from infra.index.server import IndexServer
from infra.model_servers import openai_client
from infra.postgres.pool import open_pool
from infra.redis_guard import RedisGuard
from infra.settings import Settings
from streams.model import Point, PointPayload, SparseVector
from tests.faults.harness import eventually
from tests.services import Services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CANCELLED = 250
"""Per dependency: a thousand in all."""
AT_ONCE = 24
SEED = 11
POOL = 4

Call = Callable[[int], Awaitable[object]]
"""Asks for something that carries a number, and returns the number that came back."""


async def give_up_at_random(
    call: Call, *, cancelled: int = CANCELLED, longest_s: float = 0.004, at_once: int = AT_ONCE
) -> Counter[str]:
    """Call with one number after the other, until so many have been cancelled at whatever they were waiting for."""
    rng = random.Random(SEED)
    found: Counter[str] = Counter()
    numbers = iter(range(100 * cancelled))

    async def caller() -> None:
        while found["cancelled"] < cancelled:
            number = next(numbers)
            task = asyncio.ensure_future(call(number))
            await asyncio.wait({task}, timeout=rng.uniform(0, longest_s))
            task.cancel()
            try:
                reply = await task
            except asyncio.CancelledError:
                found["cancelled"] += 1
            else:
                found["own" if reply == number else "foreign"] += 1

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return found


async def all_answer(call: Call, at_once: int) -> None:
    """As many calls at once as there are connections get through, each with its own reply."""
    numbers = range(10**6, 10**6 + at_once)
    assert await asyncio.gather(*(call(number) for number in numbers)) == list(numbers)


async def test_postgres(services: Services) -> None:
    dsn = await services.new_database()
    async with await open_pool(dsn, POOL, application="cancelled") as pool, await open_pool(dsn, 1) as observer:

        async def ask(number: int) -> object:
            return await pool.fetchval("select $1::bigint from pg_sleep(0.001)", number)

        found = await give_up_at_random(ask)
        assert found["cancelled"] >= CANCELLED
        assert found["foreign"] == 0
        await all_answer(ask, POOL)

        async def quiet() -> bool:
            rows = await observer.fetch("select state from pg_stat_activity where application_name = 'cancelled'")
            return len(rows) <= POOL and all(row["state"] == "idle" for row in rows)

        await eventually(quiet, what="idle pool of full size")


async def test_redis(services: Services) -> None:
    guard = RedisGuard()
    async with Redis.from_url(services.redis_url, max_connections=AT_ONCE) as redis:

        async def ask(number: int) -> object:
            async with guard.command(), redis.pipeline(transaction=False) as pipe:
                pipe.ping()
                pipe.echo(str(number))
                return int((await pipe.execute())[1])

        found = await give_up_at_random(ask)
        assert found["cancelled"] >= CANCELLED
        assert found["foreign"] == 0
        await all_answer(ask, AT_ONCE)


async def test_index_socket(tmp_path: Path) -> None:
    edge = EdgeIndex(tmp_path / "index")
    server = IndexServer(edge, Path(f"/tmp/leat-{uuid4().hex[:8]}/index.sock"))
    await server.start()
    client = RemoteIndex(server._socket)
    ids = [UUID(int=number + 1) for number in range(AT_ONCE)]
    try:
        await client.ensure_space("space", 4)
        await client.upsert("space", [a_point(point_id, generation) for generation, point_id in enumerate(ids)])

        async def ask(number: int) -> object:
            [(point_id, _)] = await client.scroll("space", number % AT_ONCE, after=None, limit=10)
            return number if point_id == ids[number % AT_ONCE] else point_id

        found = await give_up_at_random(ask)
        assert found["cancelled"] >= CANCELLED
        assert found["foreign"] == 0
        await all_answer(ask, AT_ONCE)
        assert client._connection is not None
        assert not client._connection._waiting
    finally:
        await client.close()
        await server.stop()
        await edge.close()
        server._socket.parent.rmdir()


def a_point(point_id: UUID, generation: int) -> Point:
    payload = PointPayload("default", generation, f"{generation}.md", level_rank=0, groups=())
    return Point(point_id, payload, SparseVector((1,), (1.0,)))


async def test_http() -> None:
    """The client of the model servers."""
    async with echo_server() as url:
        http = openai_client(Settings(openai_base_url=url), timeout=httpx.Timeout(30))

        async def ask(number: int) -> object:
            return int((await http.get(f"/{number}")).text)

        found = await give_up_at_random(ask, longest_s=0.02)
        assert found["cancelled"] >= CANCELLED
        assert found["foreign"] == 0
        await all_answer(ask, AT_ONCE)
        await http.aclose()


async def test_a_client_that_keeps_the_connection_of_a_cancelled_call_hands_out_foreign_replies() -> None:
    """The teeth of this file: what it counts is what happens without care."""
    async with echo_lines() as (reader, writer):

        async def ask(number: int) -> object:
            writer.write(f"{number}\n".encode())
            return int(await reader.readline())

        given_up = asyncio.ensure_future(ask(1))
        await asyncio.sleep(0)  # It has asked, and waits for its reply.
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert await ask(2) == 1


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """HTTP with kept connections, whose bodies are their paths."""

    async def app(scope, receive, send) -> None:
        body = scope["path"].removeprefix("/").encode()
        await asyncio.sleep(0.001)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await eventually(lambda: server.started, what="echo server")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@asynccontextmanager
async def echo_lines() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose other end repeats every line, a little later."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                await asyncio.sleep(0.001)
                writer.write(line)
        writer.close()

    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        yield reader, writer
        writer.close()
        await writer.wait_closed()
