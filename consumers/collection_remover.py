"""Removes a collection: from the log, where every document gets its deletion, then from the stores.

The log is told first, so that it says by itself what is gone. Where it ended is kept, too: records from before that
are passed over by whoever reads them, be they on their way now, sent back from the dead letters, or replayed in a year.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.outbox import Outbox, Sending
from schemas.documents import Change, DocumentChanged
from schemas.topics import DOCUMENTS
from streams.backfill import LogScanner
from streams.collection_removal import CollectionRemoval, LoggedDocument
from streams.epoch import EpochWatch
from streams.jobs import JobClaim, Progress
from streams.model import Generation, Ordering


@dataclass(frozen=True, slots=True)
class RemoverParts:
    """What removing a collection needs from the outside world."""

    removal: CollectionRemoval
    scanner: LogScanner
    epochs: EpochWatch
    remove_generation: Callable[[Generation], Awaitable[None]]
    """Its points, its manifests, its passages."""
    announce_s: float
    """After this long every process knows that the collection is gone."""


class CollectionRemover:
    """``JobWork``. After a crash it goes on; it cannot be cancelled once the collection has ended."""

    def __init__(self, parts: RemoverParts, *, outbox: Outbox) -> None:
        self._parts = parts
        self._outbox = outbox

    async def __call__(self, claim: JobClaim) -> Mapping[str, Any]:
        job, parts = claim.job, self._parts
        if "ends" not in job.resume:
            await claim.checkpoint()
            await claim.save(phase="delete-documents")
            await self._delete_documents(claim)
            found = {str(partition): offset for partition, offset in (await parts.scanner.ends()).items()}
            await claim.save(phase="end", resume={"ends": found, "epoch": parts.epochs.epoch})
        ends = {int(partition): offset for partition, offset in claim.job.resume["ends"].items()}
        await parts.removal.end(
            job.tenant, job.collection, asked_at=job.created_at, epoch=claim.job.resume["epoch"], ends=ends
        )
        await claim.save(phase="remove")
        await asyncio.sleep(parts.announce_s)
        generations = await parts.removal.generations(job.tenant, job.collection, asked_at=job.created_at)
        for generation in generations:
            await parts.remove_generation(generation)
            await claim.save()
        removed = await parts.removal.remove(job.tenant, job.collection, asked_at=job.created_at)
        return {"generations": len(generations), **removed}

    async def _delete_documents(self, claim: JobClaim) -> None:
        job, after, sent = claim.job, None, 0
        while documents := await self._parts.removal.documents(job.tenant, job.collection, after=after):
            async with self._outbox.sending() as sending:
                for document in documents:
                    await _send_deletion(document, sending)
            after, sent = documents[-1].key.document_id, sent + len(documents)
            await claim.save(progress=Progress(sent, sent))
            await claim.checkpoint()


async def _send_deletion(document: LoggedDocument, sending: Sending) -> None:
    """A bare tombstone, so that compaction forgets the key too. With source versions, a deletion must carry one."""
    value = None
    if document.ordering is Ordering.SOURCE:
        change = DocumentChanged(change=Change.DELETE, source="removal", source_version=document.revision + 1)
        value = change.model_dump_json(exclude_none=True).encode()
    await sending.raw(DOCUMENTS, key=document.key.encode(), value=value, partition=document.partition)
