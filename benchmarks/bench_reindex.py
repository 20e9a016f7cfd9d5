"""Reindex the mixdocs corpus while questions are asked; switch, switch back, and kill every process in the middle.

    python -m benchmarks.bench_reindex [--embedder hash|minilm] [--rate 50] [--files 1286] [--only cached|new|killed]

Three reindexes: with the same settings (cached vectors), with passages of half the size (new vectors), and one during
which every process, dependencies included, is killed with SIGKILL, one after the other. `leat verify` follows.
"""

import argparse
import asyncio
import os
import signal
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bench_load import Peak
from benchmarks.running import Running, data_folder, leat, percentile
from infra.settings import load
from infra.verifying import verify

SERVICES = ("kafka_bootstrap_servers", "postgres_dsn", "redis_url")
QUESTIONS = ("how to install", "configuration of the server", "what does the licence allow", "error handling", "tests")
KILLED = ("pipeline", "index", "answerer", "api", "watcher", "redis", "postgres", "kafka")


@dataclass
class Asked:
    took_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    generations: set[int] = field(default_factory=set)


class Questions:
    """Asks at a steady rate, from a thread of its own, until stopped."""

    def __init__(self, running: Running, rate: float) -> None:
        self.asked = Asked()
        self._running, self._rate, self._going = running, rate, True
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), daemon=True)
        self._thread.start()

    def stop(self) -> Asked:
        self._going = False
        self._thread.join(30)
        return self.asked

    async def _ask(self) -> None:
        info = self._running.info
        headers = {"Authorization": f"Bearer {info['token']}"}
        async with httpx.AsyncClient(base_url=info["api_url"], headers=headers, timeout=20) as client:
            tasks, number = set(), 0
            began = time.monotonic()
            while self._going:
                task = asyncio.create_task(self._one(client, QUESTIONS[number % len(QUESTIONS)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
                await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, client: httpx.AsyncClient, question: str) -> None:
        began = time.perf_counter()
        try:
            response = await client.get("/api/v1/search", params={"q": question})
        except httpx.HTTPError as error:
            self.asked.failed.append(type(error).__name__)
            return
        if response.is_error:
            self.asked.failed.append(f"{response.status_code} {response.json().get('detail')}")
            return
        self.asked.took_ms.append((time.perf_counter() - began) * 1000)
        self.asked.generations.add(response.json()["generation"])


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--embedder", default="hash")
    options.add_argument("--rate", type=float, default=50)
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--only", choices=("cached", "new", "killed"))
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-mixdocs-") as folder:
        docs = Path(folder)
        with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
            members = [member for member in archive.getmembers() if member.isfile()][: arguments.files]
            archive.extractall(docs, members=members, filter="data")
        with leat(docs, embedder=arguments.embedder) as running:
            wait_until_loaded(running, len(members))
            idle = Questions(running, arguments.rate)
            time.sleep(5.0)
            tell("nothing else going on:", idle.stop(), arguments.rate)
            peak = Peak(running)
            if arguments.only in (None, "cached"):
                measure(running, "same settings, cached vectors", {}, arguments.rate)
            if arguments.only in (None, "new"):
                measure(running, "half the passage size, new vectors", {"chunk_tokens": 120}, arguments.rate)
            if arguments.only in (None, "killed"):
                measure(running, "every process killed in the middle", {"chunk_tokens": 100}, 0, kill=True)
            print(f"peak memory of our processes, JVM not counted: {peak.stop():.0f} MB")
            verified = asyncio.run(
                verify(load(**{name: running.info[name] for name in SERVICES}, data_dir=running.data))
            )
            print(f"verify: {verified.in_index} of {verified.in_log} documents, {len(verified.drift)} differences")


def wait_until_loaded(running: Running, files: int) -> None:
    while True:
        status = running.status()
        documents = status["documents"]
        settled = documents["received"] >= files and documents["searchable"] + documents["failed"] >= files
        if settled and not status["passages_without_vector"]:
            print(f"loaded: {documents['searchable']} documents, {status['passages']} passages")
            return
        time.sleep(0.5)


def measure(running: Running, name: str, body: dict[str, Any], rate: float, *, kill: bool = False) -> None:
    print(f"\n{name}")
    before = running.status()["embedded"]["passages"]
    questions = Questions(running, rate) if rate else None
    began = time.monotonic()
    job = running.api.post("/api/v1/collections/default/reindex", json=body).raise_for_status().json()
    killer = threading.Thread(target=kill_each, args=(running,)) if kill else None
    if killer:
        killer.start()
    job = wait_for_job(running, job["job_id"])
    took_s = time.monotonic() - began
    if killer:
        killer.join()
    if job["status"] != "COMPLETED":
        raise SystemExit(f"the job ended as {job['status']}: {job['error']}")
    counts = job["result"]["parity"]["counts"]
    print(
        f"  {took_s:.1f} s, {counts['candidate_documents']} documents, {counts['candidate_passages']} passages, "
        f"{running.status()['embedded']['passages'] - before} embedded anew, process deaths {job['retry_count']}, "
        f"documents missing {counts['behind']}, without vector {counts['passages_without_vector']}"
    )
    path = "/api/v1/collections/default/generations"
    number, previous = job["result"]["generation"], job["result"]["replaces"]
    there = switch(running, f"{path}/{number}/switch")
    back = switch(running, f"{path}/{previous}/switch")
    print(f"  {told('switch', there)}; {told('switch back', back)}")
    if questions:
        time.sleep(1.0)
        tell(" ", questions.stop(), rate)
    running.api.delete(f"{path}/{number}").raise_for_status()


def switch(running: Running, path: str) -> tuple[float, float, float]:
    """Milliseconds in the transaction, until the call returned, and until a question was answered from it."""
    began = time.perf_counter()
    done = running.api.post(path, json={}).raise_for_status().json()
    returned = time.perf_counter()
    with running.api as api:
        while True:
            answer = api.get("/api/v1/search", params={"q": QUESTIONS[0]})
            if answer.is_success and answer.json()["generation"] == done["serving"]:
                break
            time.sleep(0.005)
    return done["took_ms"], (returned - began) * 1000, (time.perf_counter() - began) * 1000


def told(what: str, times: tuple[float, float, float]) -> str:
    transaction, returned, seen = times
    return f"{what}: transaction {transaction:.0f} ms, call {returned:.0f} ms, answered from it after {seen:.0f} ms"


def tell(when: str, asked: Asked, rate: float) -> None:
    print(
        f"{when} asked {len(asked.took_ms)} at {rate:.0f}/s: failed {len(asked.failed)}, "
        f"p50 {percentile(asked.took_ms, 0.5):.1f} ms, p95 {percentile(asked.took_ms, 0.95):.1f} ms"
    )
    for error in sorted(set(asked.failed))[:3]:
        print(f"    {asked.failed.count(error)} x {error}")


def wait_for_job(running: Running, job_id: str) -> dict[str, Any]:
    while True:
        try:
            job = running.api.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
        except httpx.HTTPError:
            job = {"status": "unknown"}  # the API was killed; it comes back
        if job["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
            return job
        time.sleep(0.1)


def kill_each(running: Running) -> None:
    import json

    for name in KILLED:
        time.sleep(2.5)
        pid = json.loads((running.data / "run.json").read_text())["pids"].get(name)
        if pid:
            os.kill(pid, signal.SIGKILL)
            print(f"  killed {name}")


if __name__ == "__main__":
    main()
