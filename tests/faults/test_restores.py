"""Something was restored from an old copy, or emptied (A19): it is noticed, and what is missing is driven again."""

import shutil
from collections.abc import AsyncIterator
from io import BytesIO

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from infra.kafka.admin import ensure_topics
from infra.local.kafka import LocalKafka
from infra.local.progress import Lines
from schemas.documents import Change
from schemas.topics import CHUNKS, DOCUMENTS, prefixed
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, listed
from tests.services import Services, tools_dir

pytestmark = pytest.mark.slow

REPAIRING = {
    "consumers.wiring.chunker:REDRIVE_EVERY_S": 1.0,
    "consumers.wiring.jobs:MEND_EVERY_S": 1.0,
    "consumers.maintenance:OVERDUE_S": 1.0,
    "consumers.reconciler:OVERDUE_VECTOR_S": 1.0,
}


@pytest_asyncio.fixture(loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Leat]:
    async with installation(services, tmp_path_factory.mktemp("restores")) as running:
        running.start("index")
        running.start("pipeline")
        await running.burst("before", 40)
        await running.settled()
        await running.kill("pipeline")
        yield running


async def healed(leat: Leat) -> None:
    async def whole() -> bool:
        return await leat.behind() == 0 and not await check(leat)

    try:
        await eventually(whole, within_s=90, what="health", pause_s=0.5)
    except AssertionError:
        raise AssertionError(listed(await check(leat))) from None


async def test_documents_that_a_restored_database_has_never_heard_of_come_back(leat: Leat) -> None:
    """What was accepted after the copy was made is gone from the database; committed offsets say that it was read."""
    for table in ("passages", "manifests", "documents"):
        await leat.pool.execute(
            f"delete from {table} where document_key in (select document_key from documents where document_key % 2 = 0)"
        )
    await leat.pool.execute("delete from garbage")
    assert await check(leat)
    leat.start("pipeline", tuning=REPAIRING)
    await healed(leat)


async def test_passages_that_retention_removed_before_they_were_indexed_are_cut_again(leat: Leat) -> None:
    leat.start("chunker", ("chunker",))
    await leat.burst("expired", 20)

    async def admitted() -> bool:
        newest = {entry.key.document_id: entry.revision for entry in leat.ledger.entries}
        rows = await leat.pool.fetch("select document_id, revision from documents")
        known = {row["document_id"]: row["revision"] for row in rows}
        return all(known.get(name, -1) >= revision for name, revision in newest.items())

    await eventually(admitted, what="admission")
    await leat.kill("chunker")
    await _empty(leat)
    leat.start("pipeline", tuning=REPAIRING)
    await healed(leat)


async def test_vectors_that_were_lost_on_the_way_are_computed_again(leat: Leat) -> None:
    await leat.pool.execute("delete from vector_cache")
    await leat.pool.execute("update passages set embedded = false")
    await leat.pool.execute("update manifests set unembedded = passages, searchable_at = now() - interval '1 hour'")
    leat.start("pipeline", tuning=REPAIRING)
    await healed(leat)


async def test_database_restored_from_an_old_copy_is_brought_level_with_the_log(leat: Leat) -> None:
    """Every table as it was; the offsets that were committed since say that all has been read."""
    copy = await _tables(leat)
    leat.start("pipeline")
    await leat.burst("after-the-copy", 40)
    await leat.settled()
    await leat.kill("pipeline")
    await _restore(leat, copy)
    assert await check(leat)
    leat.start("pipeline", tuning=REPAIRING)
    await healed(leat)


async def test_topic_that_was_deleted_and_made_again_begins_a_new_epoch(leat: Leat) -> None:
    """Its producers publish again what they have; their revisions are newer than everything before."""
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    names = sorted({key.document_id for key in leat.ledger.expected()})
    admin = AIOKafkaAdminClient(bootstrap_servers=leat.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])

        async def gone() -> bool:
            return topic not in await admin.list_topics()

        await eventually(gone, what="deleted topic")
    finally:
        await admin.close()
    await ensure_topics(leat.settings)
    leat.ledger.begin_anew(epoch=1)
    leat.start("pipeline", tuning=REPAIRING)
    await leat.changes([(name, Change.UPSERT, None, "Once more.") for name in names])
    await leat.burst("new-epoch", 40)
    await leat.settled()
    await healed(leat)
    assert leat.said("pipeline", "topic_recreated") == 1


async def test_broker_restored_from_an_old_copy_is_noticed_and_what_it_holds_is_served(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is the same topic, but offsets begin below what was applied: new records would pass for old ones."""
    folder = tmp_path_factory.mktemp("old-broker")
    kafka = LocalKafka(folder / "kafka", tools_dir(), log_dir=folder / "logs", progress=Lines())
    await kafka.start()
    try:
        async with installation(services, folder, kafka_bootstrap_servers=kafka.bootstrap_servers) as leat:
            leat.start("index")
            leat.start("pipeline")
            await leat.burst("before", 40)
            await leat.settled()
            await kafka.stop()
            shutil.copytree(folder / "kafka", folder / "copy")
            kept = list(leat.ledger.entries)
            await kafka.start()
            # The same documents: what the copy holds of them is older than what was applied.
            await leat.burst("before", 40)
            await leat.settled()
            await leat.kill("pipeline")
            await kafka.stop()
            shutil.rmtree(folder / "kafka")
            shutil.copytree(folder / "copy", folder / "kafka")
            await kafka.start()
            leat.ledger.begin_anew(epoch=1, kept=kept)
            leat.start("pipeline", tuning=REPAIRING)
            await eventually(lambda: leat.said("pipeline", "topic_recreated") == 1, what="notice of the old copy")
            await leat.burst("since", 40)
            await healed(leat)
    finally:
        await kafka.stop()


async def _tables(leat: Leat) -> dict[str, bytes]:
    """A dump of every table."""
    rows = await leat.pool.fetch("select tablename from pg_tables where schemaname = 'public'")
    copy = {}
    async with leat.pool.connection() as connection:
        for name in [row["tablename"] for row in rows]:
            buffer = BytesIO()
            await connection.copy_from_table(name, output=buffer, format="binary")
            copy[name] = buffer.getvalue()
    return copy


async def _restore(leat: Leat, copy: dict[str, bytes]) -> None:
    async with leat.pool.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(f"truncate {', '.join(copy)}")
        for name, content in copy.items():
            await connection.copy_to_table(name, source=BytesIO(content), format="binary")


async def _empty(leat: Leat) -> None:
    """What retention does, only sooner."""
    name = prefixed(CHUNKS.name, leat.settings.topic_prefix)
    ends = await leat.producer.partitions_for(name)
    admin = AIOKafkaAdminClient(bootstrap_servers=leat.settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(name, n): RecordsToDelete(before_offset=-1) for n in ends})
    finally:
        await admin.close()
