"""Reads log, database and index, and compares them: ``leat verify``."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from infra.index import Index, make_index
from infra.kafka.connection import connection_kwargs
from infra.kafka.epochs import current_epoch
from infra.kafka.log_reader import as_record
from infra.kafka.partitioning import home_partition
from infra.postgres.pool import Pool, Row, open_pool
from infra.settings import Settings
from schemas.documents import DocumentKey
from schemas.topics import DOCUMENTS, prefixed
from streams.errors import PermanentError, Unavailable
from streams.model import Ordering
from streams.verify import Drift, Fold, ServedDocument, compare_documents, compare_points, in_step, lasting

# While changes flow, a look at three stores is never of one moment: only what differs in every round is drift.
ROUNDS = 5
PAUSE_S = 1.0
_SCROLL = 10_000

_SERVED = """
with standing as (
    select document_key, generation_id, count(*) as passages, count(*) - count(distinct ordinal) as repeated
    from passages group by document_key, generation_id)
select d.tenant, d.collection, d.document_id, d.deleted,
       coalesce(m.applied_revision, -1) as applied_revision,
       coalesce(d.failed_revision, -1) as failed_revision,
       case when m.applied_revision > d.invisible_upto then coalesce(s.passages, 0) else 0 end as visible_passages,
       coalesce(m.passages, 0) as manifest_passages,
       coalesce(s.repeated, 0) as repeated_passages
from documents d
join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests m on m.document_key = d.document_key and m.generation_id = g.generation_id
left join standing s on s.document_key = d.document_key and s.generation_id = g.generation_id
"""
_SPACES = """
select generation_id, 'leat-' || embedding_fingerprint || '-' || dimensions as space
from generations where state <> 'retired' order by generation_id
"""


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``leat verify`` says."""

    in_log: int
    """Live documents that the log holds."""
    in_index: int
    """Those of them that the index serves at the log's revision."""
    failed: int
    """Those whose newest revision could not be read; each has a dead letter."""
    passages: int
    points: int
    drift: list[Drift]
    checked_at: datetime

    @property
    def ok(self) -> bool:
        return not self.drift


async def verify(settings: Settings) -> Verification:
    """Compare the whole log with the whole index.

    Raises:
        Unavailable: the brokers, the database or the index do not answer.
        PermanentError: the settings do not say where they are.
    """
    if not settings.postgres_dsn:
        raise PermanentError("postgres-not-configured", "give LEAT_POSTGRES_DSN, or start everything with `leat up`")
    index = make_index(settings)
    try:
        async with await open_pool(settings.postgres_dsn, 2, application="leat-verify") as database:
            rounds: list[list[Drift]] = []
            for number in range(ROUNDS):
                found = await _look(settings, database, index)
                rounds.append(found.drift)
                if found.ok:
                    return found
                if number + 1 < ROUNDS:
                    await asyncio.sleep(PAUSE_S)
            return Verification(
                found.in_log,
                found.in_index,
                found.failed,
                found.passages,
                found.points,
                lasting(rounds),
                found.checked_at,
            )
    finally:
        await index.close()


async def _look(settings: Settings, database: Pool, index: Index) -> Verification:
    """One round. The log is read first: what it holds should have arrived by the time that we look further."""
    fold = await _fold(settings, database)
    served = {
        DocumentKey(row["tenant"], row["collection"], row["document_id"]): _served(row)
        for row in await database.fetch(_SERVED)
    }
    drift = list(compare_documents(fold.documents, served))
    passages_seen = points_seen = 0
    for row in await database.fetch(_SPACES):
        passages, garbage = await _passages(database, row["generation_id"])
        points = await _points(index, row["space"], row["generation_id"])
        drift += compare_points(passages, points, garbage=garbage)
        passages_seen += len(passages)
        points_seen += len(points)
    in_log, in_index, failed = in_step(fold.documents, served)
    return Verification(in_log, in_index, failed, passages_seen, points_seen, drift, datetime.now(UTC))


def _served(row: Row) -> ServedDocument:
    return ServedDocument(
        deleted=row["deleted"],
        applied_revision=row["applied_revision"],
        failed_revision=row["failed_revision"],
        visible_passages=row["visible_passages"],
        manifest_passages=row["manifest_passages"],
        repeated_passages=row["repeated_passages"],
    )


async def _passages(database: Pool, generation_id: int) -> tuple[dict[UUID, bool], frozenset[UUID]]:
    rows = await database.fetch("select point_id, embedded from passages where generation_id = $1", generation_id)
    garbage = await database.fetch("select point_id from garbage")
    return {row["point_id"]: row["embedded"] for row in rows}, frozenset(row["point_id"] for row in garbage)


async def _points(index: Index, space: str, generation_id: int) -> Mapping[UUID, bool]:
    points: dict[UUID, bool] = {}
    after: UUID | None = None
    while True:
        page = await index.scroll(space, generation_id, after=after, limit=_SCROLL)
        points.update(page)
        if len(page) < _SCROLL:
            return points
        after = page[-1][0]


async def _fold(settings: Settings, database: Pool) -> Fold:
    """Read the documents topic from its beginning to its present end."""
    rows = await database.fetch("select tenant, collection, ordering from collections")
    epoch = await current_epoch(settings, database)
    ends = await database.fetch("select * from collection_ends where epoch = $1", epoch)
    fold = Fold(
        orderings={(row["tenant"], row["collection"]): Ordering(row["ordering"]) for row in rows},
        epoch=epoch,
        ends={(row["tenant"], row["collection"], row["partition"]): row["ends_at"] for row in ends},
    )
    topic = prefixed(DOCUMENTS.name, settings.topic_prefix)
    consumer = AIOKafkaConsumer(
        topic,
        **connection_kwargs(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=2000,
    )
    try:
        await consumer.start()
        try:
            await _read_to_the_end(consumer, topic, fold)
        finally:
            await consumer.stop()
    except (KafkaError, OSError) as error:
        raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
    return fold


async def _read_to_the_end(consumer: AIOKafkaConsumer, topic: str, fold: Fold) -> None:
    # Without a group a consumer that has started has all partitions of its topic.
    partitions = sorted(consumer.assignment())
    count = len(partitions)
    if not count:
        raise Unavailable("kafka", f"topic '{topic}' does not exist: start Leat once, it creates its topics")
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    unread = {partition for partition in partitions if await consumer.position(partition) < ends[partition]}
    while unread:
        for partition, records in (await consumer.getmany(*unread, timeout_ms=500)).items():
            for found in records:
                if found.key is not None and found.offset < ends[partition]:
                    fold.add(as_record(found, DOCUMENTS.name), home=home_partition(found.key, count))
        # Compaction leaves holes, so the position tells when the end is reached, not the offsets.
        unread = {partition for partition in unread if await consumer.position(partition) < ends[partition]}
