"""Upkeep of the role ``jobs``: drops large contents that no record of the log names any more."""

import logging
from collections import defaultdict
from collections.abc import Collection
from typing import Protocol

from schemas.topics import HISTORY_WINDOW_MS
from streams.backfill import LogScanner
from streams.decode import decode
from streams.errors import InvalidRecord
from streams.records import Record

log = logging.getLogger(__name__)

# A blob is written before the record that names it; a producer that is slow has this long.
UNNAMED_FOR_S = 2 * HISTORY_WINDOW_MS / 1000


class SweepableBlobs(Protocol):
    async def tenants(self) -> Collection[str]: ...

    async def sweep(self, tenant: str, *, keep: Collection[str], older_than_s: float) -> int: ...


class BlobSweeper:
    """A round reads the whole log: some seconds for a hundred thousand records, a few times a day."""

    def __init__(self, blobs: SweepableBlobs, scanner: LogScanner) -> None:
        self._blobs = blobs
        self._scanner = scanner

    async def run(self) -> None:
        # Those who have blobs before the log is read: what comes later is too young to be swept.
        tenants = await self._blobs.tenants()
        if not tenants:
            return
        named: defaultdict[str, set[str]] = defaultdict(set)
        async for stretch in self._scanner.scan({}, await self._scanner.ends()):
            for record in stretch.records:
                if (found := _named_in(record)) is not None:
                    named[found[0]].add(found[1])
        for tenant in tenants:
            swept = await self._blobs.sweep(tenant, keep=named[tenant], older_than_s=UNNAMED_FOR_S)
            if swept:
                log.info("blobs_swept", extra={"tenant": tenant, "blobs": swept})


def _named_in(record: Record) -> tuple[str, str] | None:
    """Tenant and hash of the blob that a record names."""
    if record.value is None or b"content_reference" not in record.value:
        return None
    try:
        incoming = decode(record)
    except InvalidRecord:
        return None
    reference = incoming.changed.content_reference
    return None if reference is None else (incoming.key.tenant, reference.sha256)
