"""Replay real edits of endoflife.date through Kafka: freshness, rate at full speed, facts right after a change.

    python -m benchmarks.bench_stream [--embedder hash|minilm] [--events 600] [--facts 200] [--seed 7]

The folder starts as the tree before the last ``2 * events`` changes. The first half is published at full speed, the
second
one by one; after a change that replaced a sampled fact, its question is asked at once.
"""

import argparse
import asyncio
import gzip
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.running import Running, data_folder, leat, percentile
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.pipeline import IndexCommitted
from schemas.topics import DOCUMENTS, INDEX_COMMITS

_EMBEDDED = """
select extract(epoch from m.embedded_at - m.accepted_at)::float8 * 1000 as ms
from manifests m join documents d using (document_key)
where d.document_id = $1 and m.applied_revision >= $2 and m.unembedded = 0 and (m.embedded_at is not null or m.deleted)
"""


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(data_folder() / "eol_stream" / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--embedder", default="hash")
    options.add_argument("--events", type=int, default=600)
    options.add_argument("--facts", type=int, default=200)
    options.add_argument("--seed", type=int, default=7)
    arguments = options.parse_args()
    events = lines("events.jsonl.gz")
    before, tail = events[: -2 * arguments.events], events[-2 * arguments.events :]
    with tempfile.TemporaryDirectory(prefix="leat-eol-") as folder:
        docs = Path(folder)
        write_tree(docs, before)
        with leat(docs, embedder=arguments.embedder) as running:
            wait_until_settled(running, sum(1 for path in docs.rglob("*.md")))
            fast, slow = tail[: arguments.events], tail[arguments.events :]
            facts = sampled_facts(slow, arguments.facts, arguments.seed)
            asyncio.run(replay(running, fast, slow, facts))


def write_tree(docs: Path, events: list[dict[str, Any]]) -> None:
    tree = {row["path"]: row["text"] for row in lines("base.jsonl.gz")}
    for event in events:
        if event["old_path"]:
            tree.pop(event["old_path"], None)
        if event["op"] == "D":
            tree.pop(event["path"], None)
        else:
            tree[event["path"]] = event["text"]
    for path, text in tree.items():
        (docs / path).parent.mkdir(parents=True, exist_ok=True)
        (docs / path).write_text(text, encoding="utf-8")


def wait_until_settled(running: Running, files: int) -> None:
    while True:
        status = running.status()
        documents = status["documents"]
        if documents["searchable"] + documents["failed"] >= files and not status["passages_without_vector"]:
            return
        time.sleep(0.3)


def wait_until_embedded(running: Running) -> None:
    while running.status()["passages_without_vector"]:
        time.sleep(0.1)


def sampled_facts(events: list[dict[str, Any]], count: int, seed: int) -> dict[int, list[dict[str, Any]]]:
    wanted = {event["seq"] for event in events}
    facts = [fact for fact in lines("fact_changes.jsonl.gz") if fact["seq"] in wanted]
    by_event = defaultdict(list)
    for fact in random.Random(seed).sample(facts, min(count, len(facts))):
        by_event[fact["seq"]].append(fact)
    return by_event


async def replay(running: Running, fast: list[dict], slow: list[dict], facts: dict[int, list[dict]]) -> None:
    servers = running.info["kafka_bootstrap_servers"]
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(INDEX_COMMITS.name, bootstrap_servers=servers, auto_offset_reset="latest")
    await producer.start()
    await consumer.start()
    await consumer.getmany(timeout_ms=500)
    database = await asyncpg.connect(running.info["postgres_dsn"])
    try:
        await at_full_speed(producer, consumer, running, fast)
        await one_by_one(producer, consumer, database, running, slow, facts)
    finally:
        await database.close()
        await consumer.stop()
        await producer.stop()


def changes_of(event: dict[str, Any]) -> list[tuple[DocumentKey, DocumentChanged]]:
    """One record, or two for a move: the new document, then the deletion of the old one."""
    key = DocumentKey("default", "default", event["path"])
    if event["op"] == "D":
        return [(key, DocumentChanged(change=Change.DELETE, event_id=f"{event['seq']}"))]
    found = [(key, DocumentChanged(text=event["text"], event_id=f"{event['seq']}", moved_from=event["old_path"]))]
    if event["old_path"]:
        old = DocumentKey("default", "default", event["old_path"])
        found.append((old, DocumentChanged(change=Change.DELETE, event_id=f"{event['seq']}-old")))
    return found


async def at_full_speed(producer: Any, consumer: Any, running: Running, events: list[dict]) -> None:
    embedded_before = running.status()["embedded"]["passages"]
    records = [record for event in events for record in changes_of(event)]
    began = time.monotonic()
    for key, change in records:
        await producer.send(DOCUMENTS.name, change.model_dump_json(exclude_none=True).encode(), key=key.encode())
    await producer.flush()
    published_s = time.monotonic() - began
    await outcomes(consumer, {change.event_id for _, change in records})
    took_s = time.monotonic() - began
    await asyncio.to_thread(wait_until_embedded, running)
    embedded_s = time.monotonic() - began
    spent = running.status()["embedded"]["passages"] - embedded_before
    print(
        f"full speed: {len(records)} events, published in {published_s:.1f} s, searchable in {took_s:.1f} s "
        f"({len(records) / took_s:.0f} events/s), embedded in {embedded_s:.1f} s; passages embedded {spent}"
    )


async def outcomes(consumer: Any, wanted: set[str | None]) -> None:
    while wanted:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            for record in records:
                wanted.discard(IndexCommitted.model_validate_json(record.value).event_id)


async def one_by_one(
    producer: Any, consumer: Any, database: Any, running: Running, events: list[dict], facts: dict[int, list[dict]]
) -> None:
    searchable, embedded, asked, right, stale, wrong = [], [], 0, 0, 0, []
    before = running.status()["embedded"]["passages"]
    headers = {"Authorization": f"Bearer {running.info['token']}"}
    async with httpx.AsyncClient(base_url=running.info["api_url"], headers=headers, timeout=60) as api:
        for event in events:
            for key, change in changes_of(event):
                began = time.perf_counter()
                value = change.model_dump_json(exclude_none=True).encode()
                sent = await producer.send_and_wait(DOCUMENTS.name, value, key=key.encode())
                await outcomes(consumer, {change.event_id})
                searchable.append(1000 * (time.perf_counter() - began))
            for fact in facts.get(event["seq"], ()):
                answer = (await api.post("/api/v1/query", json={"query": fact["question"]})).json()
                asked += 1
                has_new, has_old = str(fact["new"]) in answer["answer"], str(fact["old"]) in answer["answer"]
                right += has_new
                stale += has_old and str(fact["old"]) not in str(fact["new"])
                if not has_new:
                    wrong.append((fact["question"], fact["new"], answer["answer"][:160]))
            if event["op"] != "D":
                embedded.append(
                    await embedded_ms(database, key.document_id if not event["old_path"] else event["path"], sent)
                )
    spent = running.status()["embedded"]["passages"] - before
    print(f"one by one: {len(searchable)} events; passages embedded {spent}")
    for label, times in (("published to searchable", searchable), ("accepted to embedded", embedded)):
        print(f"  {label:24} p50 {percentile(times, 0.5):.0f} ms  p95 {percentile(times, 0.95):.0f} ms")
    if asked:
        print(f"  facts asked right after their change: {asked}; new value in the answer {right}, old value {stale}")
    for question, new, answer in wrong[:10]:
        print(f"    missed: {question!r} want {new!r} got {answer!r}")


async def embedded_ms(database: Any, document_id: str, sent: Any) -> float:
    while True:
        row = await database.fetchrow(_EMBEDDED, document_id, sent.offset if sent else 0)
        if row is not None:
            return float(row["ms"] or 0.0)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    main()
