"""How soon questions and writes are refused while a dependency hangs, and how soon they work again.

    python -m benchmarks.bench_outages [--rounds 5]

Each dependency is stopped with SIGSTOP, which is the worst way to fail: connections stay open and nothing answers.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from benchmarks.bench_stream import wait_until_settled
from benchmarks.running import Running, leat, percentile

DOCUMENT = "/api/v1/collections/default/documents/outage.md"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-outages-") as folder:
        docs = Path(folder)
        (docs / "walrus.md").write_text("The walrus archive keeps its records for nine years.")
        with leat(docs) as running:
            wait_until_settled(running, 1)
            with running.api as api:
                outages(running, api, arguments.rounds)
            began = time.monotonic()
        print(f"end of everything after SIGINT: {time.monotonic() - began:.1f} s")


def outages(running: Running, api: httpx.Client, rounds: int) -> None:
    def search() -> httpx.Response:
        return api.post("/api/v1/search", json={"query": "walrus"})

    def write() -> httpx.Response:
        return api.put(DOCUMENT, content="# Late", headers={"Content-Type": "text/markdown"})

    for name, call in (("index", search), ("postgres", search), ("kafka", write)):
        took = [outage(running.info["pids"][name], call) for _ in range(rounds)]
        refused, healed = zip(*took, strict=True)
        print(
            f"{name} hangs: {call.__name__} refused after p50 {percentile(list(refused), 0.5):.2f} s,"
            f" at most {max(refused):.2f} s; works again after at most {max(healed):.2f} s"
        )


def outage(pid: int, call: Callable[[], httpx.Response]) -> tuple[float, float]:
    """Seconds until the refusal, and from the end of the outage until the call works."""
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        response = call()
        refused_s = time.perf_counter() - began
        if response.status_code != 503:
            raise SystemExit(f"not refused: {response.status_code} {response.text[:200]}")
    finally:
        os.kill(pid, signal.SIGCONT)
    began = time.perf_counter()
    while call().status_code >= 300:
        time.sleep(0.02)
    return refused_s, time.perf_counter() - began


if __name__ == "__main__":
    main()
