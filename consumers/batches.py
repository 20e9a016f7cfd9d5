"""Kafka's side of a delivery: records as they were fetched, offsets that are committed, partitions that are paused."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from streams.errors import Unavailable
from streams.records import Record

log = logging.getLogger(__name__)


class Batch:
    """Records as they came, and the consumer that fetched them."""

    def __init__(self, raw: Sequence[ConsumerRecord], consumer: Any) -> None:
        self._raw = raw
        self._consumer = consumer
        self._first: dict[TopicPartition, int] = {}
        self._behind: dict[TopicPartition, int] = {}
        for record in raw:
            partition = TopicPartition(record.topic, record.partition)
            self._first.setdefault(partition, record.offset)
            self._behind[partition] = record.offset + 1

    def records(self, topic: str) -> list[Record]:
        """In the order in which they came, under the topic's own name, which has no prefix."""
        return [_record(raw, topic) for raw in self._raw]

    async def commit(self, holding: Mapping[int, int]) -> None:
        """Commit what is finished without a gap: up to the lowest offset that is still held, per partition.

        Partitions that were taken away meanwhile belong to another member, who repeats the work.
        """
        offsets = {tp: min(offset, holding.get(tp.partition, offset)) for tp, offset in self._behind.items()}
        await commit_offsets(self._consumer, offsets)

    async def commit_at(self, offsets: Mapping[int, int]) -> None:
        """Commit exactly these offsets, for partitions of the batch."""
        offsets = {tp: offsets[tp.partition] for tp in self._behind if tp.partition in offsets}
        await commit_offsets(self._consumer, offsets)

    def behind(self) -> dict[int, int]:
        """The offset behind the batch, per partition that is still ours."""
        mine = self._consumer.assignment()
        return {tp.partition: offset for tp, offset in self._behind.items() if tp in mine}

    def pause_and_rewind(self) -> None:
        """Have the batch come again, once its partitions are resumed."""
        mine = [tp for tp in self._first if tp in self._consumer.assignment()]
        if mine:
            self._consumer.pause(*mine)
        for tp in mine:
            self._consumer.seek(tp, self._first[tp])

    async def resume_after(self, hold_s: float) -> None:
        """Resume the partitions that are still ours by then."""
        await asyncio.sleep(hold_s)
        mine = [tp for tp in self._first if tp in self._consumer.assignment()]
        if mine:
            self._consumer.resume(*mine)


async def commit_offsets(consumer: Any, offsets: Mapping[TopicPartition, int]) -> None:
    """Commit offsets of partitions that are ours; those that were taken away belong to another member.

    Raises:
        Unavailable: the brokers do not answer.
    """
    mine = {tp: offset for tp, offset in offsets.items() if tp in consumer.assignment()}
    if not mine:
        return
    try:
        await consumer.commit(mine)
    except (CommitFailedError, IllegalStateError) as error:
        log.warning("commit_refused", extra={"cause": type(error).__name__})
    except KafkaError as error:
        raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error


def _record(raw: ConsumerRecord, topic: str) -> Record:
    return Record(
        topic=topic,
        partition=raw.partition,
        offset=raw.offset,
        accepted_at=datetime.fromtimestamp(raw.timestamp / 1000, UTC),
        key=raw.key,
        value=raw.value,
        headers=tuple(raw.headers),
    )
