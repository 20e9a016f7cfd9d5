"""What keeping and asking the past costs.

    python -m benchmarks.bench_history [--embedder hash|minilm] [--files 1286]
    python -m benchmarks.bench_history --comparing 20000

Loads the mixdocs corpus, notes the time, appends a line to every file, and asks the same questions of now and of then:
the worst case, for everything has changed since. Then it edits one document again and again, with and without history.
`--comparing` needs no running Leat: the processor time of comparing so many past passages with a question.
"""

import argparse
import asyncio
import statistics
import tarfile
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_reindex import QUESTIONS, wait_until_loaded
from benchmarks.running import Running, data_folder, leat, percentile
from infra.postgres.history import BATCH
from infra.sparse import make_sparse_encoder
from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from streams.as_of import PassageScorer, TimeTravel
from streams.model import HydratedPassage, PastPassage
from streams.subject import encode_question
from tests.fakes.stores import InMemoryCatalog, World

ASKED = 10
EDITS = 100
_KEPT = """
select (select count(*) from past_revisions) as revisions, (select count(*) from past_texts) as texts,
       pg_total_relation_size('past_texts') + pg_total_relation_size('past_revisions') as bytes
"""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--embedder", default="hash")
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--comparing", type=int)
    arguments = options.parse_args()
    if arguments.comparing:
        asyncio.run(compare(arguments.comparing))
        return
    with tempfile.TemporaryDirectory(prefix="leat-mixdocs-") as folder:
        docs = Path(folder)
        with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
            members = [member for member in archive.getmembers() if member.isfile()][: arguments.files]
            archive.extractall(docs, members=members, filter="data")
        with leat(docs, embedder=arguments.embedder) as running:
            wait_until_loaded(running, len(members))
            then = datetime.now(UTC).isoformat()
            for share in (0.1, 1.0):
                edited = change_files(running, docs, share)
                ask(running, then, f"{edited} of {len(members)} files changed since")
            kept = running.sql(_KEPT)[0]
            print(f"kept: {kept['revisions']} revisions, {kept['texts']} texts, {kept['bytes'] / 1e6:.1f} MB")
            edit(running)


def change_files(running: Running, docs: Path, share: float) -> int:
    """Append a line to a share of the files that are text; wait until all of it is searchable and embedded."""
    files = sorted(path for path in docs.rglob("*") if path.suffix in (".md", ".mdx", ".txt", ".rst", ".py"))
    files = files[: round(len(files) * share)]
    before = {row["document_key"] for row in running.sql("select distinct document_key from past_revisions")}
    for path in files:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n\nA line that was added at {time.time_ns()}.\n")
    while True:
        now = {row["document_key"] for row in running.sql("select distinct document_key from past_revisions")}
        status = running.status()
        if len(now | before) >= len(files) and not any(status["lag"].values()):
            return len(files)
        time.sleep(0.5)


def ask(running: Running, then: str, what: str) -> None:
    times: dict[str, list[float]] = {"now": [], "then": []}
    with running.api as api:
        for number in range(ASKED):
            for moment, as_of in (("now", None), ("then", then)):
                body = {"query": QUESTIONS[number % len(QUESTIONS)], "as_of": as_of}
                times[moment].append(api.post("/api/v1/search", json=body).raise_for_status().json()["took_ms"])
        changes = api.post("/api/v1/changes", json={"query": QUESTIONS[0], "since": then}).raise_for_status().json()
    past = running.sql(
        "select coalesce(sum(cardinality(content_hashes)), 0) as passages from past_revisions"
        " where current_from <= $1 and current_until > $1",
        datetime.fromisoformat(then),
    )[0]["passages"]
    now_ms, then_ms = statistics.median(times["now"]), statistics.median(times["then"])
    print(
        f"{what} ({past} passages): search of now p50 {now_ms:.0f} ms; of then p50 {then_ms:.0f} ms, "
        f"max {max(times['then']):.0f} ms; what changed {changes['took_ms']:.0f} ms"
    )


