"""Measure the stores in PostgreSQL: admissions, flips, passages, hydration.

    python -m benchmarks.bench_postgres --dsn postgresql://…

Works in a scratch database that it creates beside the given one and drops again.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from infra.postgres.catalog import NewGeneration, PostgresCatalog
from infra.postgres.ledger import PostgresDocumentLedger
from infra.postgres.manifests import PostgresManifestStore
from infra.postgres.migrate import migrate
from infra.postgres.passages import PostgresPassageStore
from infra.postgres.pool import Pool, open_pool
from schemas.documents import DocumentKey
from streams.model import EmbeddingModel, Generation
from tests.store_data import a_flip, a_principal, a_request, some_passages

MODEL = EmbeddingModel(name="hash", fingerprint="bench", dimensions=384, max_tokens=256)
TEXT = "Records are kept for seven days, and longer where the law says so. " * 15  # about 1,000 characters


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True, help="of a user that may create databases")
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--passages", type=int, default=5, help="of each document")
    options = parser.parse_args()
    name = f"bench_{uuid.uuid4().hex[:8]}"
    admin = await asyncpg.connect(options.dsn)
    await admin.execute(f"create database {name}")
    try:
        dsn = urlunsplit(urlsplit(options.dsn)._replace(path=f"/{name}"))
        await migrate(dsn)
        async with await open_pool(dsn) as pool:
            print(json.dumps(await measure(pool, options.documents, options.passages), indent=2))
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


async def measure(pool: Pool, documents: int, passages: int) -> dict[str, float]:
    """Figures by name; rates per second, times in milliseconds."""
    catalog = PostgresCatalog(pool, new_generation=NewGeneration(MODEL, 256, 50))
    generation = (await catalog.collection("bench", "default")).serving
    keys = [DocumentKey("bench", "default", f"folder/{n % 50}/document-{n}.md") for n in range(documents)]
    figures = {
        "admissions_per_s": await admissions(pool, keys, revision=1),
        "admissions_again_per_s": await admissions(pool, keys, revision=2),
    }
    flips_per_s = await flips(pool, generation, keys, passages)
    figures |= {"flips_per_s": flips_per_s, "passages_per_s": flips_per_s * passages}
    figures |= await single_flips(pool, generation, keys, passages)
    await pool.execute("analyze")
    figures |= await hydration(pool, generation)
    return {name: round(value, 2) for name, value in figures.items()}


async def admissions(pool: Pool, keys: list[DocumentKey], *, revision: int) -> float:
    ledger = PostgresDocumentLedger(pool)
    requests = [a_request(key, revision) for key in keys]
    started = time.perf_counter()
    for begin in range(0, len(requests), 200):
        await ledger.admit(requests[begin : begin + 200])
    return len(requests) / (time.perf_counter() - started)


async def flips(pool: Pool, generation: Generation, keys: list[DocumentKey], passages: int) -> float:
    """In transactions of 200 documents."""
    store = PostgresManifestStore(pool)
    texts = [f"{n} {TEXT}" for n in range(passages)]
    planned = [a_flip(generation, key, 1, some_passages(key, texts, born=1)) for key in keys]
    started = time.perf_counter()
    for begin in range(0, len(planned), 200):
        await store.flip(planned[begin : begin + 200])
    return len(planned) / (time.perf_counter() - started)


async def single_flips(pool: Pool, generation: Generation, keys: list[DocumentKey], passages: int) -> dict[str, float]:
    """One document a transaction: one passage is new, the others stay."""
    store = PostgresManifestStore(pool)
    planned = []
    for key in keys[:300]:
        manifest = (await store.read(generation.generation_id, [key]))[key]
        [new] = some_passages(key, ["new"], born=2)
        planned.append(a_flip(generation, key, 2, [new, *manifest.passages[1:]]))
    flips = iter(planned)
    return await _times("single_flip", len(planned), lambda: store.flip([next(flips)]))


async def hydration(pool: Pool, generation: Generation) -> dict[str, float]:
    """40 candidates from all over the collection."""
    store = PostgresPassageStore(pool)
    reader = a_principal("bench")
    ids = [row["point_id"] for row in await pool.fetch("select point_id from passages")]
    chosen = random.Random(1)
    times = await _times(
        "hydrate_40", 500, lambda: store.hydrate(reader, generation.generation_id, chosen.sample(ids, 40))
    )
    return times | await _times("freshness", 200, lambda: _fresh(pool))


async def _fresh(pool: Pool) -> None:
    await PostgresPassageStore(pool).freshness("bench", "default")


async def _times(name: str, n: int, call: Callable[[], Awaitable[object]]) -> dict[str, float]:
    times = []
    for _ in range(n):
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1000)
    return {f"{name}_ms_p50": statistics.median(times), f"{name}_ms_p95": statistics.quantiles(times, n=20)[18]}


if __name__ == "__main__":
    asyncio.run(main())
