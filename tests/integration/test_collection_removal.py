"""Deleting a collection: nothing of it is left, nothing brings it back, and a new one of that name starts empty."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from consumers.app import JOBS, PIPELINE, wired
from infra.kafka.log_scan import KafkaLogScanner
from infra.postgres.catalog import PostgresCatalog
from infra.verifying import verify
from schemas.documents import DocumentChanged, DocumentKey
from schemas.topics import DOCUMENTS
from streams.generations import CollectionSettings
from streams.jobs import Job, JobStatus, JobType
from streams.model import LogPlace, Ordering
from tests.pipeline import Pipeline, eventually, pipeline, prepared
from tests.services import Services

TENANT = "default"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("removal")) as running:
        yield running


async def load(leat: Pipeline, collection: str, count: int, **fields: int) -> None:
    changes = [
        (
            DocumentKey(TENANT, collection, f"{n}.md"),
            DocumentChanged(text=f"# Page {n}\n\nThe lighthouse keeper of page {n}.", **fields),  # type: ignore[arg-type]
        )
        for n in range(count)
    ]
    positions = await leat.resources.change_log.publish_many(changes)

    async def there() -> bool:
        states = [await leat.resources.directory.wait_state(position) for position in positions]
        return all(state.verdict.value == "embedded" for state in states)

    await eventually(there, within_s=60)


async def deleted(leat: Pipeline, collection: str) -> Job:
    job = await leat.resources.jobs.create(TENANT, collection, JobType.DELETE_COLLECTION, {})
    return await finished(leat, job.job_id)


async def finished(leat: Pipeline, job_id: str) -> Job:
    async def over() -> Job | None:
        job = await leat.resources.jobs.get(TENANT, job_id)
        return job if job is not None and job.status.is_final else None

    job = await eventually(over, within_s=60)
    assert isinstance(job, Job)
    return job


async def left_of(leat: Pipeline, collection: str) -> dict[str, int]:
    pool = leat.resources.pool
    found = {
        table: await pool.fetchval(f"select count(*) from {table} where collection = $1", collection)
        for table in ("collections", "documents", "dead_letters")
    }
    of_it = "generation_id in (select generation_id from generations where collection = $1)"
    for table in ("manifests", "passages"):
        found[table] = await pool.fetchval(f"select count(*) from {table} where {of_it}", collection)
    found["points"] = 0
    for row in await pool.fetch("select generation_id from generations where collection = $1", collection):
        generation = await leat.resources.generations.by_id(row["generation_id"])
        assert generation is not None
        found["points"] += await leat.resources.index.count(generation.space, generation.generation_id)
    return found


async def read_again(leat: Pipeline, collection: str) -> int:
    """Hand all records of a collection to the chunker once more; how many there are."""
    assert leat.wiring is not None
    scanner, records = KafkaLogScanner(leat.settings), []
    async for stretch in scanner.scan({}, await scanner.ends()):
        records += [record for record in stretch.records if f"/{collection}/".encode() in (record.key or b"")]
    await leat.wiring.deliveries["chunker"].handler_of(DOCUMENTS)(records)
    return len(records)


async def test_nothing_is_left_and_a_replay_brings_nothing_back(leat: Pipeline) -> None:
    await load(leat, "doomed", 12)
    await load(leat, "spared", 2)
    queued = await leat.resources.jobs.create(TENANT, "doomed", JobType.REPLAY, {"from": "earliest"})
    await leat.resources.jobs.cancel(TENANT, queued.job_id)
    job = await deleted(leat, "doomed")
    assert (job.status, job.error) == (JobStatus.COMPLETED, None)
    assert job.result is not None
    assert job.result["documents"] == 12
    assert not any((await left_of(leat, "doomed")).values())
    assert await leat.resources.catalog.find(TENANT, "doomed") is None
    assert len(await leat.texts("lighthouse keeper", collection="spared")) == 2

    # All of the log once more, straight to the chunker: the most that a rewound group could do.
    assert await read_again(leat, "doomed") == 24  # the texts, and their deletions
    assert not any((await left_of(leat, "doomed")).values())

    # A new one of that name starts empty, and its replay holds what it got itself.
    await load(leat, "doomed", 1)
    assert len(await leat.texts("lighthouse keeper", collection="doomed")) == 1
    dry = await leat.resources.jobs.create(TENANT, "doomed", JobType.REPLAY, {"from": "earliest", "dry_run": True})
    counted = (await finished(leat, dry.job_id)).result
    assert counted is not None
    assert (counted["records"], counted["documents"], counted["unknown_records"]) == (1, 1, 0)
    found = await leat.resources.catalog.find(TENANT, "doomed")
    assert found is not None
    assert [generation.number for generation in found.live] == [2]
    verified = await verify(leat.settings)
    assert verified.drift == []
    assert verified.in_log == verified.in_index == 3


async def test_collection_with_source_versions_goes_without_dead_letters(leat: Pipeline) -> None:
    await leat.resources.collections.create(TENANT, "versioned", CollectionSettings(ordering=Ordering.SOURCE))
    await load(leat, "versioned", 2, source_version=5)
    assert (await deleted(leat, "versioned")).status is JobStatus.COMPLETED
    assert not any((await left_of(leat, "versioned")).values())
    # Its versions begin anew: it is another collection.
    await leat.resources.collections.create(TENANT, "versioned", CollectionSettings(ordering=Ordering.SOURCE))
    await load(leat, "versioned", 1, source_version=1)
    assert (await left_of(leat, "versioned"))["dead_letters"] == 0


async def test_record_from_before_the_end_creates_no_collection(leat: Pipeline) -> None:
    await load(leat, "ended", 1)
    assert (await deleted(leat, "ended")).status is JobStatus.COMPLETED
    ends = await leat.resources.pool.fetch("select * from collection_ends where collection = 'ended'")
    for row in ends:
        before = LogPlace(row["epoch"], row["partition"], row["ends_at"] - 1)
        assert await leat.resources.catalog.receiving(TENANT, "ended", before) is None
    assert await leat.resources.catalog.find(TENANT, "ended") is None
    behind = LogPlace(ends[0]["epoch"], ends[0]["partition"], ends[0]["ends_at"])
    assert await leat.resources.catalog.receiving(TENANT, "ended", behind) is not None


async def test_without_its_end_a_replay_would_bring_it_back(leat: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teeth of this file."""

    async def never(*_: object, **__: object) -> bool:
        return False

    await load(leat, "undead", 1)
    assert (await deleted(leat, "undead")).status is JobStatus.COMPLETED
    monkeypatch.setattr(PostgresCatalog, "is_over", never)
    await read_again(leat, "undead")
    assert (await left_of(leat, "undead"))["collections"] == 1


async def test_removal_goes_on_after_a_crash(services: Services, tmp_path: Path) -> None:
    async with prepared(services, tmp_path) as leat:
        stop = asyncio.Event()
        async with wired(tuple(role for role in PIPELINE if role != JOBS), leat.settings, stop):
            await load(leat, "crashed", 30)
            job = await leat.resources.jobs.create(TENANT, "crashed", JobType.DELETE_COLLECTION, {})

            async def begun() -> str | None:
                found = await leat.resources.jobs.get(TENANT, job.job_id)
                return found and found.phase

            async def ended() -> bool:
                return await begun() in ("end", "remove")

            for reached in (begun, ended):
                async with wired((JOBS,), leat.settings, stop):
                    await eventually(reached)
            async with wired((JOBS,), leat.settings, stop):
                assert (await finished(leat, job.job_id)).status is JobStatus.COMPLETED
        assert not any((await left_of(leat, "crashed")).values())
