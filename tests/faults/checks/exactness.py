"""A16: from document to chunk to vector, brokers or workers bounced hard or gently: what goes in comes out, once."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from signal import SIGKILL, SIGTERM

from schemas.pipeline import DocumentChunked, DocumentEmbedded, IndexCommitted
from schemas.topics import CHUNKS, EMBEDDINGS, INDEX_COMMITS
from tests.faults.arena import Arena, longest
from tests.faults.brokers import Broker, one_broker
from tests.faults.checks import commit_first
from tests.faults.harness import Leat, installation
from tests.faults.invariants import check, read

RECORDS, BOUNCES = 20_000, 3
KINDS = tuple(product(("workers", "brokers"), ("hard", "clean"), (1, 6)))


async def exactness(arena: Arena) -> None:
    """Eight ways, each with three bounces while a verifier looks on."""
    settled: list[float] = []
    for who, how, partitions in KINDS:
        name = f"{how} {who} {partitions} partitions"
        arena.say(name)
        async with _place(arena, who, partitions) as (leat, broker):
            leat.start("index")
            leat.start("pipeline")
            await leat.change("warm-up.md")
            await leat.settled()
            looking = asyncio.create_task(_look_on(leat))
            for number in range(BOUNCES):
                await leat.burst(f"exact-{number}", arena.times(RECORDS // BOUNCES // 4, least=200))
                await _bounce(leat, broker, how)
                arena.did(f"{how} {who}")
            settled.append(await leat.settled(within_s=120))
            if looking.done():
                arena.note(name, looking.result())
            looking.cancel()
            arena.note(name, await check(leat))
            arena.note(name, await _in_equals_out(leat))
            if partitions == 1:
                arena.note(name, await _in_order(leat))
            arena.result.acknowledged += len(leat.ledger.entries)
            for process, running in leat.running.items():
                if not running.process.is_alive():
                    arena.note(name, [f"{process} ended with {running.process.exitcode}"])
    arena.result.figures["lag back to 0"] = longest(settled)
    async with installation(arena.services, arena.place("commit-first"), seed=arena.seed()) as leat:
        await commit_first.lose_a_batch(leat)
        found = Counter(violation.invariant for violation in await check(leat))
        arena.bites(commit_first.PROTECTION, found | {"A16": len(await _in_equals_out(leat))})


@asynccontextmanager
async def _place(arena: Arena, who: str, partitions: int) -> AsyncIterator[tuple[Leat, Broker | None]]:
    folder = arena.place(f"{len(arena.result.runs)}-{arena.seed()}")
    settings = {"partitions": partitions, "seed": arena.seed()}
    if who == "workers":
        async with installation(arena.services, folder, kafka_session_timeout_ms=1500, **settings) as leat:
            yield leat, None
    else:
        async with one_broker(folder / "broker") as broker:
            settings["kafka_bootstrap_servers"] = broker.bootstrap_servers
            async with installation(arena.services, folder / "leat", **settings) as leat:
                yield leat, broker


async def _bounce(leat: Leat, broker: Broker | None, how: str) -> None:
    if broker is not None:
        await (broker.kill() if how == "hard" else broker.stop())
        await broker.start()
        return
    leat.running["pipeline"].signal(SIGKILL if how == "hard" else SIGTERM)
    await leat.running["pipeline"].ended()
    leat.restart("pipeline")


async def _look_on(leat: Leat) -> list[str]:
    """The concurrent verifier: a manifest that goes back is noted by the database itself; here repeated passages."""
    while True:
        rows = await leat.pool.fetch(
            "select document_key from passages group by generation_id, document_key"
            " having count(*) > count(distinct ordinal)"
        )
        if rows:
            return [f"document {row['document_key']} had passages twice" for row in rows]
        await asyncio.sleep(0.2)


async def _in_equals_out(leat: Leat) -> list[str]:
    """Every event has an outcome; every passage that is shown was chunked, and embedded under its content."""
    said = {IndexCommitted.model_validate_json(record.value).event_id for record in await read(leat, INDEX_COMMITS)}
    wanted = {entry.event_id for entry in leat.ledger.entries}
    problems = [f"{event} has no outcome" for event in wanted - said]
    problems += [f"outcome of {event}, which nobody sent" for event in said - wanted]
    chunked = {
        (event.key, passage.content_hash)
        for record in await read(leat, CHUNKS)
        for event in [DocumentChunked.model_validate_json(record.value)]
        for passage in event.passages
    }
    embedded = {
        (event.key, item.content_hash)
        for record in await read(leat, EMBEDDINGS)
        for event in [DocumentEmbedded.model_validate_json(record.value)]
        for item in event.vectors
    }
    problems += [f"{key} was embedded, but not chunked" for key, _ in embedded - chunked]
    rows = await leat.pool.fetch(
        "select d.document_id, p.content_hash from passages p join documents d using (document_key)"
    )
    problems += [
        f"{row['document_id']} shows a passage that was not chunked"
        for row in rows
        if (leat.key(row["document_id"]), bytes(row["content_hash"])) not in chunked
    ]
    return problems


async def _in_order(leat: Leat) -> list[str]:
    """On one partition the first time that each revision was chunked is in the order of the log, per document."""
    newest: defaultdict[object, int] = defaultdict(lambda: -1)
    seen, wrong = set(), Counter()
    for record in await read(leat, CHUNKS):
        event = DocumentChunked.model_validate_json(record.value)
        if (event.key, event.revision) not in seen:
            seen.add((event.key, event.revision))
            wrong[event.key] += event.revision < newest[event.key]
            newest[event.key] = max(newest[event.key], event.revision)
    return [f"{key}: {times} revisions came behind newer ones" for key, times in wrong.items() if times]
