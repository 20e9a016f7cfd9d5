"""Three times more searches than can be served, then normal load again (check C10).

    python -m benchmarks.bench_overload [--files 300] [--seconds 20] [--times 3]

Capacity is what a closed loop of 16 gets. Then an open loop sends so many times that rate, whatever comes back, and
measures from the moment at which a request was due; health and administration are asked beside it. Then half the
capacity. The load generator runs on the same machine and takes its share of it.
"""

import argparse
import asyncio
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.running import Running, data_folder, leat, percentile

QUESTIONS = ("how to install", "configuration of the server", "what does the licence allow", "error handling", "tests")
SERVED_ALWAYS = ("/readyz", "/health", "/api/v1/status", "/api/v1/dead-letters", "/api/v1/collections")


@dataclass
class Seen:
    accepted_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    without_retry_after: int = 0

    def tell(self, when: str, seconds: float) -> None:
        accepted, refused = self.accepted_ms, self.refused_ms
        print(
            f"{when}: accepted {len(accepted) / seconds:.0f}/s, p50 {percentile(accepted, 0.5):.0f} ms, "
            f"p95 {percentile(accepted, 0.95):.0f} ms; refused {len(refused) / seconds:.0f}/s"
            + (f", p95 {percentile(refused, 0.95):.0f} ms" if refused else "")
            + f"; {dict(self.statuses)}, refusals without Retry-After {self.without_retry_after}"
        )


async def ask(client: httpx.AsyncClient, number: int, due_at: float, seen: Seen) -> None:
    try:
        response = await client.get("/api/v1/search", params={"q": QUESTIONS[number % len(QUESTIONS)]})
    except httpx.HTTPError as error:
        seen.statuses[type(error).__name__] += 1
        return
    took_ms = (time.monotonic() - due_at) * 1000
    seen.statuses[str(response.status_code)] += 1
    if response.is_success:
        seen.accepted_ms.append(took_ms)
    else:
        seen.refused_ms.append(took_ms)
        seen.without_retry_after += "retry-after" not in response.headers


async def closed_loop(client: httpx.AsyncClient, callers: int, seconds: float) -> float:
    """Searches a second."""
    seen, end = Seen(), time.monotonic() + seconds

    async def caller(number: int) -> None:
        while time.monotonic() < end:
            await ask(client, number, time.monotonic(), seen)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return len(seen.accepted_ms) / seconds


async def open_loop(client: httpx.AsyncClient, rate: float, seconds: float) -> Seen:
    seen, tasks = Seen(), set()
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due_at = began + number / rate
        if (wait_s := due_at - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        task = asyncio.create_task(ask(client, number, due_at, seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return seen


async def always(client: httpx.AsyncClient, stop: asyncio.Event) -> Counter[str]:
    """Health and administration, four times a second."""
    found: Counter[str] = Counter()
    while not stop.is_set():
        for path in SERVED_ALWAYS:
            response = await client.get(path)
            found["served" if response.status_code == 200 else f"{path} {response.status_code}"] += 1
        await asyncio.sleep(0.25)
    return found


async def measure(running: Running, seconds: float, times: float) -> None:
    headers = {"Authorization": f"Bearer {running.info['token']}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with (
        httpx.AsyncClient(base_url=running.info["api_url"], headers=headers, timeout=30, limits=limits) as client,
        httpx.AsyncClient(base_url=running.info["api_url"], headers=headers, timeout=30) as other,
    ):
        await closed_loop(client, 4, 2.0)
        capacity = await closed_loop(client, 16, 5.0)
        before_mb = running.memory_mb()["api"]
        print(f"capacity: {capacity:.0f} searches/s in a closed loop of 16; the API takes {before_mb:.0f} MB")
        stop = asyncio.Event()
        watching = asyncio.create_task(always(other, stop))
        seen = await open_loop(client, times * capacity, seconds)
        stop.set()
        seen.tell(f"{times:g} times capacity", seconds)
        print(f"  goodput {len(seen.accepted_ms) / seconds / capacity:.0%} of capacity")
        print(f"  health and administration meanwhile: {dict(await watching)}")
        print(f"  memory of the API {running.memory_mb()['api'] / before_mb - 1:+.0%}")
        await open_loop(client, capacity / 2, 5.0)
        (await open_loop(client, capacity / 2, 5.0)).tell("half the capacity, 5 s later", 5.0)


def wait_until_loaded(running: Running) -> None:
    """Until nothing is on its way and nothing lacks its vector, three looks in a row."""
    quiet = 0
    while quiet < 3:
        status = running.status()
        documents = status["documents"]
        settled = 0 < documents["received"] <= documents["searchable"] + documents["failed"]
        quiet = quiet + 1 if settled and not status["passages_without_vector"] else 0
        time.sleep(0.5)
    print(f"{documents['searchable']} documents, {status['passages']} passages")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=300)
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--times", type=float, default=3)
    options.add_argument("--embedder", default="hash")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-overload-") as folder:
        docs = Path(folder)
        with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
            members = [member for member in archive.getmembers() if member.isfile()][: arguments.files]
            archive.extractall(docs, members=members, filter="data")
        with leat(docs, embedder=arguments.embedder) as running:
            wait_until_loaded(running)
            asyncio.run(measure(running, arguments.seconds, arguments.times))


if __name__ == "__main__":
    main()
