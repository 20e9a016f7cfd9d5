"""Sends once more what a generation has missed that stands by, or that waits for its switch.

While its model was away nothing waited for it, for questions are not answered from it. Now that nothing is on its way
any more, what it lacks is read from the log again, as a reindex would. A serving generation can only lack vectors of
texts whose successor was admitted before they were embedded, and then could not be read.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from consumers.outbox import Outbox
from schemas.documents import DocumentKey
from schemas.topics import BULK, DOCUMENTS
from streams.backfill import forwarded
from streams.epoch import EpochWatch
from streams.generations import BackfillItem, GenerationBuild
from streams.model import Generation, GenerationState
from streams.ports import LogReader

log = logging.getLogger(__name__)

SENT_AT_ONCE = 200
# A document that this generation cannot hold must not become a dead letter every minute.
MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class MenderParts:
    """What mending needs from the outside world."""

    standing: Callable[[], Awaitable[Sequence[Generation]]]
    """Generations that should be level with the log and may not be."""
    build: GenerationBuild
    log_reader: LogReader
    epochs: EpochWatch
    lag: Callable[[], Awaitable[Mapping[str, int]]]


class Mender:
    """Upkeep, a round at a time."""

    def __init__(self, parts: MenderParts, *, outbox: Outbox) -> None:
        self._parts = parts
        self._outbox = outbox
        self._tries: Counter[tuple[int, DocumentKey, int, bool]] = Counter()

    async def run(self) -> None:
        """One round; does nothing while any group lags, for then what is missing is simply on its way."""
        generations = await self._parts.standing()
        if not generations or any((await self._parts.lag()).values()):
            return
        for generation in generations:
            # A text that the serving one lacks altogether is driven again by the chunker's own upkeep.
            for without_vector in (True,) if generation.state is GenerationState.SERVING else (False, True):
                await self._mend(generation, without_vector=without_vector)

    async def _mend(self, generation: Generation, *, without_vector: bool) -> None:
        found = await self._parts.build.behind(
            generation,
            epoch=self._parts.epochs.epoch,
            after=None,
            limit=SENT_AT_ONCE,
            without_vector=without_vector,
        )
        items = [item for item in found if self._may_try(generation, item, without_vector)]
        if not items:
            return
        log.info("generation_mended", extra={"generation_id": generation.generation_id, "documents": len(items)})
        async with self._outbox.sending() as sending:
            for item in items:
                record = await self._parts.log_reader.read(DOCUMENTS.name, item.partition, item.offset)
                if record is None:
                    continue
                only = (generation.generation_id,)
                event = forwarded(record, item, epoch=self._parts.epochs.epoch, generation_ids=only)
                if event is not None:
                    await sending.event(BULK, event, key=event.key.encode(), partition=event.origin.partition)

    def _may_try(self, generation: Generation, item: BackfillItem, without_vector: bool) -> bool:
        name = (generation.generation_id, item.key, item.revision, without_vector)
        self._tries[name] += 1
        return self._tries[name] <= MAX_TRIES
