"""Everything that a stage publishes: sends are pipelined, and over when the brokers have acknowledged them all."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream.kafka import KafkaBroker

from schemas.base import Event
from schemas.topics import Topic, prefixed
from streams.errors import PermanentError, Unavailable


class Outbox:
    """Publishes with ``acks=all`` through the stage's idempotent producer."""

    def __init__(self, broker: KafkaBroker, *, prefix: str) -> None:
        self._broker = broker
        self._prefix = prefix

    @asynccontextmanager
    async def sending(self) -> AsyncIterator["Sending"]:
        """Collect sends; leaving the block waits for every acknowledgement.

        Raises:
            Unavailable: one was not acknowledged. Send everything again: consumers bear repetitions.
        """
        sending = Sending(self._broker, self._prefix)
        try:
            yield sending
        except BaseException:
            await asyncio.gather(*sending.pending, return_exceptions=True)
            raise
        for result in await asyncio.gather(*sending.pending, return_exceptions=True):
            if isinstance(result, BaseException):
                raise Unavailable("kafka", f"{type(result).__name__}: {result}") from result


class Sending:
    """Sends under way."""

    def __init__(self, broker: KafkaBroker, prefix: str) -> None:
        self._broker = broker
        self._prefix = prefix
        self.pending: list[asyncio.Future[Any]] = []

    async def event(self, topic: Topic, event: Event, *, key: bytes, partition: int | None = None) -> None:
        """Send an event. Derived topics copy the partition of the document record, so that order is kept."""
        value = event.model_dump_json(exclude_none=True).encode()
        await self.raw(topic, key=key, value=value, partition=partition)

    async def raw(
        self,
        topic: Topic,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send bytes.

        Raises:
            PermanentError: ``record-too-large``; retrying cannot help.
            Unavailable: the brokers do not answer.
        """
        try:
            future = await self._broker.publish(
                value,
                topic=prefixed(topic.name, self._prefix),
                key=key,
                partition=partition,
                headers=dict(headers or {}),
                no_confirm=True,
            )
        except MessageSizeTooLargeError as error:
            raise PermanentError("record-too-large", f"{topic.name}: {error}") from error
        except KafkaError as error:
            raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
        self.pending.append(future)
