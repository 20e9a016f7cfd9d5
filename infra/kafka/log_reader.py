"""Reads single records back from the log."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import prefixed
from streams.errors import Unavailable
from streams.records import Record

_READ_TIMEOUT_S = 10.0


class KafkaLogReader:
    """``LogReader`` on Kafka: one consumer without a group, one read at a time."""

    def __init__(self, kwargs: Mapping[str, Any], prefix: str) -> None:
        self._kwargs = dict(kwargs)
        self._prefix = prefix
        self._one_at_a_time = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at that position of a topic (named without prefix); None when it is not in the log any more."""
        place = TopicPartition(prefixed(topic, self._prefix), partition)
        async with self._one_at_a_time:
            try:
                consumer = await self._open()
                found = await asyncio.wait_for(_read(consumer, place, offset), _READ_TIMEOUT_S)
            except (KafkaError, OSError, TimeoutError) as error:
                await self._close()
                raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
        return None if found is None else as_record(found, topic)

    async def close(self) -> None:
        async with self._one_at_a_time:
            await self._close()

    async def _open(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(**self._kwargs, enable_auto_commit=False, auto_offset_reset="none")
            await consumer.start()
            self._consumer = consumer
        return self._consumer

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> ConsumerRecord[Any, Any] | None:
    consumer.assign([place])
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    if not first <= offset < end:
        return None
    consumer.seek(place, offset)
    # Where compaction removed the record, the next one comes.
    found = await consumer.getone(place)
    return found if found.offset == offset else None


def as_record(found: ConsumerRecord[Any, Any], topic: str) -> Record:
    """A consumed record as plain values, under its topic's name without prefix."""
    return Record(
        topic=topic,
        partition=found.partition,
        offset=found.offset,
        accepted_at=datetime.fromtimestamp(found.timestamp / 1000, UTC),
        key=found.key,
        value=found.value,
        headers=tuple((name, value) for name, value in found.headers),
    )
