"""Topics are created as declared, verified when they exist, and noticed when they were made anew."""

import asyncio

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.kafka.admin import TopicsRefused, ensure_topics
from infra.kafka.connection import connection_kwargs
from infra.kafka.epochs import current_epoch
from infra.kafka.topic_ids import topic_id
from infra.postgres.migrate import migrate
from infra.postgres.pool import open_pool
from schemas.topics import DEAD_LETTERS, DOCUMENTS, TOPICS, prefixed
from tests.services import Services


async def test_missing_topics_are_created_once_as_declared(services: Services) -> None:
    settings = services.settings()
    created = await ensure_topics(settings)
    assert sorted(created) == sorted(prefixed(topic.name, settings.topic_prefix) for topic in TOPICS)
    assert await ensure_topics(settings) == []


async def test_a_topic_with_another_cleanup_policy_is_refused_with_the_way_out(services: Services) -> None:
    settings = services.settings()
    name = prefixed(DOCUMENTS.name, settings.topic_prefix)
    await _create(settings, NewTopic(name, settings.partitions, 1, topic_configs={"cleanup.policy": "delete"}))
    with pytest.raises(TopicsRefused, match=f"topic '{name}' has cleanup.policy 'delete', want 'compact'"):
        await ensure_topics(settings)


async def test_another_number_of_partitions_is_refused(services: Services) -> None:
    settings = services.settings()
    await ensure_topics(settings)
    more = services.settings(topic_prefix=settings.topic_prefix, partitions=settings.partitions + 1)
    with pytest.raises(TopicsRefused, match="has 3 partitions, want 4"):
        await ensure_topics(more)


async def test_more_room_and_longer_retention_than_declared_are_accepted(services: Services) -> None:
    settings = services.settings()
    name = prefixed(DEAD_LETTERS.name, settings.topic_prefix)
    generous = DEAD_LETTERS.config() | {"retention.ms": "-1", "max.message.bytes": "9000000"}
    await _create(settings, NewTopic(name, settings.partitions, 1, topic_configs=generous))
    assert name not in await ensure_topics(settings)


async def test_a_recreated_documents_topic_begins_a_new_epoch(services: Services) -> None:
    settings = services.settings(postgres_dsn=await services.new_database())
    assert settings.postgres_dsn
    await migrate(settings.postgres_dsn)
    await ensure_topics(settings)
    name = prefixed(DOCUMENTS.name, settings.topic_prefix)
    async with await open_pool(settings.postgres_dsn, 2) as pool:
        assert await current_epoch(settings, pool) == 0
        assert await current_epoch(settings, pool) == 0
        old_id = await topic_id(connection_kwargs(settings), name)
        await _recreate(settings, name)
        assert await topic_id(connection_kwargs(settings), name) != old_id
        assert await current_epoch(settings, pool) == 1
        assert await current_epoch(settings, pool) == 1


async def test_without_topic_ids_an_end_below_the_applied_offset_begins_a_new_epoch(services: Services) -> None:
    settings = services.settings(postgres_dsn=await services.new_database())
    assert settings.postgres_dsn
    await migrate(settings.postgres_dsn)
    await ensure_topics(settings)
    name = prefixed(DOCUMENTS.name, settings.topic_prefix)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await connection.execute("insert into log_epochs (topic, epoch, topic_uuid) values ($1, 0, 'unknown')", name)
    await connection.execute(
        "insert into documents (tenant, collection, document_id, revision, change, deleted, access_level, epoch,"
        " partition, record_offset, event_id, accepted_at, lane)"
        " values ('default', 'default', 'a.md', 7, 'upsert', false, 0, 0, 1, 7, 'e', now(), 'interactive')"
    )
    await connection.close()
    async with await open_pool(settings.postgres_dsn, 2) as pool:
        assert await current_epoch(settings, pool) == 1


async def _create(settings: object, topic: NewTopic) -> None:
    admin = AIOKafkaAdminClient(**connection_kwargs(settings))  # type: ignore[arg-type]
    await admin.start()
    await admin.create_topics([topic])
    await admin.close()


async def _recreate(settings: object, name: str) -> None:
    admin = AIOKafkaAdminClient(**connection_kwargs(settings))  # type: ignore[arg-type]
    await admin.start()
    await admin.delete_topics([name])
    await admin.close()
    async with asyncio.timeout(60):
        while await topic_id(connection_kwargs(settings), name) is not None:  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
    await ensure_topics(settings)  # type: ignore[arg-type]
