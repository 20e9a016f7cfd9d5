"""What readers of streams cost: memory and Redis connections of idle ones, and what they do to the active.

    python -m benchmarks.bench_readers [--idle 1000] [--active 12]

The model is a stub whose pace is known. Idle readers watch answers that say nothing for a while.
"""

import argparse
import asyncio
import time
from itertools import pairwise

import httpx
import psutil

from benchmarks.running import Running, a_question, leat_with_a_model, percentile
from tests.pipeline import eventually
from tests.processes import events
from tests.stub_ollama import Faults, StubOllama

ANSWERS = 4
"""Silent answers that the idle readers share."""
SILENCE_S = 50.0


async def gaps_ms(client: httpx.AsyncClient, model: StubOllama, count: int) -> list[float]:
    """Milliseconds between two events, of so many answers at once at 20 tokens a second each."""
    model.answer, model.faults = [f"w{number} " for number in range(59)] + ["[1]."], Faults(pause_s=0.05)

    async def one() -> list[float]:
        async with client.stream("POST", "/api/v1/query/stream", json={"query": a_question()}) as response:
            at = [time.perf_counter() async for event in events(response) if event.name == "token"]
        return [(later - earlier) * 1000 for earlier, later in pairwise(at)]

    return [gap for gaps in await asyncio.gather(*(one() for _ in range(count))) for gap in gaps]


async def measure(running: Running, model: StubOllama, arguments: argparse.Namespace) -> None:
    api = psutil.Process(running.info["pids"]["api"])
    redis_port = int(running.info["redis_url"].rsplit(":", 1)[1].partition("/")[0])
    async with running.streams() as client:
        await gaps_ms(client, model, 4)
        alone = await gaps_ms(client, model, arguments.active)
        model.faults = Faults(pause_s=SILENCE_S)
        urls = [
            (await client.post("/api/v1/queries", json={"query": a_question()})).json()["stream_url"]
            for _ in range(ANSWERS)
        ]
        before = api.memory_info().rss
        idle = [asyncio.create_task(_watch(client, urls[number % ANSWERS])) for number in range(arguments.idle)]
        await eventually(lambda: _open(client, arguments.idle), within_s=60)
        each_kb = (api.memory_info().rss - before) / 1024 / arguments.idle
        connections = [c for c in api.net_connections("tcp") if c.raddr and c.raddr.port == redis_port]
        beside = await gaps_ms(client, model, arguments.active)
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
    print(f"{arguments.idle} idle readers: {each_kb:.0f} KB each, {len(connections)} connections to Redis")
    for name, gaps in (("alone", alone), (f"beside {arguments.idle} idle readers", beside)):
        print(
            f"{arguments.active} active streams at 20 tokens/s, {name}: gap p50 {percentile(gaps, 0.5):.0f} ms,"
            f" p99 {percentile(gaps, 0.99):.0f} ms"
        )


async def _watch(client: httpx.AsyncClient, url: str) -> None:
    async with client.stream("GET", url) as response:
        async for _ in response.aiter_bytes():
            pass


async def _open(client: httpx.AsyncClient, count: int) -> bool:
    metrics = (await client.get("/metrics")).text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in metrics if line.startswith("leat_sse_open_streams")) >= count


async def run(arguments: argparse.Namespace) -> None:
    async with leat_with_a_model(
        LEAT_FIRST_TOKEN_TIMEOUT_S=str(SILENCE_S + 5), LEAT_MAX_STREAMS=str(arguments.idle + 500)
    ) as (running, model):
        await measure(running, model, arguments)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--active", type=int, default=12)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
