"""Reindex by replay: built beside the serving generation, compared, switched, switched back, cancelled, resumed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from api.generations import REBUILD
from consumers.app import JOBS, PIPELINE, wired
from consumers.mender import Mender, MenderParts
from schemas.documents import DocumentChanged, DocumentKey
from streams.generations import CollectionSettings, GenerationRefused, Reindex
from streams.jobs import Job, JobStatus, JobType
from streams.model import GenerationState
from tests.pipeline import Pipeline, eventually, pipeline, prepared
from tests.services import Services

TENANT = "default"
# The texts are alike on purpose; which of them come first says nothing here.
SWITCH = {"switch": True, "min_overlap": 0.0}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("generations")) as running:
        yield running


async def publish(leat: Pipeline, collection: str, texts: dict[str, str], *, bulk: bool = True) -> None:
    changes = [
        (DocumentKey(TENANT, collection, name), DocumentChanged(text=text, event_id=f"{collection}/{name}"))
        for name, text in texts.items()
    ]
    await leat.resources.change_log.publish_many(changes, bulk=bulk)


async def load(leat: Pipeline, collection: str, count: int) -> None:
    """Documents of a few sections each, searchable and embedded."""
    texts = {f"{n}.md": document(n) for n in range(count)}
    await publish(leat, collection, texts)
    await embedded(leat, collection, count)


def document(n: int, edition: str = "first") -> str:
    sections = (f"# Part {part} of {n}\n\nThe {edition} edition of {n} tells of harbour {part}. " for part in range(3))
    return "\n\n".join(section * 3 for section in sections)


async def embedded(leat: Pipeline, collection: str, count: int) -> None:
    async def done() -> bool:
        found = await leat.resources.generations.list_generations(TENANT, collection)
        serving = next((g for g in found if g.generation.state is GenerationState.SERVING), None)
        return serving is not None and serving.documents == count and not serving.passages_without_vector

    await eventually(done, within_s=120)


async def reindex(leat: Pipeline, collection: str, payload: dict[str, Any] | None = None, **changed: Any) -> Reindex:
    return await leat.resources.generations.begin(TENANT, collection, CollectionSettings(**changed), payload or {})


async def finished(leat: Pipeline, job_id: str) -> Job:
    async def over() -> Job | None:
        job = await leat.resources.jobs.get(TENANT, job_id)
        assert job is not None
        return job if job.status.is_final else None

    job = await eventually(over, within_s=180)
    assert isinstance(job, Job)
    return job


async def texts(leat: Pipeline, collection: str, query: str) -> list[str]:
    return await leat.texts(query, collection=collection)


async def left_of(leat: Pipeline, begun: Reindex) -> tuple[int, int, int]:
    generation = begun.generation
    pool = leat.resources.pool
    return (
        await leat.resources.index.count(generation.space, generation.generation_id),
        await pool.fetchval("select count(*) from manifests where generation_id = $1", generation.generation_id),
        await pool.fetchval("select count(*) from passages where generation_id = $1", generation.generation_id),
    )


async def spent(leat: Pipeline) -> int:
    return int((await leat.resources.directory.status(TENANT))["embedded"]["passages"])


async def serves(leat: Pipeline, collection: str, number: int) -> None:
    """Wait until what we know of a collection, which may be some tenths of a second old, says so."""

    async def seen() -> bool:
        found = await leat.resources.catalog.find(TENANT, collection)
        return found is not None and found.serving.number == number

    await eventually(seen)


async def test_reindex_while_edits_come_in_then_switch_and_back(leat: Pipeline) -> None:
    await load(leat, "harbours", 40)
    before = await texts(leat, "harbours", "harbour 2")
    begun = await reindex(leat, "harbours", chunk_tokens=64, chunk_overlap=8)

    async def edit() -> None:
        for n in range(0, 40, 2):
            await publish(leat, "harbours", {f"{n}.md": document(n, "second")}, bulk=False)
            await asyncio.sleep(0.02)
        await leat.resources.change_log.publish(DocumentKey(TENANT, "harbours", "39.md"), None)

    editing = asyncio.create_task(edit())
    job = await finished(leat, begun.job_id)
    await editing
    assert (job.status, job.error) == (JobStatus.COMPLETED, None)
    assert job.result is not None
    assert job.result["switched"] is False
    assert before

    async def level() -> Any:
        with suppress(GenerationRefused):
            return await leat.resources.generations.switch(TENANT, "harbours", 2)

    switched = await eventually(level)
    assert (switched.previous, switched.serving) == (1, 2)
    await serves(leat, "harbours", 2)
    found = await leat.resources.catalog.find(TENANT, "harbours")
    assert found is not None
    assert (found.serving.number, found.serving.chunk_tokens) == (2, 64)
    assert switched.counts.serving_documents == switched.counts.candidate_documents == 39
    for n in (0, 38):
        assert any(
            f"second edition of {n} " in text for text in await texts(leat, "harbours", f"second edition of {n}")
        )
    assert not any("edition of 39 " in text for text in await texts(leat, "harbours", "edition of 39"))

    # What changes now reaches both; switching back shows it too.
    await publish(leat, "harbours", {"7.md": document(7, "third")}, bulk=False)
    back = await eventually(lambda: _switch_back(leat, "harbours"))
    assert back.serving == 1
    await serves(leat, "harbours", 1)
    assert any("third edition of 7 " in text for text in await texts(leat, "harbours", "third edition of 7"))


async def _switch_back(leat: Pipeline, collection: str) -> Any:
    if not any("third edition of 7 " in text for text in await texts(leat, collection, "third edition of 7")):
        return None
    with suppress(GenerationRefused):
        return await leat.resources.generations.switch(TENANT, collection, 1)


async def test_same_model_and_text_embeds_nothing_and_an_automatic_switch_follows(leat: Pipeline) -> None:
    await load(leat, "again", 20)
    before = await spent(leat)
    begun = await reindex(leat, "again", SWITCH)
    job = await finished(leat, begun.job_id)
    assert job.result is not None
    assert job.result["switched"] is True
    assert job.result["parity"]["overlap"] > 0
    assert (job.progress.total, job.progress.processed) == (20, 20)
    assert await spent(leat) == before


async def test_cancel_leaves_nothing(leat: Pipeline) -> None:
    await load(leat, "stopped", 60)
    begun = await reindex(leat, "stopped", chunk_tokens=48)
    await leat.resources.jobs.pause(TENANT, begun.job_id, paused=True)
    await leat.resources.jobs.pause(TENANT, begun.job_id, paused=False)

    async def some() -> bool:
        return (await left_of(leat, begun))[1] > 0

    await eventually(some)
    await leat.resources.jobs.cancel(TENANT, begun.job_id)
    job = await finished(leat, begun.job_id)
    assert job.status is JobStatus.CANCELLED
    assert await left_of(leat, begun) == (0, 0, 0)
    serving = await leat.resources.catalog.find(TENANT, "stopped")
    assert serving is not None
    assert [generation.number for generation in serving.live] == [1]


async def test_reindex_with_another_parser_reads_the_same_documents_otherwise(leat: Pipeline) -> None:
    await publish(leat, "reread", {"notes.txt": "# Tides\n\nHigh water at noon.", "page.md": "# Piers\n\nTwo of them."})
    await embedded(leat, "reread", 2)
    assert next(p.heading_path for p in await leat.search("high water", collection="reread")) == ()
    begun = await reindex(leat, "reread", {**SWITCH, "questions": []}, parsers={".txt": "markdown"})
    job = await finished(leat, begun.job_id)
    assert job.result is not None
    assert job.result["switched"] is True, job.result
    assert len(job.result["parity"]["questions"]) > 20  # headings, and those that ship: nobody has asked anything yet

    async def reread() -> bool:
        return next(p.heading_path for p in await leat.search("high water", collection="reread")) == ("Tides",)

    await eventually(reread)
    # What only a generation in the making cannot read is its failure alone.
    await reindex(leat, "reread", parsers={".md": "pdf"})
    await publish(leat, "reread", {"page.md": "# Piers\n\nThree of them."}, bulk=False)

    async def three() -> bool:
        return any("Three of them" in text for text in await texts(leat, "reread", "piers"))

    await eventually(three)


async def test_generation_that_is_behind_is_refused_unless_forced(leat: Pipeline) -> None:
    await load(leat, "behind", 40)  # enough that the job is not through with them before it is paused
    begun = await reindex(leat, "behind")
    await leat.resources.jobs.pause(TENANT, begun.job_id, paused=True)
    with pytest.raises(GenerationRefused, match=r"\d+ documents"):
        await leat.resources.generations.switch(TENANT, "behind", 2)
    forced = await leat.resources.generations.switch(TENANT, "behind", 2, force=True)
    assert forced.forced
    await leat.resources.generations.switch(TENANT, "behind", 1)
    await leat.resources.generations.retire(TENANT, "behind", 2)
    with pytest.raises(GenerationRefused, match="serves"):
        await leat.resources.generations.retire(TENANT, "behind", 1)
    await leat.resources.jobs.pause(TENANT, begun.job_id, paused=False)
    assert (await finished(leat, begun.job_id)).status is JobStatus.FAILED


async def test_second_reindex_of_a_collection_is_refused(leat: Pipeline) -> None:
    await load(leat, "twice", 1)
    begun = await reindex(leat, "twice")
    with pytest.raises(GenerationRefused, match="already"):
        await reindex(leat, "twice")
    await leat.resources.jobs.cancel(TENANT, begun.job_id)
    await finished(leat, begun.job_id)


async def test_collections_with_different_models_answer_side_by_side(leat: Pipeline) -> None:
    await leat.resources.collections.create(TENANT, "coarse", CollectionSettings(embedding_model="hash"))
    await leat.resources.collections.create(
        TENANT, "meaning", CollectionSettings(embedding_model="minilm", chunk_tokens=128)
    )
    for name in ("coarse", "meaning"):
        await publish(leat, name, {"cat.md": "# Animals\n\nThe feline slept on the warm windowsill all day."})
        await embedded(leat, name, 1)
    models = {c.name: c.serving.model.dimensions for c in await leat.resources.collections.list_collections(TENANT)}
    assert models["meaning"] == 384
    assert await texts(leat, "coarse", "feline")
    assert any("feline" in text for text in await texts(leat, "meaning", "where did the cat nap"))


async def test_unreadable_document_does_not_stop_a_reindex(leat: Pipeline) -> None:
    await load(leat, "partly", 3)
    await publish(leat, "partly", {"1.md": ""})  # its newest revision cannot be read: the text before it stays
    await unreadable(leat, "partly", "1.md")
    begun = await reindex(leat, "partly", SWITCH, chunk_tokens=64)
    job = await finished(leat, begun.job_id)
    assert job.result is not None
    assert job.result["switched"] is True, job.result
    await serves(leat, "partly", 2)
    assert any("edition of 1 " in text for text in await texts(leat, "partly", "edition of 1"))


async def test_every_question_during_switches_is_answered_from_exactly_one_generation(leat: Pipeline) -> None:
    await load(leat, "flipping", 8)
    begun = await reindex(leat, "flipping", chunk_tokens=40)
    assert (await finished(leat, begun.job_id)).status is JobStatus.COMPLETED
    held = {
        number: {
            row["text"]
            for row in await leat.resources.pool.fetch(
                "select text from passages where generation_id = $1", generation.generation_id
            )
        }
        for number, generation in ((1, begun.replaces), (2, begun.generation))
    }
    assert not held[1] & held[2]
    for turn in range(6):
        wanted = 2 - turn % 2
        switching = asyncio.create_task(leat.resources.generations.switch(TENANT, "flipping", wanted))
        of: list[int] = []
        while not (switching.done() and of == [wanted]):
            found = set(await texts(leat, "flipping", "the first edition tells of harbour 1"))
            assert found
            of = [number for number, all_texts in held.items() if found <= all_texts]
            assert len(of) == 1
        assert (await switching).serving == wanted


async def test_lost_index_is_rebuilt_from_the_log_and_the_cache(leat: Pipeline) -> None:
    await load(leat, "lost", 6)
    serving = await leat.resources.catalog.find(TENANT, "lost")
    assert serving is not None
    await leat.resources.index.delete_generation(serving.serving.space, serving.serving.generation_id)
    assert not await texts(leat, "lost", "edition of 3 tells of harbour")
    before = await spent(leat)
    job = await finished(leat, (await reindex(leat, "lost", {"switch": True})).job_id)
    assert job.result is not None
    assert job.result["switched"] is True
    await serves(leat, "lost", 2)
    assert any("edition of 3 " in text for text in await texts(leat, "lost", "edition of 3 tells of harbour"))
    assert await spent(leat) == before


async def test_whole_index_is_rebuilt_by_one_job_and_what_it_replaces_is_dropped(leat: Pipeline) -> None:
    await load(leat, "rebuilt", 6)
    before = await spent(leat)
    begun = await leat.resources.generations.begin(TENANT, "rebuilt", CollectionSettings(), REBUILD)
    job = await finished(leat, begun.job_id)
    assert job.result is not None
    assert (job.result["switched"], job.result["replaces"], job.result["generation"]) == (True, 1, 2)
    assert any("edition of 3 " in text for text in await texts(leat, "rebuilt", "edition of 3 tells of harbour"))

    async def dropped() -> bool:
        return await left_of(leat, Reindex(begun.replaces, begun.replaces, begun.job_id)) == (0, 0, 0)

    await eventually(dropped)
    assert await spent(leat) == before


async def test_replay_counts_first_and_changes_nothing_that_is_level(leat: Pipeline) -> None:
    await load(leat, "replayed", 10)
    before = await spent(leat)
    dry = await leat.resources.jobs.create(TENANT, "replayed", JobType.REPLAY, {"from": "earliest", "dry_run": True})
    counted = await finished(leat, dry.job_id)
    assert counted.result is not None
    assert (counted.result["documents"], counted.result["unknown_records"]) == (10, 0)
    real = await leat.resources.jobs.create(TENANT, "replayed", JobType.REPLAY, {"from": "earliest"})
    assert (await finished(leat, real.job_id)).status is JobStatus.COMPLETED
    await embedded(leat, "replayed", 10)
    assert await spent(leat) == before


async def test_replay_brings_back_documents_that_the_database_has_forgotten(leat: Pipeline) -> None:
    await load(leat, "restored", 4)
    async with leat.resources.pool.transaction() as connection:
        for table in ("passages", "manifests", "documents"):
            await connection.execute(
                f"delete from {table} where document_key in"
                " (select document_key from documents where collection = 'restored')"
            )
    job = await leat.resources.jobs.create(TENANT, "restored", JobType.REPLAY, {"from": "2020-01-01T00:00:00+00:00"})
    done = await finished(leat, job.job_id)
    assert done.result is not None
    assert done.result["unknown_records"] == 4
    await embedded(leat, "restored", 4)


async def test_job_goes_on_in_another_process_after_a_crash(services: Services, tmp_path: Path) -> None:
    async with prepared(services, tmp_path) as leat:
        stop = asyncio.Event()
        async with wired(tuple(role for role in PIPELINE if role != JOBS), leat.settings, stop):
            await load(leat, "crashed", 60)
            begun = await reindex(leat, "crashed", SWITCH, chunk_tokens=64)
            # Ends in the middle, at whichever step it is, three times; cancelled tasks say nothing to the database.
            for crashes in range(3):
                async with wired((JOBS,), leat.settings, stop):
                    await eventually(lambda crashes=crashes: _is_at_it(leat, begun, crashes))  # type: ignore[misc]
            async with wired((JOBS,), leat.settings, stop):
                job = await finished(leat, begun.job_id)
        assert job.status is JobStatus.COMPLETED
        assert job.retry_count >= 1
        assert job.result is not None
        assert job.result["switched"] is True, job.result
        assert (await leat.resources.generations.list_generations(TENANT, "crashed"))[1].documents == 60


async def _is_at_it(leat: Pipeline, begun: Reindex, crashes: int) -> bool:
    """The job has been taken up after so many crashes, and has made something of its generation."""
    job = await leat.resources.jobs.get(TENANT, begun.job_id)
    assert job is not None
    taken = job.status is JobStatus.PROCESSING and job.retry_count == crashes
    return job.status.is_final or (taken and (await left_of(leat, begun))[1] > 0)


async def test_generation_on_standby_gets_what_it_has_missed(services: Services, tmp_path: Path) -> None:
    async with pipeline(services, tmp_path) as leat:
        await load(leat, "missed", 5)
        begun = await reindex(leat, "missed", SWITCH, chunk_tokens=64)
        assert (await finished(leat, begun.job_id)).result["switched"] is True  # type: ignore[index]
        old = begun.replaces
        await leat.resources.pool.execute(
            "delete from passages where generation_id = $1 and document_key in"
            " (select document_key from documents where document_id = '2.md')",
            old.generation_id,
        )
        await leat.resources.pool.execute(
            "delete from manifests where generation_id = $1 and document_key in"
            " (select document_key from documents where document_id = '2.md')",
            old.generation_id,
        )
        with pytest.raises(GenerationRefused, match=r"1 documents .*2\.md"):
            await leat.resources.generations.switch(TENANT, "missed", 1)
        mender = a_mender(leat)

        async def back() -> Any:
            await mender.run()
            with suppress(GenerationRefused):
                return await leat.resources.generations.switch(TENANT, "missed", 1)

        await eventually(back)


async def test_text_before_an_unreadable_revision_gets_its_vector(leat: Pipeline) -> None:
    await load(leat, "vectorless", 2)
    pool = leat.resources.pool
    of_it = (
        "document_key in (select document_key from documents where collection = 'vectorless' and document_id = '1.md')"
    )
    await pool.execute(f"update passages set embedded = false where {of_it}")
    await pool.execute(f"update manifests set unembedded = passages, embedded_at = null where {of_it}")
    await publish(leat, "vectorless", {"1.md": ""})
    await unreadable(leat, "vectorless", "1.md")
    mender = a_mender(leat)

    async def level() -> bool:
        await mender.run()
        return not await pool.fetchval(f"select sum(unembedded) from manifests where {of_it}")

    await eventually(level)


async def unreadable(leat: Pipeline, collection: str, document_id: str) -> None:
    """Wait until the newest revision is known to be unreadable."""

    async def known() -> bool:
        statement = "select failed_revision is not null from documents where collection = $1 and document_id = $2"
        return bool(await leat.resources.pool.fetchval(statement, collection, document_id))

    await eventually(known)


def a_mender(leat: Pipeline) -> Mender:
    assert leat.wiring is not None
    parts = MenderParts(
        standing=leat.resources.generations.standing,
        build=leat.resources.build,
        log_reader=leat.resources.log_reader,
        epochs=leat.wiring.epochs,
        lag=leat.wiring.resources.lag.read,
    )
    return Mender(parts, outbox=leat.wiring.outbox)
