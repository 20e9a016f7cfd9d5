"""The documents topic, as its own producers see it."""

from collections.abc import Mapping, Sequence
from typing import Any

from infra.kafka.producer import Appended, Outgoing, Producer
from schemas.documents import DocumentChanged, DocumentKey
from schemas.headers import CONTENT_TYPE, LANE
from schemas.pipeline import Lane
from schemas.positions import Position
from schemas.topics import DOCUMENTS, prefixed
from streams.crash import passing


class KafkaChangeLog:
    """``ChangeLog`` on Kafka. A change is accepted when its position is returned, and not before."""

    def __init__(self, kwargs: Mapping[str, Any], prefix: str, *, epoch: int = 0) -> None:
        """``kwargs`` as of ``connection_kwargs``; ``epoch`` as of ``current_epoch``."""
        self._producer = Producer(kwargs)
        self._topic = prefixed(DOCUMENTS.name, prefix)
        self._epoch = epoch

    async def publish(self, key: DocumentKey, change: DocumentChanged | None, *, bulk: bool = False) -> Position:
        """Append one change. After ``Unavailable`` it may be in the log or not; publishing it again is right."""
        passing("log-sending")
        [appended] = await self._producer.send([self._outgoing(key, change, bulk)])
        passing("log-acknowledged")
        return self._position(key, appended)

    async def publish_many(
        self, changes: Sequence[tuple[DocumentKey, DocumentChanged]], *, bulk: bool = False
    ) -> list[Position]:
        """Append changes; those of one document in their order. Positions in the order of the changes."""
        appended = await self._producer.send([self._outgoing(key, change, bulk) for key, change in changes])
        return [self._position(key, at) for (key, _), at in zip(changes, appended, strict=True)]

    async def close(self) -> None:
        await self._producer.close()

    def _outgoing(self, key: DocumentKey, change: DocumentChanged | None, bulk: bool) -> Outgoing:
        headers = {LANE: Lane.BULK.value} if bulk else {}
        if change is None:
            return Outgoing(self._topic, key.encode(), None, headers)
        value = change.model_dump_json(exclude_none=True).encode()
        return Outgoing(self._topic, key.encode(), value, headers | {CONTENT_TYPE: "application/json"})

    def _position(self, key: DocumentKey, appended: Appended) -> Position:
        return Position(self._epoch, appended.partition, appended.offset, key)
