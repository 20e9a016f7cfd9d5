"""Answers as they stream: the first token, resuming, stopping, and 50 of them when their worker is killed.

    python -m benchmarks.bench_answer_streams [--answers 50] [--first-tokens 100]

The model is a stub with Ollama's API whose pace is known, so what is measured is Leat's own share.
"""

import argparse
import asyncio
import os
import signal
import statistics
import time

import httpx

from benchmarks.running import Running, a_question, leat_with_a_model, percentile
from tests.processes import Event, events
from tests.stub_ollama import Faults, StubOllama


async def first_tokens(client: httpx.AsyncClient, model: StubOllama, count: int) -> list[float]:
    """Milliseconds from asking to the first token, less the time that the model took for its own."""
    model.answer, model.faults = ["nine ", "years ", "[1]."], Faults()
    took = []
    for _ in range(count):
        started = time.perf_counter()
        async with client.stream("POST", "/api/v1/query/stream", json={"query": a_question()}) as response:
            async for event in events(response):
                if event.name == "token":
                    took.append((time.perf_counter() - started) * 1000)
                    break
                if event.name in ("done", "failed"):
                    raise SystemExit(f"no token: {event}")
    return took


async def resumed(client: httpx.AsyncClient, model: StubOllama) -> list[float]:
    """Milliseconds from coming back with ``Last-Event-ID`` until the last event, for every cut of one answer."""
    model.answer, model.faults = [f"w{number} " for number in range(99)] + ["[1]."], Faults()
    accepted = await client.post("/api/v1/queries", json={"query": a_question()})
    url = accepted.json()["stream_url"]
    whole = await _read(client, url)
    took = []
    for event in whole[:-1]:
        started = time.perf_counter()
        async with client.stream("GET", url, headers={"Last-Event-ID": event.id}) as response:
            async for _ in events(response):
                pass
        took.append((time.perf_counter() - started) * 1000)
    return took


async def stopped(client: httpx.AsyncClient, model: StubOllama, count: int) -> list[float]:
    """Milliseconds from ``DELETE`` until the model is free."""
    model.answer, model.faults = ["more "], Faults(endless=True, pause_s=0.02)
    took = []
    for _ in range(count):
        said = model.tokens_sent
        accepted = await client.post("/api/v1/queries", json={"query": a_question()})
        while model.tokens_sent < said + 10:  # noqa: ASYNC110 - a stub has no event for this
            await asyncio.sleep(0.01)
        started = time.perf_counter()
        await client.delete(f"/api/v1/queries/{accepted.json()['query_id']}")
        while model.open_connections:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        took.append((time.perf_counter() - started) * 1000)
    return took


async def killed(client: httpx.AsyncClient, model: StubOllama, running: Running, count: int) -> None:
    model.answer = [f"w{number} " for number in range(99)] + ["[1]."]
    model.faults = Faults(pause_s=0.02)
    accepted = await asyncio.gather(
        *(client.post("/api/v1/queries", json={"query": a_question()}) for _ in range(count))
    )
    reading = [asyncio.create_task(_read(client, one.json()["stream_url"])) for one in accepted]
    await asyncio.sleep(1.2)
    started = time.monotonic()
    os.kill(running.info["pids"]["answerer"], signal.SIGKILL)
    answers = await asyncio.gather(*reading)
    took_s = time.monotonic() - started
    whole = sum(_is_whole(found) for found in answers)
    restarted = sum(any(event.name == "restart" for event in found) for found in answers)
    resynced = sum(found[-1].name == "resync" for found in answers)
    doubled = sum(len({event.id for event in found}) < len(found) for found in answers)
    failed = [event.data for found in answers for event in found if event.name == "failed"]
    print(
        f"worker killed during {count} answers: {whole} complete ({resynced} of them by resync), {restarted} restarted,"
        f" {doubled} with a doubled event, {len(failed)} failed; all there {took_s:.1f} s after the kill"
    )
    for found in answers:
        if not _is_whole(found):
            print(f"  not complete: {_summary(found)}")


async def _read(client: httpx.AsyncClient, url: str) -> list[Event]:
    async with client.stream("GET", url) as response:
        return [event async for event in events(response) if event.name != ":"]


def _summary(found: list[Event]) -> str:
    """What an answer that is not complete came to."""
    end = found[-1]
    names = " ".join(name for name in dict.fromkeys(event.name for event in found))
    told = {key: end.data.get(key) for key in ("reason", "detail", "degraded_reason", "answered", "cached")}
    return f"{names}; {told}; {str(end.data.get('answer'))[:60]!r}"


def _is_whole(found: list[Event]) -> bool:
    text = ""
    for event in found:
        text = "" if event.name == "restart" else text + event.data["text"] if event.name == "token" else text
    end = found[-1]
    if end.name == "resync":
        return bool(end.data["answer"]) and not end.data["answer"]["degraded"]
    return end.name == "done" and text == end.data["answer"] and not end.data["degraded"]


async def measure(running: Running, model: StubOllama, arguments: argparse.Namespace) -> None:
    async with running.streams() as client:
        await first_tokens(client, model, 10)
        took = sorted(await first_tokens(client, model, arguments.first_tokens))
        print(
            f"first token beyond the model's own: p50 {statistics.median(took):.1f} ms,"
            f" p95 {took[int(len(took) * 0.95)]:.1f} ms over {len(took)} questions"
        )
        for label, times in (
            ("resumed at every cut, until its end", await resumed(client, model)),
            ("stop until the model is free", await stopped(client, model, 20)),
        ):
            print(f"{label}: p50 {percentile(times, 0.5):.0f} ms, p95 {percentile(times, 0.95):.0f} ms")
        await killed(client, model, running, arguments.answers)


async def run(arguments: argparse.Namespace) -> None:
    async with leat_with_a_model(embedder=arguments.embedder) as (running, model):
        await measure(running, model, arguments)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=50)
    parser.add_argument("--first-tokens", type=int, default=100)
    parser.add_argument("--embedder", default="hash")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
