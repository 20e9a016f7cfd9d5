"""Embedding alone: ``python benchmarks/bench_embed.py [--texts N] [--threads N] [MODEL …]``.

Prints, per model and each in a process of its own: texts and tokens a second of the bulk embedder on passages of about
250 tokens, milliseconds of a question of 12 words, how long until the first vector, and the resident memory. Then
megabytes a second of counting tokens, fast and exactly.
"""

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra import settings as settings_module
from infra.embedding import Purpose, make_embedder, make_token_counter

QUESTION = "what happens to the passages of a document after it was deleted?"
REPOSITORY = Path(__file__).resolve().parents[1]


def passages(count: int) -> list[str]:
    """Passages of 170 words of this repository's own source and prose, no two alike."""
    files = sorted(
        path for folder in ("streams", "schemas", "infra", "docs") for path in (REPOSITORY / folder).rglob("*.*")
    )
    words = " ".join(path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".md")).split()
    return [" ".join([f"passage {n}", *(words * 2)[n * 97 % len(words) :][:110]]) for n in range(count)]


def rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


async def measure(name: str, texts: list[str], threads: int) -> str:
    settings = settings_module.load(embed_threads=threads)
    counter = make_token_counter(settings, name)
    tokens = sum(min(254, counter.count_exact(text)) for text in texts)
    before_mb = rss_mb()
    bulk, first_s = await ready(settings, name, "bulk")
    started = time.perf_counter()
    await bulk.embed_passages(texts)
    elapsed_s = time.perf_counter() - started
    bulk_mb = rss_mb()
    query, _ = await ready(settings, name, "query")
    times_ms = []
    for _ in range(50):
        started = time.perf_counter()
        await query.embed_query(QUESTION)
        times_ms.append((time.perf_counter() - started) * 1e3)
    return (
        f"{name:12} {len(texts) / elapsed_s:9,.1f} texts/s {tokens / elapsed_s:11,.0f} tokens/s"
        f"   question p50 {statistics.median(times_ms):5.2f} ms  best {min(times_ms):5.2f} ms"
        f"   first vector {first_s:4.2f} s   RSS {before_mb:3.0f} + {bulk_mb - before_mb:3.0f} (bulk)"
        f" + {rss_mb() - bulk_mb:3.0f} (query), peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:3.0f} MB"
    )


async def ready(settings: settings_module.Settings, name: str, purpose: Purpose):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    embedder = make_embedder(settings, name, purpose=purpose)
    await embedder.embed_query("warm")
    return embedder, time.perf_counter() - started


def counting() -> str:
    counter = make_token_counter(settings_module.load(), "minilm")
    texts = passages(4000)
    size_mb = sum(len(text.encode()) for text in texts) / 1e6
    counter.count(" ".join(texts))
    started = time.perf_counter()
    fast = [counter.count(text) for text in texts]
    middle = time.perf_counter()
    exact = [counter.count_exact(text) for text in texts]
    ended = time.perf_counter()
    errors = [abs(a - b) / b for a, b in zip(fast, exact, strict=True)]
    return (
        f"counting     {size_mb / (middle - started):6.1f} MB/s by words,"
        f" {size_mb / (ended - middle):5.1f} MB/s exactly,"
        f" mean error {100 * statistics.mean(errors):.3f} %, worst {100 * max(errors):.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["minilm", "minilm-int8", "hash"])
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0, help="of the bulk embedder; 0: one per core")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        texts = passages(options.texts * (100 if options.models == ["hash"] else 1))
        sys.stdout.write(asyncio.run(measure(options.models[0], texts, options.threads)) + "\n")
        return
    for name in options.models:
        arguments = ["--here", name, "--texts", str(options.texts), "--threads", str(options.threads)]
        subprocess.run([sys.executable, __file__, *arguments], check=True, cwd=REPOSITORY)
    sys.stdout.write(counting() + "\n")


if __name__ == "__main__":
    main()
