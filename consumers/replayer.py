"""Drives a stretch of the log through the pipeline once more, for repair.

Doing it needlessly is harmless: a text that is applied already meets the fence, its vectors are in the cache.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumers.delivery import Handler
from consumers.outbox import Outbox
from schemas.documents import DocumentKey
from schemas.positions import Position, revision_of
from schemas.topics import BULK
from streams.backfill import LogScanner, Scanned, forwarded, places
from streams.epoch import EpochWatch
from streams.errors import PermanentError
from streams.generations import BackfillItem, GenerationBuild
from streams.jobs import JobClaim, Progress
from streams.model import Collection, LogPlace, Ordering
from streams.ports import Catalog, DocumentLedger
from streams.records import Record

EARLIEST = "earliest"
# Documents on their way at once. The bulk lane gives way to edits, so this bounds how long a pause takes.
SENT_AT_ONCE = 500
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class ReplayerParts:
    """What a replay needs from the outside world."""

    catalog: Catalog
    ledger: DocumentLedger
    build: GenerationBuild
    scanner: LogScanner
    epochs: EpochWatch
    receive: Handler | None
    """The chunker's handler of the documents topic; None where the chunker runs in another process."""
    lag: Callable[[], Awaitable[Mapping[str, int]]]


@dataclass(slots=True)
class _Found:
    """What a stretch of the log holds of a collection."""

    records: int = 0
    documents: int = 0
    """Documents whose present text is in it."""
    unknown: int = 0
    """Records that the fold has never seen, as after restoring an older database."""


class Replayer:
    """``JobWork`` of replays."""

    def __init__(self, parts: ReplayerParts, *, outbox: Outbox) -> None:
        self._parts = parts
        self._outbox = outbox

    async def __call__(self, claim: JobClaim) -> Mapping[str, Any]:
        job = claim.job
        collection = await self._parts.catalog.find(job.tenant, job.collection)
        if collection is None:
            raise PermanentError("no-such-collection", f"there is no collection {job.collection!r}")
        begin, end = await self._stretch(job.payload)
        total = sum(max(0, end[partition] - begin.get(partition, 0)) for partition in end)
        found, dry_run = _Found(), bool(job.payload.get("dry_run"))
        resume = {int(p): offset for p, offset in job.resume.get("positions", {}).items()}
        at = {**begin, **resume}
        await claim.save(phase="counting" if dry_run else "replaying", progress=Progress(total))
        async with aclosing(self._parts.scanner.scan(at, end)) as stretches:  # type: ignore[type-var]
            async for stretch in stretches:
                await claim.checkpoint()
                await self._replay(stretch, collection, job.payload.get("key"), found, dry_run=dry_run)
                read = sum(min(p, end[n]) - begin.get(n, 0) for n, p in stretch.positions.items() if n in end)
                positions = {str(partition): offset for partition, offset in stretch.positions.items()}
                await claim.save(progress=Progress(total, max(0, read)), resume={"positions": positions})
                if not dry_run:
                    await self._wait_for_room(claim)
        await claim.save(progress=Progress(total, total))
        return {
            "dry_run": dry_run,
            "records": found.records,
            "documents": found.documents,
            "unknown_records": found.unknown,
            "unknown_replayed": self._parts.receive is not None and not dry_run,
        }

    async def _stretch(self, payload: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, int]]:
        beginnings, ends = await asyncio.gather(self._parts.scanner.beginnings(), self._parts.scanner.ends())
        begin, only = await self._offsets(payload.get("from") or EARLIEST, beginnings)
        end, _ = (dict(ends), None) if not payload.get("to") else await self._offsets(payload["to"], ends)
        if only is not None:
            # A position is a place in one partition: the others are not meant.
            begin, end = {only: begin[only]}, {only: end[only]}
        return begin, {partition: min(offset, ends[partition]) for partition, offset in end.items()}

    async def _offsets(self, text: str, otherwise: Mapping[int, int]) -> tuple[dict[int, int], int | None]:
        """Per partition, and the partition that the text names, if it names one."""
        if text == EARLIEST:
            return await self._parts.scanner.beginnings(), None
        try:
            return await self._parts.scanner.at_time(_instant(text)), None
        except ValueError:
            position = _position(text)
        if position.epoch != self._parts.epochs.epoch:
            raise PermanentError("position-of-another-log", "the documents topic was started anew since that position")
        if position.partition not in otherwise:
            raise PermanentError("position-of-another-log", f"there is no partition {position.partition}")
        return {**otherwise, position.partition: position.offset}, position.partition

    async def _replay(
        self, stretch: Scanned, collection: Collection, key: str | None, found: _Found, *, dry_run: bool
    ) -> None:
        at = [
            place
            for place in places(stretch.records, tenant=collection.tenant, collection=collection.name)
            if key is None or place[0].document_id == key
        ]
        epoch = self._parts.epochs.epoch
        at = [
            place
            for place in at
            if not await self._parts.catalog.is_over(*place[0][:2], LogPlace(epoch, place[1], place[2]))
        ]
        if not at:
            return
        items = await self._parts.build.wanted(collection.serving, at, epoch=self._parts.epochs.epoch, again=True)
        of_place = {(record.partition, record.offset): record for record in stretch.records}
        unknown = await self._unknown(at, of_place, collection)
        found.records += len(at)
        found.documents += len(items)
        found.unknown += len(unknown)
        if dry_run:
            return
        await self._send([(of_place[item.partition, item.offset], item) for item in items])
        if unknown and self._parts.receive is not None:
            await self._parts.receive(unknown)

    async def _unknown(
        self,
        at: Sequence[tuple[DocumentKey, int, int]],
        of_place: Mapping[tuple[int, int], Record],
        collection: Collection,
    ) -> list[Record]:
        if collection.ordering is not Ordering.LOG:
            return []
        heads = await self._parts.ledger.heads(list({key for key, _, _ in at}))
        epoch = self._parts.epochs.epoch
        return [
            of_place[partition, offset]
            for key, partition, offset in at
            if heads.get(key, -1) < revision_of(epoch, offset)
        ]

    async def _send(self, found: Sequence[tuple[Record, BackfillItem]]) -> None:
        async with self._outbox.sending() as sending:
            for record, item in found:
                event = forwarded(record, item, epoch=self._parts.epochs.epoch, generation_ids=None)
                if event is not None:
                    await sending.event(BULK, event, key=event.key.encode(), partition=event.origin.partition)

    async def _wait_for_room(self, claim: JobClaim) -> None:
        """Leave the bulk lane no longer than somebody who cancels wants to wait."""
        while sum(lag for group, lag in (await self._parts.lag()).items() if ".bulk" in group) > SENT_AT_ONCE:
            await asyncio.sleep(PAUSE_S)
            await claim.checkpoint()


def _position(text: str) -> Position:
    try:
        return Position.decode(text)
    except ValueError as error:
        raise PermanentError("invalid-position", f"{text!r} is not 'earliest', a position or a time") from error


def _instant(text: str) -> datetime:
    """ISO 8601, with a time zone. Raises ``ValueError``."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("needs a time zone")
    return at