def edit(running: Running) -> None:
    """One document of 40 sections, edited again and again; each edit is waited for."""
    for days in (0, 7, 0, 7):
        name = f"edits-{days}-{time.time_ns()}"
        with running.api as api:
            api.post("/api/v1/collections", json={"name": name, "history_days": days}).raise_for_status()
            times = []
            for number in range(EDITS):
                sections = [f"# Part {part}\n\nWhat is said of part {part} in some words." for part in range(40)]
                sections[number % 40] += f" Edition {number}."
                body = "\n\n".join(sections).encode()
                headers = {"Content-Type": "text/markdown"}
                began = time.perf_counter()
                put = api.put(f"/api/v1/collections/{name}/documents/a.md", content=body, headers=headers)
                wanted = {
                    "query": "part",
                    "collection": name,
                    "min_position": put.raise_for_status().json()["position"],
                }
                api.post("/api/v1/search", json=wanted).raise_for_status()
                times.append((time.perf_counter() - began) * 1000)
        print(
            f"{EDITS} edits, {days} days of history: put until searchable p50 {statistics.median(times):.1f} ms, "
            f"p95 {percentile(times, 0.95):.1f} ms"
        )


class Vectors:
    """``VectorCache``: random vectors, which cost as much to compare as real ones."""

    def __init__(self, hashes: list[bytes]) -> None:
        found = np.random.default_rng(1).standard_normal((len(hashes), 384)).astype(np.float32)
        self._vectors = dict(zip(hashes, found / np.linalg.norm(found, axis=1, keepdims=True), strict=True))

    async def get(self, tenant: str, fingerprint: str, hashes: list[bytes]) -> dict[bytes, np.ndarray]:
        return {content_hash: self._vectors[content_hash] for content_hash in hashes}


async def compare(count: int) -> None:
    """Processor time, which other work on the machine does not change."""
    passages = [a_past(number, text) for number, text in enumerate(some_texts(count))]
    encoder, vectors = make_sparse_encoder(), Vectors([each.content_hash for each in passages])
    collection = await InMemoryCatalog(World()).collection("default", "default")
    tools: Any = TimeTravel(None, vectors, None, encoder)  # type: ignore[arg-type]
    question = (await vectors.get("", "", [passages[0].content_hash]))[passages[0].content_hash]
    for turn in ("first", "again"):
        scorer = PassageScorer(question, encode_question(QUESTIONS[0], encoder), collection=collection, tools=tools)
        began = time.process_time()
        for begin in range(0, count, BATCH):
            await scorer.add(passages[begin : begin + BATCH])
        scorer.best(40)
        took_ms = (time.process_time() - began) * 1000
        print(f"comparing {count} passages, {turn}: {took_ms / count * 1000:.0f} ms of processor time per 1,000")


def some_texts(count: int) -> list[str]:
    """Pieces of the mixdocs corpus, of the length of a passage."""
    texts: list[str] = []
    with tarfile.open(data_folder() / "mixdocs.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                text = file.read().decode("utf-8", "replace")
                texts += [text[begin : begin + 400] for begin in range(0, len(text), 400)]
            if len(texts) >= count:
                break
    return texts[:count]


def a_past(number: int, text: str) -> PastPassage:
    passage = HydratedPassage(
        point_id=uuid.UUID(int=number),
        key=DocumentKey("default", "default", f"{number // 20}.md"),
        revision=1,
        ordinal=number % 20,
        title="A document",
        url=None,
        text=text,
        heading_path=("A heading",),
        page=None,
        start=0,
        end=len(text),
        tokens=100,
        updated_at=datetime.now(UTC),
        access_level=AccessLevel.PUBLIC,
        metadata={},
    )
    return PastPassage(passage, f"{number}".encode())


if __name__ == "__main__":
    main()
