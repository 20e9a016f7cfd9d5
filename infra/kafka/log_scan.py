"""Reads a topic from somewhere to somewhere, beside the consumer groups."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.kafka.connection import connection_kwargs
from infra.kafka.log_reader import as_record
from infra.settings import Settings
from schemas.topics import DOCUMENTS, Topic, prefixed
from streams.backfill import Offsets, Scanned
from streams.errors import Unavailable

T = TypeVar("T")

RECORDS_AT_ONCE = 200
POLL_MS = 500


class KafkaLogScanner:
    """``LogScanner``; every call has a consumer of its own, without a group."""

    def __init__(self, settings: Settings, topic: Topic = DOCUMENTS) -> None:
        self._kwargs = connection_kwargs(settings)
        self._name = topic.name
        self._topic = prefixed(topic.name, settings.topic_prefix)

    async def ends(self) -> dict[int, int]:
        return await self._ask(lambda consumer: consumer.end_offsets(_all(consumer)))

    async def beginnings(self) -> dict[int, int]:
        return await self._ask(lambda consumer: consumer.beginning_offsets(_all(consumer)))

    async def at_time(self, at: datetime) -> dict[int, int]:
        """Raises ``Unavailable``: the brokers do not answer."""
        timestamp = int(at.timestamp() * 1000)
        async with self._consumer() as consumer:
            partitions = _all(consumer)
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, timestamp))
            ends = await consumer.end_offsets(partitions)
            return {p.partition: ends[p] if found.get(p) is None else found[p].offset for p in partitions}

    async def scan(self, positions: Offsets, ends: Offsets) -> AsyncIterator[Scanned]:
        """Raises ``Unavailable``: the brokers do not answer. Go on from the last positions."""
        async with self._consumer() as consumer:
            places = _all(consumer)
            # Retention may have moved the beginning on.
            first = await consumer.beginning_offsets(places)
            for place in places:
                consumer.seek(place, max(first[place], positions.get(place.partition, 0)))
            unread = [p for p in places if max(first[p], positions.get(p.partition, 0)) < ends.get(p.partition, 0)]
            at = {**positions}
            while unread:
                found = await consumer.getmany(*unread, timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
                records = [
                    as_record(raw, self._name)
                    for place, raws in found.items()
                    for raw in raws
                    if raw.offset < ends[place.partition]
                ]
                # Compaction leaves holes, so the position tells when the end is reached, not the offsets.
                for place in unread:
                    at[place.partition] = await consumer.position(place)
                unread = [place for place in unread if at[place.partition] < ends[place.partition]]
                yield Scanned(records, dict(at))

    async def _ask(self, question: Callable[[AIOKafkaConsumer], Awaitable[Mapping[Any, int]]]) -> dict[int, int]:
        async with self._consumer() as consumer:
            return {place.partition: offset for place, offset in (await question(consumer)).items()}

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(self._topic, **self._kwargs, enable_auto_commit=False, auto_offset_reset="earliest")
        try:
            await consumer.start()
            if not consumer.assignment():
                raise Unavailable(
                    "kafka", f"topic '{self._topic}' does not exist: start Leat once, it creates its topics"
                )
            yield consumer
        except (KafkaError, OSError) as error:
            raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
        finally:
            await consumer.stop()


def _all(consumer: AIOKafkaConsumer) -> list[TopicPartition]:
    """Without a group a consumer that has started has all partitions of its topic."""
    return sorted(consumer.assignment())
