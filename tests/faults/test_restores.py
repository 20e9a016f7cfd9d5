"""Something was restored from an old copy, or emptied (A19): it is noticed, and what is missing is driven again."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.topics import CHUNKS, prefixed
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, listed
from tests.services import Services

pytestmark = pytest.mark.slow

REPAIRING = {
    "consumers.app:REDRIVE_EVERY_S": 1.0,
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
