"""How FastStream is told to read a topic: from its beginning, in batches, committing nothing by itself."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from faststream.kafka import KafkaRouter
from faststream.kafka.message import KafkaMessage
from faststream.middlewares import AckPolicy

from consumers.batches import Batch

POLL_MS = 200
"""How long to wait for records at a time; when some come they are taken at once."""


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What every consumer of ours sets explicitly, since the defaults lose or repeat work."""

    prefix: str
    group_instance_id: str | None
    session_timeout_ms: int
    max_poll_interval_ms: int


def subscribe_to_batches(
    router: KafkaRouter,
    topic: str,
    on_batch: Callable[[Batch], Awaitable[None]],
    *,
    group_id: str,
    group_instance_id: str | None,
    max_records: int,
    settings: ConsumerSettings,
    on_assigned: Callable[[frozenset[int]], None],
) -> Any:
    """FastStream's subscriber to a topic; ``on_assigned`` hears which partitions begin again at committed offsets."""
    subscriber = router.subscriber(
        topic,
        batch=True,
        group_id=group_id,
        group_instance_id=group_instance_id,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=max(200, settings.session_timeout_ms // 3),
        max_poll_interval_ms=settings.max_poll_interval_ms,
        max_records=max_records,
        fetch_max_wait_ms=500,
        parser=_keep_raw,
        decoder=_as_batch,
        listener=_Assignments(on_assigned),
    )
    subscriber(on_batch)
    subscriber.get_msg = partial(_next_records, max_records=max_records)  # type: ignore[method-assign]
    return subscriber


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a handler with memory that partitions begin again at their committed offsets."""

    def __init__(self, on_assigned: Callable[[frozenset[int]], None]) -> None:
        self._on_assigned = on_assigned

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        pass

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._on_assigned(frozenset(tp.partition for tp in assigned))


async def _next_records(consumer: AIOKafkaConsumer, *, max_records: int) -> tuple[ConsumerRecord, ...]:
    """Wait for records, and take what is there. FastStream's own (0.7.8) sleeps after an empty poll for as long as it
    has polled, so that every second record waits for the end of a sleep; it can go when that has.
    """
    found = await consumer.getmany(timeout_ms=POLL_MS, max_records=max_records)
    return tuple(chain.from_iterable(found.values()))


async def _keep_raw(raw: tuple[ConsumerRecord, ...], default: Callable[[Any], Awaitable[KafkaMessage]]) -> KafkaMessage:
    """FastStream's own parser decodes headers and raises on a null or non-UTF-8 one; the record would be skipped."""
    message = await default(tuple(replace(record, headers=()) for record in raw))
    message.raw_message = raw
    return message


async def _as_batch(message: KafkaMessage) -> Batch:
    return Batch(tuple(message.raw_message), message.consumer)
