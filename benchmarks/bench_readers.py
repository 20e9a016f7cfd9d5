"""What readers of streams cost: memory and Redis connections of idle ones, and what they do to the active.

    python -m benchmarks.bench_readers [--idle 1000] [--active 12]

The model is a stub whose pace is known. Idle readers watch answers that say nothing for a while.
"""

import argparse
import asyncio
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import httpx
import psutil

from benchmarks.running import Running, leat, percentile
from tests.pipeline import eventually
from tests.processes import events
from tests.stub_ollama import Faults, StubOllama

QUERY = "How long does the walrus archive keep its records?"
ANSWERS = 4
"""Silent answers that the idle readers share."""
SILENCE_S = 50.0


async def gaps_ms(client: httpx.AsyncClient, model: StubOllama, count: int) -> list[float]:
    """Milliseconds between two events, of so many answers at once at 20 tokens a second each."""
    model.answer, model.faults = [f"w{number} " for number in range(59)] + ["[1]."], Faults(pause_s=0.05)

    async def one(number: int) -> list[float]:
        body = {"query": f"{QUERY} ({time.monotonic_ns()}-{number})"}
        async with client.stream("POST", "/api/v1/query/stream", json=body) as response:
            at = [time.perf_counter() async for event in events(response) if event.name == "token"]
        return [(later - earlier) * 1000 for earlier, later in pairwise(at)]

    return [gap for gaps in await asyncio.gather(*(one(number) for number in range(count))) for gap in gaps]


async def measure(running: Running, model: StubOllama, arguments: argparse.Namespace) -> None:
    api = psutil.Process(running.info["pids"]["api"])
    redis_port = int(running.info["redis_url"].rsplit(":", 1)[1].partition("/")[0])
    headers = {"Authorization": f"Bearer {running.info['token']}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=running.info["api_url"], headers=headers, timeout=120, limits=limits, trust_env=False
    ) as client:
        await gaps_ms(client, model, 4)
        alone = await gaps_ms(client, model, arguments.active)
        model.faults = Faults(pause_s=SILENCE_S)
        urls = [
            (await client.post("/api/v1/queries", json={"query": f"{QUERY} [{number}]"})).json()["stream_url"]
            for number in range(ANSWERS)
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--active", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-bench-docs-") as folder:
        docs = Path(folder)
        (docs / "walrus.md").write_text("The walrus archive keeps its records for nine years.")
        asyncio.run(_with_a_model(docs, arguments))


async def _with_a_model(docs: Path, arguments: argparse.Namespace) -> None:
    async with StubOllama() as model:
        given = {
            "LEAT_GENERATOR": "ollama", "LEAT_OLLAMA_URL": model.url, "LEAT_OLLAMA_MODEL": "writer",
            "LEAT_FIRST_TOKEN_TIMEOUT_S": str(SILENCE_S + 5), "LEAT_MAX_STREAMS": str(arguments.idle + 500),
        }  # fmt: skip
        site = leat(docs, embedder="hash", **given)
        running = await asyncio.to_thread(site.__enter__)
        try:
            await measure(running, model, arguments)
        finally:
            await asyncio.to_thread(site.__exit__, None, None, None)


if __name__ == "__main__":
    main()
