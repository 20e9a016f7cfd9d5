"""Work that no record asks for: sweep dead points, drive changes again that got lost on the way."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from consumers.delivery import Handler
from schemas.documents import DocumentKey
from schemas.topics import DOCUMENTS
from streams.crash import passing
from streams.errors import TransientError, Unavailable
from streams.model import Unapplied
from streams.ports import LogReader, ManifestStore, VectorIndex

log = logging.getLogger(__name__)

# Dead points are invisible at once, but a search still finds them and looks past them: the fewer, the better. The pause
# lets a search that has found them hydrate (and drop) them.
GARBAGE_AGE_S = 3.0
GARBAGE_BATCH = 500
# A change that is not applied after this long, while nothing downstream lags, has lost its derived records.
OVERDUE_S = 60.0
REDRIVE_BATCH = 200
MAX_EMBEDDED_AGAIN = 3


async def every(seconds: float, work: Callable[[], Awaitable[None]], *, name: str) -> None:
    """Do a piece of upkeep for ever; a dependency that is down only postpones it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except (Unavailable, TransientError) as error:
            log.info("upkeep_postponed", extra={"work": name, "cause": str(error)})


async def sweep_garbage(manifests: ManifestStore, index: VectorIndex) -> None:
    """Delete dead points from the index, then forget them."""
    while dead := await manifests.take_garbage(older_than_s=GARBAGE_AGE_S, limit=GARBAGE_BATCH):
        for space in {space for space, _ in dead}:
            await index.delete(space, [point_id for of, point_id in dead if of == space])
        passing("garbage-swept")
        await manifests.forget_garbage([point_id for _, point_id in dead])
        if len(dead) < GARBAGE_BATCH:
            return


class Overdue(Protocol):
    """Knows which admitted changes have not been applied."""

    async def unapplied(self, *, older_than_s: float, limit: int) -> Sequence[Unapplied]: ...

    async def unembedded(self, *, older_than_s: float, limit: int) -> Sequence[Unapplied]:
        """Applied changes of which passages still lack their vector."""
        ...


class Redrive:
    """Hands changes that were received but not applied to the chunker once more.

    Their derived records can be gone: expired while the indexer was down, or newer than the database that was restored.
    Doing it needlessly is harmless: the same revision yields the same passages behind the same fence.
    """

    def __init__(
        self,
        overdue: Overdue,
        *,
        log_reader: LogReader,
        handler: Handler,
        lag: Callable[[], Awaitable[dict[str, int]]],
    ) -> None:
        self._overdue = overdue
        self._log_reader = log_reader
        self._handler = handler
        self._lag = lag
        self._embedded_again: Counter[tuple[DocumentKey, int]] = Counter()

    async def run(self) -> None:
        """One round; does nothing while any group lags, for then the change is simply on its way."""
        overdue = [
            *await self._overdue.unapplied(older_than_s=OVERDUE_S, limit=REDRIVE_BATCH),
            *self._worth_embedding(await self._overdue.unembedded(older_than_s=OVERDUE_S, limit=REDRIVE_BATCH)),
        ]
        if not overdue or any((await self._lag()).values()):
            return
        records = [await self._log_reader.read(DOCUMENTS.name, late.partition, late.offset) for late in overdue]
        found = [record for record in records if record is not None]
        log.warning("changes_driven_again", extra={"overdue": len(overdue), "found": len(found)})
        if found:
            await self._handler(found)

    def _worth_embedding(self, late: Sequence[Unapplied]) -> list[Unapplied]:
        """Not those that have been tried often: what the model cannot embed would come back for ever."""
        for change in late:
            self._embedded_again[change.key, change.revision] += 1
        return [c for c in late if self._embedded_again[c.key, c.revision] <= MAX_EMBEDDED_AGAIN]
