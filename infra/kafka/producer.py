"""One idempotent producer, opened when first used, opened again after an error that it cannot recover from."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    RecordListTooLargeError,
    UnknownProducerId,
)

from infra.kafka.connection import obstacle
from schemas.topics import DEAD_LETTERS
from streams.errors import PermanentError, Unavailable

log = logging.getLogger(__name__)

DEPENDENCY = "kafka"
# After this long without an acknowledgement we look whether the brokers are there at all; a client that gets 503 within
# a second can decide, one that waits for a timeout cannot.
PATIENCE_S = 0.7
# With brokers that answer, an acknowledgement may take this long: a busy disk, an election.
ACK_TIMEOUT_S = 10.0
# A producer never recovers from these (aiokafka #1017): its sequence numbers and the broker's differ for good.
_BROKEN = (
    OutOfOrderSequenceNumber,
    DuplicateSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    ProducerFenced,
    ProducerClosed,
)
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to publish. Without a partition, the key's home partition (murmur2)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a record was acknowledged."""

    partition: int
    offset: int


class Producer:
    """Publishes with ``acks=all``. After ``Unavailable`` a record may have been appended or not: publish it again."""

    def __init__(self, kwargs: Mapping[str, Any]) -> None:
        self._kwargs = dict(kwargs)
        self._opening = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None

    async def send(self, records: Sequence[Outgoing]) -> list[Appended]:
        """Append records, pipelined; in order per partition. Returns when all are acknowledged.

        Raises:
            PermanentError: ``record-too-large``; retrying cannot help.
            Unavailable: not acknowledged; within a second when no broker answers or a topic is missing.
        """
        sending = asyncio.ensure_future(self._send(records))
        try:
            done, _ = await asyncio.wait({sending}, timeout=PATIENCE_S)
            topics = {record.topic for record in records}
            if not done and (why := await obstacle(self._kwargs, topics, timeout_ms=200)):
                raise Unavailable(DEPENDENCY, why)
            # The limit grows with the amount: a megabyte a second is what a very slow disk takes.
            limit_s = ACK_TIMEOUT_S + sum(len(record.value or b"") for record in records) / 1e6
            return await asyncio.wait_for(asyncio.shield(sending), limit_s)
        except TimeoutError as error:
            raise Unavailable(DEPENDENCY, "the brokers answer, but acknowledge nothing") from error
        finally:
            if not sending.done():
                sending.cancel()
                with suppress(asyncio.CancelledError, Unavailable, PermanentError):
                    await sending

    async def close(self) -> None:
        """Send what is still pending, for at most 3 s."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _close(producer)

    async def _send(self, records: Sequence[Outgoing]) -> list[Appended]:
        try:
            producer = await self._open()
            pending = [await _append(producer, record) for record in records]
            results = await asyncio.gather(*pending, return_exceptions=True)
        except (KafkaError, OSError) as error:
            raise (await self._translated(error)) from error
        appended = []
        for result in results:
            if isinstance(result, BaseException):
                raise await self._translated(result)
            appended.append(Appended(result.partition, result.offset))
        return appended

    async def _translated(self, error: BaseException) -> BaseException:
        """Our error for one of the client's, chained; others as they are."""
        ours: BaseException
        if isinstance(error, _TOO_LARGE):
            ours = PermanentError("record-too-large", str(error))
        elif isinstance(error, _BROKEN):
            await self._discard(error)
            ours = Unavailable(DEPENDENCY, f"{type(error).__name__}; the producer starts anew", retry_after_s=1.0)
        elif isinstance(error, (KafkaError, OSError)):
            ours = Unavailable(DEPENDENCY, f"{type(error).__name__}: {error}")
        else:
            return error
        ours.__cause__ = error
        return ours

    async def _open(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._kwargs,
                    acks="all",
                    enable_idempotence=True,
                    # aiokafka compresses lz4 at level 9: 50 MB/s, a second and more of a first load. zstd at its
                    # level 3 does 225 MB/s, and makes 3.6 of text where lz4 makes 2.6.
                    compression_type="zstd",
                    max_batch_size=256 * 1024,
                    max_request_size=DEAD_LETTERS.max_record_bytes,
                    request_timeout_ms=10_000,
                    retry_backoff_ms=50,
                )
                try:
                    await producer.start()
                except BaseException:
                    await _close(producer)
                    raise
                self._producer = producer
            return self._producer

    async def _discard(self, error: BaseException) -> None:
        log.warning("producer_recreated", extra={"cause": type(error).__name__})
        await self.close()


async def _append(producer: AIOKafkaProducer, record: Outgoing) -> "asyncio.Future[Any]":
    headers = [(name, value.encode()) for name, value in record.headers.items()]
    future: asyncio.Future[Any] = await producer.send(
        record.topic, record.value, record.key, partition=record.partition, headers=headers
    )
    return future


async def _close(producer: AIOKafkaProducer) -> None:
    with suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), 3.0)
