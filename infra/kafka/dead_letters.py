"""Looks at dead letters, and asks for one to be tried again."""

from collections.abc import Mapping
from typing import Any

from infra.kafka.log_reader import KafkaLogReader
from infra.kafka.producer import Outgoing, Producer
from schemas.headers import CONTENT_TYPE
from schemas.topics import DEAD_LETTERS, RETRIES, prefixed
from streams.errors import NotFound
from streams.records import Record
from streams.retry import RetryRequested


class KafkaDeadLetters:
    """The dead-letter topic by position, and the retries topic behind it."""

    def __init__(self, kwargs: Mapping[str, Any], prefix: str) -> None:
        self._reader = KafkaLogReader(kwargs, prefix)
        self._producer = Producer(kwargs)
        self._retries = prefixed(RETRIES.name, prefix)

    async def read(self, partition: int, offset: int) -> Record:
        """The letter with its original bytes; the cause is in its headers.

        Raises:
            NotFound: retention has removed it, or it never was.
        """
        letter = await self._reader.read(DEAD_LETTERS.name, partition, offset)
        if letter is None:
            raise NotFound(f"no dead letter {partition}-{offset}: wrong id, or older than the topic keeps")
        return letter

    async def retry(self, partition: int, offset: int) -> None:
        """Ask the pipeline to process a letter's record again, under its old revision: it never beats a newer one.

        Raises:
            NotFound: the letter is gone; publish the document again instead.
        """
        letter = await self.read(partition, offset)
        pointer = RetryRequested(letter_partition=partition, letter_offset=offset)
        value = pointer.model_dump_json().encode()
        await self._producer.send([Outgoing(self._retries, letter.key, value, {CONTENT_TYPE: "application/json"})])

    async def close(self) -> None:
        await self._producer.close()
        await self._reader.close()
