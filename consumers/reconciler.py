"""Upkeep of the indexer: compares index and manifests slice by slice, for ever, and repairs what differs.

What it finds should not happen; it happens after a crash between two stores, or when one of them was restored or
damaged. A slice is looked at again before anything is repaired, so that work in flight is left alone.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from consumers.indexer import IndexerParts, give_vectors
from schemas.documents import DocumentKey
from streams.index import payload_of, text_of
from streams.model import Generation, Point
from streams.reconcile import Differences, LivePassage, LivePoint, differences

log = logging.getLogger(__name__)

# Points per round: a slice of a large index costs a few tens of milliseconds of each store, once a minute.
SLICE_POINTS = 5_000
# Between the two looks at a slice that differs. Writing points and flipping the manifest are milliseconds apart; a
# process that was stopped in between for longer than this loses nothing either: its redelivery writes them again.
SECOND_LOOK_S = 20.0
# Vectors follow within seconds; a passage that lacks one for this long may have missed its event.
OVERDUE_VECTOR_S = 60.0
OVERDUE_DOCUMENTS = 200


class IndexAudit(Protocol):
    """Reads manifests as the index should mirror them."""

    async def live_generations(self) -> list[int]: ...

    async def live_points(
        self, generation: Generation, *, after: UUID | None, upto: UUID | None
    ) -> dict[UUID, LivePoint]:
        """Live passages with ids behind ``after``, up to and including ``upto``."""
        ...

    async def garbage(self, point_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Those of the points that wait to be swept."""
        ...

    async def passages(self, generation: Generation, point_ids: Sequence[UUID]) -> list[LivePassage]: ...

    async def rewritten(self, generation: Generation, digests: Mapping[UUID, bytes]) -> None:
        """These points were written again, without vectors, under payloads with these digests."""
        ...

    async def overdue_vectors(
        self, generation: Generation, *, older_than_s: float, limit: int
    ) -> list[DocumentKey]: ...

    async def report(self, drift: Mapping[str, int], repaired: Mapping[str, int]) -> None:
        """Keep what the last round found, for ``leat status``."""
        ...


class Reconciler:
    """One slice per round and generation."""

    def __init__(
        self, parts: IndexerParts, audit: IndexAudit, *, on_drift: Callable[[str, int, int], None] | None = None
    ) -> None:
        """``on_drift`` is told (kind, found now, repaired now) for every kind in every round."""
        self._parts = parts
        self._audit = audit
        self._on_drift = on_drift
        self._cursors: dict[int, UUID | None] = {}

    async def run(self) -> None:
        """One round over all live generations."""
        found = dict.fromkeys(Differences().counts(), 0)
        for generation_id in await self._audit.live_generations():
            generation = await self._parts.catalog.generation(generation_id)
            if generation is not None:
                for kind, count in (await self._reconcile(generation)).counts().items():
                    found[kind] += count
                await self._give_overdue_vectors(generation)
        await self._audit.report(found, found)
        for kind, count in found.items():
            if self._on_drift is not None:
                self._on_drift(kind, count, count)

    async def _reconcile(self, generation: Generation) -> Differences:
        """Look at the next slice, twice if something differs, and repair what still does."""
        after = self._cursors.get(generation.generation_id)
        await self._parts.index.ensure_space(generation.space, generation.model.dimensions)
        found, upto = await self._look(generation, after)
        if found:
            await asyncio.sleep(SECOND_LOOK_S)
            again, _ = await self._look(generation, after, upto)
            found = found & again
        if found:
            log.warning("index_differs", extra={"generation_id": generation.generation_id, **found.counts()})
            await self._repair(generation, found)
        self._cursors[generation.generation_id] = upto
        return found

    async def _look(
        self, generation: Generation, after: UUID | None, upto: UUID | None = None
    ) -> tuple[Differences, UUID | None]:
        """What differs behind ``after``, and the last id that was looked at; None: the end was reached.

        The index is read first: a passage that is live has had its point before.
        """
        # The second look must reach as far as the first, though points were born in between.
        limit = SLICE_POINTS if upto is None else 2 * SLICE_POINTS
        page = await self._parts.index.scroll(generation.space, generation.generation_id, after=after, limit=limit)
        if upto is None and len(page) == limit:
            upto = page[-1][0]
        points = {point: embedded for point, embedded in page if upto is None or point <= upto}
        live = await self._audit.live_points(generation, after=after, upto=upto)
        strangers = sorted(points.keys() - live.keys())
        garbage = await self._audit.garbage(strangers) if strangers else frozenset()
        return differences(live, points, garbage), upto

    async def _repair(self, generation: Generation, found: Differences) -> None:
        if found.orphans:
            await self._parts.manifests.discard(generation.space, sorted(found.orphans))
        rewrite = found.missing | found.misdescribed | found.blind
        if not rewrite:
            return
        passages = await self._audit.passages(generation, sorted(rewrite))
        texts = [text_of(live.passage) for live in passages]
        terms = await asyncio.to_thread(self._parts.sparse.encode_passages, texts)
        points, digests = [], {}
        for live, sparse in zip(passages, terms, strict=True):
            payload, digest = payload_of(live.key, live.attributes, generation)
            points.append(Point(live.passage.point_id, payload, sparse))
            digests[live.passage.point_id] = digest
        await self._parts.index.upsert(generation.space, points)
        await self._audit.rewritten(generation, digests)
        await give_vectors(self._parts, generation, sorted({live.key for live in passages}), {})

    async def _give_overdue_vectors(self, generation: Generation) -> None:
        """Vectors that are in the cache, but whose event was missed. Those that are not are driven again elsewhere."""
        keys = await self._audit.overdue_vectors(generation, older_than_s=OVERDUE_VECTOR_S, limit=OVERDUE_DOCUMENTS)
        await give_vectors(self._parts, generation, keys, {})
