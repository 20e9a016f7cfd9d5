"""The watcher on 10,000 files: the first look, a look that finds nothing new, and one change until it is published.

    python -m benchmarks.bench_watch [--files 10000] [--changes 50]

The folder and its notifications are real; the log and its memory are in this process, so this is the watcher alone.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.running import percentile
from infra.settings import Settings
from tests.component.test_watching import Watching, until
from tests.fakes.watching import InMemoryBlobs, InMemoryChangeLog, InMemoryWatchedFiles


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--changes", type=int, default=50)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-watch-") as folder:
        settings = Settings(_env_file=None)  # type: ignore[call-arg]
        log, memory, blobs = InMemoryChangeLog(), InMemoryWatchedFiles(), InMemoryBlobs()
        asyncio.run(measure(Watching(Path(folder), log, memory, blobs, [], settings), arguments))


async def measure(watching: Watching, arguments: argparse.Namespace) -> None:
    for number in range(arguments.files):
        watching.write(f"d{number % 100}/{number}.md", f"# Heading {number}\n\nText number {number}.\n")
    for label in ("first look", "nothing new"):
        began = time.perf_counter()
        await watching.look_once()
        print(f"{arguments.files} files, {label}: {time.perf_counter() - began:.2f} s")
    times = []
    async with watching.running():
        for number in range(arguments.changes):
            before = len(watching.log.records)
            wrote_ns = time.time_ns()
            watching.write(f"d5/{number * 100 + 5}.md", f"edit {number}")
            await until(lambda before=before: len(watching.log.records) > before)  # type: ignore[misc]
            times.append((watching.log.times_ns[before] - wrote_ns) / 1e6)
    print(f"change to published: p50 {percentile(times, 0.5):.1f} ms  p95 {percentile(times, 0.95):.1f} ms")


if __name__ == "__main__":
    main()
