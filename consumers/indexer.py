"""Group ``leat.indexer``: words first, meaning next.

A revision is written in this order: its new points, then the manifest in one transaction behind the fence, later the
sweep of dead points. A crash between two of these leaves nothing that a reader could see.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from faststream.kafka import KafkaRouter

from consumers.decoding import decoded
from consumers.delivery import Delivery, Handled, Subscription
from consumers.lanes import Urgency
from consumers.outbox import Outbox
from schemas.documents import DocumentKey
from schemas.pipeline import DocumentChunked, DocumentEmbedded, IndexCommitted, Outcome
from schemas.topics import CHUNKS, CHUNKS_BULK, EMBEDDINGS, EMBEDDINGS_BULK, INDEX_COMMITS, Topic
from streams.assemble import Assembler, Incomplete
from streams.crash import passing
from streams.index import IndexPlan, plan, points_ever_born, text_of
from streams.model import FloatVector, Generation, GenerationState
from streams.outcomes import superseded
from streams.ports import Catalog, ManifestStore, SparseEncoder, VectorCache, VectorIndex
from streams.records import Record

# Passages of a flip: a load is taken in parts of this size, so that two of them can be under way at once.
GROUP_PASSAGES = 1000
GROUPS_AT_ONCE = 2
# Passages whose words are encoded at a time, 5 ms for which the event loop is held, and parts of this size on their
# way to the index: while it writes some, the next ones are encoded.
SLICE_POINTS = 64
SLICES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class IndexerParts:
    """What the indexer needs from the outside world."""

    catalog: Catalog
    manifests: ManifestStore
    cache: VectorCache
    index: VectorIndex
    sparse: SparseEncoder


def router(
    delivery: Delivery, parts: IndexerParts, *, outbox: Outbox, collecting: dict[Topic, "Words"] | None = None
) -> KafkaRouter:
    """Subscribe the indexer to passages and vectors of both lanes; ``collecting`` gets who collects parts, by topic."""
    router = KafkaRouter()
    for topic, urgency, max_records in ((CHUNKS, Urgency.INTERACTIVE, 100), (CHUNKS_BULK, Urgency.BULK, 64)):
        words = Words(parts, outbox=outbox)
        if collecting is not None:
            collecting[topic] = words
        delivery.subscribe(
            router,
            Subscription(topic, urgency, max_records=max_records),
            words.on_documents_chunked,
            on_assigned=words.on_assigned,
        )
    meaning = Meaning(parts)
    for topic, urgency in ((EMBEDDINGS, Urgency.INTERACTIVE), (EMBEDDINGS_BULK, Urgency.BULK_MEANING)):
        delivery.subscribe(router, Subscription(topic, urgency, max_records=100), meaning.on_documents_embedded)
    return router


class Words:
    """Makes revisions searchable by words, and by meaning as far as their vectors are known already."""

    def __init__(self, parts: IndexerParts, *, outbox: Outbox) -> None:
        self._parts = parts
        self._outbox = outbox
        self._assembler = Assembler()
        self._spaces: set[str] = set()

    def on_assigned(self, partitions: frozenset[int]) -> None:
        """Partitions begin again at their committed offset; half-collected revisions will come again."""
        self._assembler.forget(partitions)

    def incomplete(self) -> frozenset[Incomplete]:
        """Revisions of which parts are missing."""
        return self._assembler.incomplete()

    def give_up(self, given: Iterable[Incomplete]) -> Mapping[int, int]:
        """Drop parts that will never be a whole; returns what is still held."""
        for one in given:
            self._assembler.give_up(one)
        return self._assembler.holding()

    async def on_documents_chunked(self, records: Sequence[Record]) -> Handled:
        """Index the newest complete revision of each document in the batch."""
        parts, failures = decoded(records, DocumentChunked)
        newest: dict[tuple[int, DocumentKey], DocumentChunked] = {}
        wholes: list[DocumentChunked] = []
        outcomes: list[IndexCommitted] = []
        for record, part in parts:
            whole = self._assembler.add(part, partition=record.partition, offset=record.offset)
            if whole is None:
                continue
            wholes.append(whole)
            name = (whole.generation_id, whole.key)
            loser, winner = _in_order(newest.get(name), whole)
            newest[name] = winner
            if loser is not None and await self._reports(loser.generation_id):
                outcomes.append(_superseded(loser, winner.revision))
        for generation_id in sorted({generation_id for generation_id, _ in newest}):
            batch = [whole for (of, _), whole in newest.items() if of == generation_id]
            outcomes.extend(await self._index(generation_id, batch))
        async with self._outbox.sending() as sending:
            for outcome in outcomes:
                key, partition = outcome.key.encode(), outcome.origin.partition
                await sending.event(INDEX_COMMITS, outcome, key=key, partition=partition)
        passing("outcomes-sent")
        for whole in wholes:
            self._assembler.settle(whole)
        return Handled(failures, self._assembler.holding())

    async def _reports(self, generation_id: int) -> bool:
        generation = await self._parts.catalog.generation(generation_id)
        return generation is not None and generation.reports_outcomes

    async def _index(self, generation_id: int, batch: list[DocumentChunked]) -> list[IndexCommitted]:
        generation = await self._parts.catalog.generation(generation_id)
        if generation is None or generation.state is GenerationState.RETIRED:
            return []
        if generation.space not in self._spaces:
            await self._parts.index.ensure_space(generation.space, generation.model.dimensions)
            self._spaces.add(generation.space)
        turns = asyncio.Semaphore(GROUPS_AT_ONCE)

        async def take_turn(group: list[DocumentChunked]) -> list[IndexCommitted]:
            async with turns:
                return await self._index_group(generation, group)

        # All of them end before the batch does: none may go on writing when it is delivered once more.
        results = await asyncio.gather(*map(take_turn, _groups(batch)), return_exceptions=True)
        outcomes: list[IndexCommitted] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            outcomes.extend(result)
        return outcomes

    async def _index_group(self, generation: Generation, batch: list[DocumentChunked]) -> list[IndexCommitted]:
        """Index documents, no two of them the same, with one flip."""
        plans = await self._plan(generation, batch)
        passing("fence-read")
        await self._write_points(generation, plans)
        passing("points-written")
        applied = await self._parts.manifests.flip([planned.flip for planned in plans])
        passing("flipped")
        for whole, ok in zip(batch, applied, strict=True):
            # An attempt that died had another manifest before it, and may have written points that this one has not.
            # What it leaves of a revision that is applied, or loses within its batch, the reconciler finds.
            if not ok and (written := points_ever_born(whole, generation=generation)):
                await self._parts.manifests.discard(generation.space, written)
        took_effect = await self._took_effect(generation, batch, applied)
        await self._catch_up_vectors(generation, plans, took_effect)
        if not generation.reports_outcomes:
            return []
        return [_outcome(whole, planned, ok) for whole, planned, ok in zip(batch, plans, took_effect, strict=True)]

    async def _took_effect(
        self, generation: Generation, batch: list[DocumentChunked], applied: list[bool]
    ) -> list[bool]:
        """Which passed the fence, now or before: a redelivery is refused by it, though no newer change is known.

        Whoever let that one pass may have died before giving it its vectors and saying its outcome.
        """
        refused = [whole.key for whole, ok in zip(batch, applied, strict=True) if not ok]
        manifests = await self._parts.manifests.read(generation.generation_id, refused) if refused else {}
        return [
            ok or ((found := manifests.get(whole.key)) is not None and found.applied_revision == whole.revision)
            for whole, ok in zip(batch, applied, strict=True)
        ]

    async def _plan(self, generation: Generation, batch: list[DocumentChunked]) -> list[IndexPlan]:
        manifests = await self._parts.manifests.read(generation.generation_id, [whole.key for whole in batch])
        return [plan(whole, manifests.get(whole.key), generation=generation) for whole in batch]

    async def _write_points(self, generation: Generation, plans: list[IndexPlan]) -> None:
        """The points of all plans: a few slices are on their way to the index while the next one is encoded."""
        born = [(planned, passage) for planned in plans for passage in planned.born]
        under_way: deque[asyncio.Task[None]] = deque()
        try:
            for begin in range(0, len(born), SLICE_POINTS):
                if len(under_way) == SLICES_AT_ONCE:
                    await under_way.popleft()
                part = born[begin : begin + SLICE_POINTS]
                sparse = self._parts.sparse.encode_passages([text_of(passage) for _, passage in part])
                points = [planned.point(passage, terms) for (planned, passage), terms in zip(part, sparse, strict=True)]
                under_way.append(asyncio.create_task(self._parts.index.upsert(generation.space, points)))
                await asyncio.sleep(0)
            while under_way:
                await under_way.popleft()
        finally:
            # Only after an error: nothing of this attempt may be written behind the next one's back.
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _catch_up_vectors(self, generation: Generation, plans: list[IndexPlan], took_effect: list[bool]) -> None:
        """Give cached vectors to the points just born.

        This comes after the flip on purpose: an embedder that finished before the flip found no point to give its
        vectors to, but it had cached them before.
        """
        keys = [
            planned.flip.key for planned, ok in zip(plans, took_effect, strict=True) if ok and _lacks_vectors(planned)
        ]
        await give_vectors(self._parts, generation, keys, {})


class Meaning:
    """Gives dense vectors to the points of revisions that are searchable by words."""

    def __init__(self, parts: IndexerParts) -> None:
        self._parts = parts

    async def on_documents_embedded(self, records: Sequence[Record]) -> Handled:
        """Vectors go to whichever live passages have that content; the revision that they came from does not matter."""
        events, failures = decoded(records, DocumentEmbedded)
        vectors: dict[int, dict[bytes, FloatVector]] = {}
        keys: dict[int, set[DocumentKey]] = {}
        for _, event in events:
            found = vectors.setdefault(event.generation_id, {})
            keys.setdefault(event.generation_id, set()).add(event.key)
            for item in event.vectors:
                if item.vector is not None:
                    found[item.content_hash] = np.frombuffer(item.vector, dtype="<f4")
        for generation_id, known in vectors.items():
            generation = await self._parts.catalog.generation(generation_id)
            if generation is not None and generation.state is not GenerationState.RETIRED:
                await give_vectors(self._parts, generation, sorted(keys[generation_id]), known)
        return Handled(failures)


async def give_vectors(
    parts: IndexerParts, generation: Generation, keys: Sequence[DocumentKey], known: dict[bytes, FloatVector]
) -> None:
    """Give vectors to the live passages of these documents that have none: those at hand, else those in the cache."""
    if not keys:
        return
    missing = await parts.manifests.missing_vectors(generation.generation_id, keys)
    absent = {digest for digest in missing.values() if digest not in known}
    if absent:
        known = known | await parts.cache.get(generation.tenant, generation.model.fingerprint, list(absent))
    found: dict[UUID, FloatVector] = {point: known[digest] for point, digest in missing.items() if digest in known}
    if not found:
        return
    vanished = await parts.index.update_vectors(generation.space, found)
    passing("vectors-written")
    await parts.manifests.mark_embedded(generation.generation_id, [point for point in found if point not in vanished])


def _groups(batch: Sequence[DocumentChunked]) -> Iterator[list[DocumentChunked]]:
    """In order, of about ``GROUP_PASSAGES`` each."""
    group: list[DocumentChunked] = []
    passages = 0
    for whole in batch:
        if group and passages + len(whole.passages) > GROUP_PASSAGES:
            yield group
            group, passages = [], 0
        group.append(whole)
        passages += len(whole.passages)
    if group:
        yield group


def _lacks_vectors(planned: IndexPlan) -> bool:
    return any(not passage.embedded for passage in planned.flip.passages)


def _in_order(one: DocumentChunked | None, other: DocumentChunked) -> tuple[DocumentChunked | None, DocumentChunked]:
    """(loser, winner) of two revisions; the very same revision twice has no loser."""
    if one is None or one.revision == other.revision:
        return None, other
    return (one, other) if one.revision < other.revision else (other, one)


def _superseded(loser: DocumentChunked, by: int) -> IndexCommitted:
    return superseded(
        loser.key, loser.change, revision=loser.revision, origin=loser.origin, by=by, at=datetime.now(UTC)
    )


def _outcome(whole: DocumentChunked, planned: IndexPlan, applied: bool) -> IndexCommitted:
    return IndexCommitted(
        key=whole.key,
        outcome=Outcome.APPLIED if applied else Outcome.SUPERSEDED,
        change=whole.change,
        revision=whole.revision,
        generation_id=whole.generation_id,
        event_id=whole.origin.event_id,
        origin=whole.origin,
        reason=None if applied else "newer-change-known",
        passages_added=len(planned.born),
        passages_kept=planned.kept,
        passages_removed=len(planned.flip.removed),
        chunked_at=whole.chunked_at,
        committed_at=datetime.now(UTC),
    )
