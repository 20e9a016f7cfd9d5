"""Fill a generation from the log: which records go down the bulk lane once more, for this generation alone."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.documents import Change, DocumentKey
from schemas.pipeline import BulkForwarded, Lane, Origin
from streams.decode import decode
from streams.errors import InvalidRecord
from streams.generations import BackfillItem
from streams.records import Record

Offsets = Mapping[int, int]
"""Partition to offset."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """A stretch of the log."""

    records: Sequence[Record]
    positions: Offsets
    """Where reading goes on behind it, of every partition."""


class LogScanner(Protocol):
    """Reads the documents topic from somewhere to somewhere, beside the consumer groups."""

    async def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition."""
        ...

    async def beginnings(self) -> dict[int, int]: ...

    async def at_time(self, at: datetime) -> dict[int, int]:
        """The first offset of each partition whose record was appended at that time or later."""
        ...

    def scan(self, positions: Offsets, ends: Offsets) -> AsyncIterator[Scanned]:
        """Stretches of all partitions, from these positions up to these ends; what compaction removed is not there."""
        ...


def places(records: Iterable[Record], *, tenant: str, collection: str) -> list[tuple[DocumentKey, int, int]]:
    """Key, partition and offset of the records about documents of a collection.

    Records under another spelling of the key are passed over: they stand once more under the canonical one.
    """
    found = []
    prefix = f"{tenant}/{collection}/".encode()
    for record in records:
        if record.key is None or record.value is None or not record.key.startswith(prefix):
            continue
        try:
            key = DocumentKey.parse(record.key)
        except ValueError:
            continue
        if key.encode() == record.key:
            found.append((key, record.partition, record.offset))
    return found


def forwarded(
    record: Record, item: BackfillItem, *, epoch: int, generation_ids: tuple[int, ...] | None
) -> BulkForwarded | None:
    """The record as the chunker would have sent it down the bulk lane; None when it holds no text after all."""
    try:
        incoming = decode(record)
    except InvalidRecord:
        return None
    if incoming.changed.change is not Change.UPSERT:
        return None
    access = {"access_level": item.access_level, "allowed_groups": item.allowed_groups}
    return BulkForwarded(
        key=item.key,
        origin=Origin(
            epoch=epoch,
            partition=record.partition,
            offset=record.offset,
            event_id=incoming.event_id,
            accepted_at=record.accepted_at,
            lane=Lane.BULK,
        ),
        revision=item.revision,
        changed=incoming.changed.model_copy(update=access),
        generation_ids=generation_ids,
    )
