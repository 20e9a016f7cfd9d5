"""Load the mixdocs corpus (1,286 real files, 24 MB) through Kafka; print rates until searchable and until embedded.

    python -m benchmarks.bench_load [--embedder hash|minilm|minilm-int8] [--edit] [--chunk-tokens N]
                                    [--keep-waiting SECONDS]

``--edit`` saves one file while the load runs and prints when it was searchable. ``--chunk-tokens 512`` cuts as other
engines do that are measured at 512/50; only with the hash embedder, which reads any length.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.running import Running, data_folder, leat
from infra.postgres.catalog import CACHE_S

_SEED = "seed.md"

_TIMES = """
select extract(epoch from min(manifests.accepted_at))::float8 as first,
       extract(epoch from max(searchable_at))::float8 as searchable,
       extract(epoch from max(embedded_at))::float8 as embedded, count(*)::int as documents,
       sum(manifests.size_bytes)::float8 as bytes, sum(passages)::int as passages, sum(unembedded)::int as unembedded
from manifests join documents using (document_key) where not manifests.deleted and document_id <> 'seed.md'
"""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--embedder", default="hash")
    options.add_argument("--edit", action="store_true")
    options.add_argument("--chunk-tokens", type=int)
    options.add_argument("--keep-waiting", type=float, default=1800)
    arguments = options.parse_args()
    with ExitStack() as stack:
        docs = Path(stack.enter_context(_folder()))
        with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
            archive.extractall(docs, filter="data")
        files = sum(1 for path in docs.rglob("*") if path.is_file())
        watched = docs if arguments.chunk_tokens is None else Path(stack.enter_context(_folder()))
        running = stack.enter_context(leat(watched, embedder=arguments.embedder))
        print(f"ready after {running.started_s:.1f} s; loading {files} files with the {arguments.embedder} embedder")
        if arguments.chunk_tokens is not None:
            files += 1
            cut_otherwise(running, arguments.chunk_tokens)
            command = [sys.executable, "-m", "cli.main", "ingest", str(docs), "--data", str(running.data)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        report(running, files, arguments)


def cut_otherwise(running: Running, chunk_tokens: int) -> None:
    """Change the size of passages before the load; no command does so, for models read no more than they read."""
    (running.docs / _SEED).write_text("# Seed\n\nIts arrival makes the collection.\n")
    while not running.status()["documents"]["searchable"]:
        time.sleep(0.2)
    running.sql("update generations set chunk_tokens = $1, max_tokens = $1", chunk_tokens)
    time.sleep(2 * CACHE_S)


def report(running: Running, files: int, arguments: argparse.Namespace) -> None:
    peak = Peak(running)
    if arguments.edit:
        edit(running)
    deadline = time.monotonic() + arguments.keep_waiting
    spent: dict[str, dict[str, float]] = {"embedded": {}}
    while time.monotonic() < deadline:
        status = running.status()
        documents = status["documents"]
        if documents["received"] >= files and documents["searchable"] + documents["failed"] >= files:
            spent.setdefault("searchable", running.processor_s())
            if status["passages_without_vector"] == 0:
                break
        time.sleep(1.0)
    spent["embedded"] = running.processor_s()
    row = running.sql(_TIMES)[0]
    searchable_s = row["searchable"] - row["first"]
    embedded_s = (row["embedded"] or row["first"]) - row["first"]
    megabytes, passages = row["bytes"] / 1e6, row["passages"]
    print(f"documents {row['documents']}  passages {passages}  without vector {row['unembedded']}  {megabytes:.1f} MB")
    for stage, took_s in (("searchable", searchable_s), ("embedded", embedded_s)):
        rate = f"{megabytes / took_s:6.2f} MB/s  {passages / took_s:8.0f} passages/s"
        print(f"until {stage:10} {took_s:8.1f} s  {rate}")
    for stage, seconds in spent.items():
        shares = "  ".join(f"{name} {share:.1f}" for name, share in sorted(seconds.items()))
        print(f"processor seconds until {stage:10} {sum(seconds.values()):6.1f}  {shares}")
    status = running.status()
    print(f"dead letters {status['dead_letters']}  failed {status['documents']['failed']}")
    print(f"peak memory of our processes, JVM not counted: {peak.stop():.0f} MB (proportional set size)")


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="leat-mixdocs-")


class Peak:
    """Samples memory every two seconds; more often would be a load of its own."""

    def __init__(self, running: Running) -> None:
        self._running, self._peak, self._going = running, 0.0, True
        self._last: dict[str, float] = {}
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while self._going:
            memory = self._running.memory_mb()
            total = sum(share for name, share in memory.items() if name != "kafka")
            if total > self._peak:
                self._peak, self._last = total, memory
            time.sleep(2.0)

    def stop(self) -> float:
        self._going = False
        print("  " + "  ".join(f"{name} {share:.0f}" for name, share in sorted(self._last.items())))
        return self._peak


def edit(running: Running) -> None:
    time.sleep(1.0)
    marker = f"Quokka marker {time.time_ns()}"
    (running.docs / "one-edit.md").write_text(f"# One edit\n\n{marker} while the load is running.\n")
    began = time.monotonic()
    while time.monotonic() - began < 120:
        found = running.api.get("/api/v1/search", params={"q": marker, "top_k": 1}).json().get("passages", [])
        if found and marker in found[0]["text"]:
            print(f"one edit during the load: searchable after {1000 * (time.monotonic() - began):.0f} ms")
            return
        time.sleep(0.02)
    print("one edit during the load: not searchable after 120 s")


if __name__ == "__main__":
    main()
