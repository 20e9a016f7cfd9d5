"""The index process through its socket: writing, giving vectors, hybrid search under a filter, alone and under load.

    python -m benchmarks.bench_index [--points 14000] [--dimensions 384] [--json]

Points resemble passages: 110 distinct terms from a vocabulary with Zipf's frequencies, four access levels, a third of
the documents limited to a group. Nothing but the client and the index process runs.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import psutil

from infra.index import Index, make_index
from infra.settings import Settings
from streams.errors import Unavailable
from streams.model import FloatVector, IndexScope, Point, PointPayload, SparseVector

SPACE = "leat-bench"
NAMESPACE = UUID("0a6a2b3e-30a5-4b9b-9a3f-2f1d7c1f5f10")
VOCABULARY = 60_000
TERMS_PER_PASSAGE = 110
TERMS_PER_QUESTION = 9
SCOPE = IndexScope(tenant="default", generation_id=1, max_level_rank=2, groups=("staff",))
ADMINISTRATOR = IndexScope(tenant="default", generation_id=1, max_level_rank=3, groups=(), every_group=True)


class Corpus:
    """Made-up passages, the same ones for the same seed."""

    def __init__(self, points: int, dimensions: int) -> None:
        self._random = np.random.default_rng(7)
        self._frequencies = 1 / np.arange(1, VOCABULARY + 1)
        self._frequencies /= self._frequencies.sum()
        self.vectors = [self.vector(dimensions) for _ in range(points)]
        self.points = [self._point(number) for number in range(points)]

    def vector(self, dimensions: int) -> FloatVector:
        vector = self._random.normal(size=dimensions).astype(np.float32)
        return vector / np.float32(np.linalg.norm(vector))

    def question(self) -> SparseVector:
        terms = self._terms(TERMS_PER_QUESTION)
        return SparseVector(terms, [1.0] * len(terms))

    def _terms(self, count: int) -> list[int]:
        drawn = self._random.choice(VOCABULARY, size=count * 2, p=self._frequencies)
        return list(dict.fromkeys(int(term) * 71_993 % 2**32 for term in drawn))[:count]

    def _point(self, number: int) -> Point:
        terms = self._terms(TERMS_PER_PASSAGE)
        return Point(
            point_id=uuid5(NAMESPACE, str(number)),
            payload=PointPayload(
                tenant="default",
                generation_id=1,
                document_id=f"folder/document-{number // 11}.md",
                level_rank=number % 4,
                groups=("staff",) if number % 3 == 0 else (),
                metadata={"language": "en", "tags": ["a", "b"]},
            ),
            sparse=SparseVector(terms, [1.2] * len(terms)),
        )


async def measure(index: Index, process: psutil.Process, points: int, dimensions: int) -> dict[str, float]:
    corpus = Corpus(points, dimensions)
    rss_empty = process.memory_info().rss
    await index.ensure_space(SPACE, dimensions)
    figures: dict[str, float] = {}

    started_at = time.perf_counter()
    for start in range(0, points, 1000):
        await index.upsert(SPACE, corpus.points[start : start + 1000])
    figures["upsert_points_per_s"] = points / (time.perf_counter() - started_at)

    started_at = time.perf_counter()
    vectors = {point.point_id: vector for point, vector in zip(corpus.points, corpus.vectors, strict=True)}
    ids = list(vectors)
    for start in range(0, points, 1000):
        await index.update_vectors(SPACE, {point_id: vectors[point_id] for point_id in ids[start : start + 1000]})
    figures["update_vectors_per_s"] = points / (time.perf_counter() - started_at)

    figures |= percentiles("search_ms", await search_many(index, corpus, dimensions, SCOPE, searches=400))
    figures |= percentiles("search_admin_ms", await search_many(index, corpus, dimensions, ADMINISTRATOR, searches=200))
    figures |= percentiles("ping_ms", [await timed(index.check()) for _ in range(400)])

    loading = asyncio.create_task(load_again(index, corpus))
    figures |= percentiles(
        "search_while_loading_ms", await search_many(index, corpus, dimensions, SCOPE, while_=loading)
    )
    figures["upsert_while_searched_points_per_s"] = points / await loading
    figures["rss_empty_mb"] = rss_empty / 1e6
    figures["rss_mb"] = process.memory_info().rss / 1e6
    return figures


async def load_again(index: Index, corpus: Corpus) -> float:
    """Replace every point, with its vector; the seconds it took."""
    started_at = time.perf_counter()
    for start in range(0, len(corpus.points), 1000):
        part = [
            Point(point.point_id, point.payload, point.sparse, vector)
            for point, vector in zip(
                corpus.points[start : start + 1000], corpus.vectors[start : start + 1000], strict=True
            )
        ]
        await index.upsert(SPACE, part)
    return time.perf_counter() - started_at


async def search_many(
    index: Index,
    corpus: Corpus,
    dimensions: int,
    scope: IndexScope,
    *,
    searches: int = 0,
    while_: "asyncio.Task[float] | None" = None,
) -> list[float]:
    """Milliseconds per hybrid search for 40 candidates a leg: a number of them, or as many as fit beside a task."""
    taken = []
    while len(taken) < searches or (while_ is not None and not while_.done()):
        question, vector = corpus.question(), corpus.vector(dimensions)
        taken.append(await timed(index.search(SPACE, scope, dense=vector, sparse=question, limit=40)))
        if while_ is not None:
            await asyncio.sleep(0.02)
    return taken


async def timed(call: "asyncio.Future[object] | object") -> float:
    started_at = time.perf_counter()
    await call  # type: ignore[misc]
    return (time.perf_counter() - started_at) * 1000


def percentiles(name: str, taken: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(taken, [50, 95, 99])
    return {f"{name}_p50": float(p50), f"{name}_p95": float(p95), f"{name}_p99": float(p99)}


async def run(points: int, dimensions: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="leat-bench-") as folder:
        settings = Settings(data_dir=Path(folder))
        env = {**os.environ, "LEAT_DATA_DIR": folder}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "infra.index", env=env)
        index = make_index(settings)
        try:
            for _ in range(30):
                try:
                    await index.check()
                    break
                except Unavailable:
                    continue
            return await measure(index, psutil.Process(process.pid), points, dimensions)
        finally:
            await index.close()
            process.send_signal(signal.SIGTERM)
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=14_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = asyncio.run(run(options.points, options.dimensions))
    if options.json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
        return
    for name, value in figures.items():
        print(f"{name:40} {value:12,.2f}")


if __name__ == "__main__":
    main()
