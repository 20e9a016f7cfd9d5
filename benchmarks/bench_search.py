"""Search and delete through the API, access filter and hydration on, at about 14,000 passages.

python -m benchmarks.bench_search [--embedder hash|minilm] [--files 300] [--searches 400] [--deletions 40]
"""

import argparse
import random
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks.bench_stream import wait_until_settled
from benchmarks.running import Running, data_folder, leat, percentile

_WORDS = "select text from passages order by point_id limit 2000"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--embedder", default="hash")
    options.add_argument("--files", type=int, default=300)
    options.add_argument("--searches", type=int, default=400)
    options.add_argument("--deletions", type=int, default=40)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="leat-search-") as folder:
        docs = Path(folder) / "docs"
        unpack(docs, arguments.files)
        with leat(docs, embedder=arguments.embedder) as running:
            wait_until_settled(running, arguments.files)
            print(f"{running.status()['passages']} passages, {arguments.embedder} embedder")
            search(running, arguments.searches)
            delete(running, arguments.deletions)


def unpack(docs: Path, count: int) -> None:
    """The first files of the corpus in a fixed random order."""
    everything = docs.with_name("all")
    with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
        archive.extractall(everything, filter="data")
    files = sorted(path for path in everything.rglob("*") if path.is_file())
    for path in random.Random(7).sample(files, count):
        target = docs / path.relative_to(everything)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    shutil.rmtree(everything)


def search(running: Running, count: int) -> None:
    texts = [row["text"].split() for row in running.sql(_WORDS)]
    texts = [words for words in texts if len(words) > 8]
    chosen = random.Random(11)
    round_trips, inside = [], []
    with running.api as api:
        for number in range(count + 20):
            words = chosen.choice(texts)
            at = chosen.randrange(len(words) - 6)
            began = time.perf_counter()
            body = {"query": " ".join(words[at : at + 6])[:900], "top_k": 5}
            answer = api.post("/api/v1/search", json=body).raise_for_status()
            if number >= 20:  # the first ones warm caches up
                round_trips.append(1000 * (time.perf_counter() - began))
                inside.append(answer.json()["took_ms"])
    for label, times in (("round trip, client included", round_trips), ("took_ms of the API", inside)):
        print(f"search, {label:28} p50 {percentile(times, 0.5):6.1f} ms  p95 {percentile(times, 0.95):6.1f} ms")


def delete(running: Running, count: int) -> None:
    """From the moment that a deletion is accepted until a search for the document's own words does not show it."""
    times = []
    with running.api as api:
        for number in range(count):
            marker = f"xylophone{number}quartz{number * 7919}"
            path = f"/api/v1/collections/default/documents/deleted-{number}.md"
            put = api.put(path, content=f"# Note\n\nThe {marker} is here.\n", headers={"Content-Type": "text/markdown"})
            position = put.raise_for_status().json()["position"]
            body = {"query": marker, "min_position": position, "wait_ms": 20_000}
            assert shows(api.post("/api/v1/search", json=body).json(), marker)
            api.delete(path).raise_for_status()
            began = time.perf_counter()
            while shows(api.post("/api/v1/search", json={"query": marker}).json(), marker):
                pass
            times.append(1000 * (time.perf_counter() - began))
    print(f"deletion accepted to invisible: p50 {percentile(times, 0.5):.1f} ms  p95 {percentile(times, 0.95):.1f} ms")


def shows(answer: dict, marker: str) -> bool:
    return any(marker in passage["text"] for passage in answer["passages"])


if __name__ == "__main__":
    main()
