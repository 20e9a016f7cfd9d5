"""Upkeep of the role ``jobs``: forgets documents altogether, as asked.

The deletion goes through the log like any other; what it takes away is then looked for in every other place. Each step
may be done twice: after a crash the next round goes on where the row says.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from schemas.documents import Change, DocumentChanged
from schemas.positions import Position
from streams.backfill import LogScanner
from streams.erasure import BlobsOf, Erasure, ErasureStore
from streams.model import Ordering
from streams.ports import ChangeLog

log = logging.getLogger(__name__)

AT_ONCE = 20


class RemovableBlobs(Protocol):
    async def remove(self, tenant: str, sha256s: AbstractSet[str], *, put_before: float) -> int:
        """Remove blobs that were last put before that time; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class EraserParts:
    """What forgetting needs from the outside world."""

    store: ErasureStore
    changes: ChangeLog
    scanner: LogScanner
    blobs: RemovableBlobs
    forget_streams: Callable[[Sequence[str]], Awaitable[None]]
    """Of answers to these questions."""
    forget_remembered: Callable[[str, str], Awaitable[int]]
    """Answers that cite a document (collection, id) and might be given again; returns how many there were."""


class Eraser:
    """A round at a time."""

    def __init__(self, parts: EraserParts) -> None:
        self._parts = parts

    async def run(self) -> None:
        for erasure in await self._parts.store.open_erasures(limit=AT_ONCE):
            if erasure.position is None:
                await self._publish_deletion(erasure)
            elif await self._parts.store.has_taken_effect(erasure):
                await self._erase(erasure)

    async def _publish_deletion(self, erasure: Erasure) -> None:
        """A bare tombstone, so that compaction forgets the key too. With source versions, a deletion must carry one."""
        ordering, head = await self._parts.store.ordering_of(erasure.key)
        change = None
        if ordering is Ordering.SOURCE:
            change = DocumentChanged(change=Change.DELETE, source="erasure", source_version=head + 1)
        position: Position = await self._parts.changes.publish(erasure.key, change)
        await self._parts.store.published(
            erasure, epoch=position.epoch, partition=position.partition, offset=position.offset
        )

    async def _erase(self, erasure: Erasure) -> None:
        parts, key = self._parts, erasure.key
        began = time.time()
        removed, question_ids = await parts.store.remove(erasure)
        await parts.forget_streams(question_ids)
        cached = await parts.forget_remembered(key.collection, key.document_id)
        blobs = BlobsOf(key)
        async for stretch in parts.scanner.scan({}, await parts.scanner.ends()):
            blobs.look_at(stretch.records)
        gone = await parts.blobs.remove(key.tenant, blobs.alone(), put_before=began)
        await parts.store.finish(erasure, {**removed, "cached_answers": cached, "blobs": gone})
        log.info("document_erased", extra={"tenant": key.tenant, "collection": key.collection, "blobs": gone})
