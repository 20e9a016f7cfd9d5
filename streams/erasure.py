"""Forget a document altogether: what is removed, by whom, and what remains in the log until when."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from schemas.documents import DocumentKey
from schemas.topics import ANSWERS, CHUNKS, DAY_MS, DEAD_LETTERS, DOCUMENTS, Topic
from streams.decode import decode
from streams.errors import InvalidRecord
from streams.model import Ordering
from streams.records import Record

# A record leaves when its segment has been closed (a day at most) and compaction or retention has come by.
_SEGMENT = timedelta(milliseconds=DAY_MS)


@dataclass(frozen=True, slots=True)
class Erasure:
    """A document that somebody wants forgotten."""

    key: DocumentKey
    requested_by: str
    requested_at: datetime
    content_hashes: Sequence[bytes] = ()
    position: tuple[int, int, int] | None = None
    """Epoch, partition and offset of its deletion."""
    removed: Mapping[str, int] = field(default_factory=dict)
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Remnant:
    """What the log still holds, and until when at the latest by its settings."""

    topic: str
    what: str
    until: datetime


class ErasureDesk(Protocol):
    """Erasures for people."""

    async def request(self, key: DocumentKey, *, by: str) -> Erasure:
        """Have a document forgotten. Asked again, it is done again: an answer may have been on its way."""
        ...

    async def find(self, key: DocumentKey) -> Erasure | None: ...


class ErasureStore(Protocol):
    """What the tables hold of a document, for whoever removes it."""

    async def open_erasures(self, *, limit: int) -> Sequence[Erasure]: ...

    async def ordering_of(self, key: DocumentKey) -> tuple[Ordering, int]:
        """How its collection orders changes, and the newest revision known (-1: none)."""
        ...

    async def published(self, erasure: Erasure, *, epoch: int, partition: int, offset: int) -> None: ...

    async def has_taken_effect(self, erasure: Erasure) -> bool:
        """Whether the deletion is applied in every live generation."""
        ...

    async def remove(self, erasure: Erasure) -> tuple[Mapping[str, int], Sequence[str]]:
        """Remove all that the tables hold of it; how much of what, and the ids of the questions whose answers went."""
        ...

    async def finish(self, erasure: Erasure, removed: Mapping[str, int]) -> None: ...


class BlobsOf:
    """Which blobs hold content of one document only, found by reading the log."""

    def __init__(self, key: DocumentKey) -> None:
        self._key = key
        self._its: set[str] = set()
        self._others: set[str] = set()

    def look_at(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.value is None or b"content_reference" not in record.value:
                continue
            try:
                incoming = decode(record)
            except InvalidRecord:
                continue
            reference = incoming.changed.content_reference
            if reference is not None and incoming.key.tenant == self._key.tenant:
                (self._its if incoming.key == self._key else self._others).add(reference.sha256)

    def alone(self) -> frozenset[str]:
        return frozenset(self._its - self._others)


def remnants(erased_at: datetime) -> list[Remnant]:
    """What the log keeps of a document after its erasure; nothing of it can be searched, asked for or replayed."""
    kept: list[tuple[Topic, str]] = [
        (DOCUMENTS, "its earlier records, until they are compacted away behind its deletion"),
        (CHUNKS, "its passages and vectors on their way through the pipeline, also in the bulk lane's topics"),
        (ANSWERS, "answers that cited it, if there were any, and the questions they answered"),
        (DEAD_LETTERS, "its records that could not be processed, if there were any"),
    ]
    return [
        Remnant(topic.name, what, erased_at + timedelta(milliseconds=topic.retention_ms) + _SEGMENT)
        for topic, what in kept
    ]
