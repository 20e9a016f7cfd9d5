"""Group ``leat.embedder``: embeds the passages that no one has embedded before.

The vector cache is written before the event is published, so an indexer that misses the event, or sees it too early,
finds the vectors there.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from faststream.kafka import KafkaRouter

from consumers.decoding import decoded
from consumers.delivery import Delivery, Handled, Subscription
from consumers.lanes import Lanes, Urgency
from consumers.outbox import Outbox
from schemas.documents import Change, DocumentKey
from schemas.pipeline import ChunkedPassage, DocumentChunked, DocumentEmbedded, PassageVector
from schemas.topics import CHUNKS, CHUNKS_BULK, EMBEDDINGS, EMBEDDINGS_BULK, Topic
from streams.chunk import embedded_text
from streams.crash import passing
from streams.errors import Unavailable
from streams.model import EmbeddingModel, FloatVector, GenerationState
from streams.ports import Catalog, DocumentLedger, Embedder, VectorCache
from streams.records import Record

log = logging.getLogger(__name__)

# Texts per call of the bulk lane: a second or less of all-MiniLM, the longest that an edit waits behind a load.
BULK_SLICE = 32


@dataclass(frozen=True, slots=True)
class EmbedderParts:
    """What the embedder needs from the outside world."""

    catalog: Catalog
    ledger: DocumentLedger
    cache: VectorCache
    embedder_of: Callable[[EmbeddingModel], Awaitable[Embedder]]


def router(delivery: Delivery, parts: EmbedderParts, *, outbox: Outbox, lanes: Lanes) -> KafkaRouter:
    """Subscribe the embedder to both lanes of passages."""
    router = KafkaRouter()
    interactive = _Embedding(parts, EMBEDDINGS, outbox=outbox, lanes=None)
    bulk = _Embedding(parts, EMBEDDINGS_BULK, outbox=outbox, lanes=lanes)
    delivery.subscribe(router, Subscription(CHUNKS, max_records=50), interactive.on_documents_chunked)
    bulk_lane = Subscription(CHUNKS_BULK, Urgency.BULK_MEANING, max_records=64)
    delivery.subscribe(router, bulk_lane, bulk.on_documents_chunked)
    return router


@dataclass(frozen=True, slots=True)
class _Group:
    """What can be embedded together."""

    model: EmbeddingModel
    tenant: str
    serves: bool
    events: list[DocumentChunked] = field(default_factory=list)


class _Embedding:
    """The handler of one lane."""

    def __init__(self, parts: EmbedderParts, topic: Topic, *, outbox: Outbox, lanes: Lanes | None) -> None:
        self._parts = parts
        self._topic = topic
        self._outbox = outbox
        self._lanes = lanes

    async def on_documents_chunked(self, records: Sequence[Record]) -> Handled:
        """Embed what is missing across all documents of the batch, then say so document by document."""
        events, failures = decoded(records, DocumentChunked)
        chunked = [event for _, event in events if event.change is not Change.DELETE]
        heads = await self._parts.ledger.heads(list({event.key for event in chunked}))
        for group in await self._groups(chunked, heads):
            try:
                await self._embed(group.model, group.tenant, group.events)
            except Unavailable as error:
                if group.serves:
                    raise
                # Questions are not answered from it: it must not hold up what they are answered from. The reindex sees
                # what is missing, and sends it once more.
                log.warning("generation_left_behind", extra={"model": group.model.name, "cause": error.detail})
        return Handled(failures)

    async def _groups(self, events: Iterable[DocumentChunked], heads: Mapping[DocumentKey, int]) -> list["_Group"]:
        """By model and tenant, what serves first. A text that has been replaced is not worth a vector any more.

        In a generation that is being built it may be the newest text that could be read.
        """
        groups: dict[tuple[str, str, bool], _Group] = {}
        for event in events:
            generation = await self._parts.catalog.generation(event.generation_id)
            if generation is None or generation.state is GenerationState.RETIRED:
                continue
            serves = generation.state is GenerationState.SERVING
            if serves and heads.get(event.key, event.revision) > event.revision:
                continue
            name = (generation.model.fingerprint, event.key.tenant, serves)
            groups.setdefault(name, _Group(generation.model, event.key.tenant, serves)).events.append(event)
        return sorted(groups.values(), key=lambda group: not group.serves)

    async def _embed(self, model: EmbeddingModel, tenant: str, events: list[DocumentChunked]) -> None:
        wanted = {passage.content_hash: passage for event in events for passage in event.passages}
        known = await self._parts.cache.get(tenant, model.fingerprint, list(wanted))
        fresh = await self._compute(model, tenant, [wanted[digest] for digest in wanted if digest not in known])
        async with self._outbox.sending() as sending:
            for event in events:
                embedded = _embedded(event, model, fresh)
                await sending.event(self._topic, embedded, key=event.key.encode(), partition=event.origin.partition)

    async def _compute(
        self, model: EmbeddingModel, tenant: str, passages: Sequence[ChunkedPassage]
    ) -> dict[bytes, FloatVector]:
        """Embed and cache, slice by slice; what an interrupted batch has finished is not lost."""
        fresh: dict[bytes, FloatVector] = {}
        if not passages:
            return fresh
        embedder = await self._parts.embedder_of(model)
        # Texts of like length share a batch without padding.
        ordered = sorted(passages, key=lambda passage: passage.tokens)
        step = len(ordered) if self._lanes is None else BULK_SLICE
        for begin in range(0, len(ordered), step):
            if self._lanes is not None:
                await self._lanes.give_way(Urgency.BULK_MEANING)
            part = ordered[begin : begin + step]
            matrix = await embedder.embed_passages([embedded_text(p.heading_path, p.text) for p in part])
            vectors = {passage.content_hash: row for passage, row in zip(part, matrix, strict=True)}
            tokens = sum(passage.tokens for passage in part)
            await self._parts.cache.put(tenant, model.fingerprint, vectors, tokens=tokens)
            passing("vectors-cached")
            fresh |= vectors
        return fresh


def _embedded(event: DocumentChunked, model: EmbeddingModel, fresh: dict[bytes, FloatVector]) -> DocumentEmbedded:
    vectors = []
    tokens = 0
    for digest, passage in {p.content_hash: p for p in event.passages}.items():
        row = fresh.get(digest)
        raw = None if row is None else np.ascontiguousarray(row, dtype="<f4").tobytes()
        tokens += 0 if row is None else passage.tokens
        vectors.append(PassageVector(content_hash=digest, vector=raw))
    return DocumentEmbedded(
        key=event.key,
        generation_id=event.generation_id,
        revision=event.revision,
        origin=event.origin,
        embedding_fingerprint=model.fingerprint,
        part=event.part,
        parts=event.parts,
        vectors=tuple(vectors),
        tokens_embedded=tokens,
        embedded_at=datetime.now(UTC),
    )
