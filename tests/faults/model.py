"""The pipeline's real handlers on in-memory stores and topics: thousands of histories in the time of one real one.

Delivery is at least once, as Kafka's: a group hands its next batch to the handler, commits behind it, and may be wound
back or die between any two effects. What a process had in its memory is gone then; topics and stores stay.
"""

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import numpy as np

from consumers.chunker import Chunker, ChunkerParts
from consumers.delivery import Handled
from consumers.embedder import EmbedderParts, _Embedding
from consumers.indexer import IndexerParts, Meaning, Words
from consumers.lanes import Lanes
from consumers.leftovers import Leftovers
from consumers.maintenance import sweep_garbage
from schemas.access import AccessLevel, Principal
from schemas.base import Event
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.topics import BULK, CHUNKS, CHUNKS_BULK, DOCUMENTS, EMBEDDINGS, EMBEDDINGS_BULK, Topic
from streams import crash
from streams.epoch import EpochWatch
from streams.errors import UnreadableDocument
from streams.model import Block, Content, EmbeddingModel, FloatMatrix, Ordering, ParsedDocument, SparseVector
from streams.records import Record
from tests.fakes.index import InMemoryIndex
from tests.fakes.stores import (
    A_MODEL,
    InMemoryBlobStore,
    InMemoryCatalog,
    InMemoryDocumentLedger,
    InMemoryManifestStore,
    InMemoryPassageStore,
    InMemoryVectorCache,
    World,
)

LOG, SOURCE = "by-log", "by-source"
"""Collections, named after their ordering."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
READ = (DOCUMENTS, BULK, CHUNKS, CHUNKS_BULK, EMBEDDINGS, EMBEDDINGS_BULK)
UNREADABLE = "unreadable"
EVERYBODY = Principal(subject="model", clearance=AccessLevel.RESTRICTED, every_group=True)


class Died(Exception):
    """The process is gone: raised at a crash point instead of a signal."""


@dataclass
class Group:
    """A consumer group on the one partition of its topic."""

    position: int = 0
    committed: int = 0


@dataclass
class Model:
    """An installation in memory. All methods that run handlers are coroutines that never really wait."""

    topics: dict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    groups: dict[str, dict[str, Group]] = field(default_factory=dict)
    world: World = field(default_factory=World)
    applied: dict[tuple[int, DocumentKey], int] = field(default_factory=dict)
    went_back: list[str] = field(default_factory=list)
    embedded: Counter[str] = field(default_factory=Counter)
    dies_after: int | None = None
    """Passes of crash points until the process dies; None: it does not."""

    def __post_init__(self) -> None:
        self.catalog = InMemoryCatalog(self.world)
        self.ledger = InMemoryDocumentLedger(self.world)
        self.manifests = InMemoryManifestStore(self.world)
        self.passages = InMemoryPassageStore(self.world)
        self.index = InMemoryIndex()
        self.cache = InMemoryVectorCache()
        self.positions = {topic.name: Group() for topic in READ}
        # The embedder reads the passages' topics in groups of its own.
        self.embedding = {topic.name: Group() for topic in (CHUNKS, CHUNKS_BULK)}
        self.start()

    async def prepare(self) -> None:
        """Create both collections; one is ordered by its source."""
        for name in (LOG, SOURCE):
            await self.catalog.collection("default", name)
        made = self.world.collections["default", SOURCE]
        self.world.collections["default", SOURCE] = replace(made, ordering=Ordering.SOURCE)

    def start(self) -> None:
        """A new process: nothing in its memory, every group at its committed offset."""
        outbox, lanes = _Outbox(self), Lanes()
        chunker = Chunker(self._chunker_parts(), outbox=outbox, lanes=lanes)  # type: ignore[arg-type]
        parts = IndexerParts(self.catalog, self.manifests, self.cache, self.index, _EveryWord())
        embedder_parts = EmbedderParts(self.catalog, self.ledger, self.cache, self._embedder_of)
        self.words = {topic: Words(parts, outbox=outbox) for topic in (CHUNKS, CHUNKS_BULK)}  # type: ignore[arg-type]
        meaning = Meaning(parts)
        embedders = {
            CHUNKS: _Embedding(embedder_parts, EMBEDDINGS, outbox=outbox, lanes=None),  # type: ignore[arg-type]
            CHUNKS_BULK: _Embedding(embedder_parts, EMBEDDINGS_BULK, outbox=outbox, lanes=lanes),  # type: ignore[arg-type]
        }
        self.handlers = {
            ("chunker", DOCUMENTS.name): (self.positions[DOCUMENTS.name], chunker.on_documents_changed),
            ("chunker", BULK.name): (self.positions[BULK.name], chunker.on_bulk_forwarded),
            **{
                ("indexer", topic.name): (self.positions[topic.name], words.on_documents_chunked)
                for topic, words in self.words.items()
            },
            **{
                ("embedder", topic.name): (self.embedding[topic.name], handler.on_documents_chunked)
                for topic, handler in embedders.items()
            },
            **{
                ("indexer", topic.name): (self.positions[topic.name], meaning.on_documents_embedded)
                for topic in (EMBEDDINGS, EMBEDDINGS_BULK)
            },
        }
        for group, _ in self.handlers.values():
            group.position = group.committed
        self.leftovers = Leftovers(
            self.words, commits=self, upstream=["chunker"], lag=self._chunker_lag, ends=self._ends
        )
        self.dies_after = None

    # What happens to it

    def append(self, topic: Topic, key: bytes | None, value: bytes | None, headers: Mapping[str, str]) -> int:
        log = self.topics[topic.name]
        named = tuple((name, text.encode()) for name, text in headers.items())
        log.append(Record(topic.name, 0, len(log), NOW, key, value, named))
        return len(log) - 1

    def publish(self, key: DocumentKey, change: DocumentChanged | None, *, bulk: bool = False) -> int:
        value = None if change is None else change.model_dump_json(exclude_none=True).encode()
        return self.append(DOCUMENTS, key.encode(), value, {"leat-lane": "bulk"} if bulk else {})

    async def deliver(self, name: tuple[str, str], size: int) -> None:
        """Hand a group its next batch. Dying in the middle commits nothing and forgets what was in memory."""
        group, handler = self.handlers[name]
        batch = self.topics[name[1]][group.position : group.position + size]
        if not batch:
            return
        with self._crash_points():
            try:
                handled = await handler(batch) or Handled()
            except Died:
                self.start()
                return
        group.position += len(batch)
        group.committed = min(group.position, handled.holding.get(0, group.position))
        self._look_back()

    def rewind(self, name: tuple[str, str], by: int) -> None:
        """Another owner repeats what was delivered: a group goes back, its handler has no memory of it."""
        group, _ = self.handlers[name]
        group.committed = max(0, group.committed - by)
        self.start()

    async def settle(self) -> None:
        """Deliver until nothing is left to read, then what upkeep has to do."""
        for _ in range(4):
            while any(group.position < len(self.topics[name[1]]) for name, (group, _) in self.handlers.items()):
                for name in self.handlers:
                    await self.deliver(name, 7)
            await self.leftovers.run()
            await self.leftovers.run()
        await self._discard_orphans()
        with mock.patch("consumers.maintenance.GARBAGE_AGE_S", 0.0):
            await sweep_garbage(self.manifests, self.index)

    # What can be seen of it

    def lag(self) -> dict[tuple[str, str], int]:
        """Records behind the committed offsets, where there are any."""
        behind = {name: len(self.topics[name[1]]) - group.committed for name, (group, _) in self.handlers.items()}
        return {name: records for name, records in behind.items() if records}

    def shown(self, key: DocumentKey) -> list[str]:
        """Texts of a document that a reader with every right sees, in reading order."""
        collection = self.world.collections[key.tenant, key.collection]
        rows = self.passages._readable(EVERYBODY, collection.serving.generation_id)
        return [row.text for row in sorted(rows, key=lambda row: row.ordinal) if row.key == key]

    def level(self, key: DocumentKey) -> AccessLevel:
        return self.world.documents[key].access_level

    def drift(self) -> list[str]:
        """Points that are not as the manifests say."""
        live = {p.point_id: p for manifest in self.world.manifests.values() for p in manifest.passages.values()}
        points = {point_id: point for space in self.index.spaces.values() for point_id, point in space.items()}
        return [
            *(f"no point for {point_id}" for point_id in live.keys() - points.keys()),
            *(f"orphan {point_id}" for point_id in points.keys() - live.keys()),
            *(f"no vector for {i}" for i in live.keys() & points.keys() if points[i].dense is None),
            *(f"not marked as embedded: {i}" for i in live if not live[i].embedded),
        ]

    # Behind the scenes

    async def _discard_orphans(self) -> None:
        """What the reconciler does with points that a dead attempt wrote and no manifest names: a retry may have been
        planned on another manifest, or have lost within its batch. Readers see none of them. All else that the
        reconciler would repair stays as it is, and is a violation.
        """
        for name, points in self.index.spaces.items():
            await self.manifests.discard(name, list(points))

    def _look_back(self) -> None:
        for name, manifest in self.world.manifests.items():
            if manifest.revision < self.applied.get(name, -1):
                self.went_back.append(f"{name[1]}: {self.applied[name]} to {manifest.revision}")
            self.applied[name] = manifest.revision

    @contextmanager
    def _crash_points(self) -> Iterator[None]:
        def passing(point: str) -> None:
            if self.dies_after is not None:
                self.dies_after -= 1
                if self.dies_after < 0:
                    raise Died(point)

        crash.watch(passing)
        try:
            yield
        finally:
            crash._watchers.remove(passing)

    def delivered(self, topic: Topic) -> Mapping[int, int]:
        return {0: self.positions[topic.name].position}

    async def release(self, topic: Topic, holding: Mapping[int, int]) -> None:
        group = self.positions[topic.name]
        group.committed = min(group.position, holding.get(0, group.position))

    async def _chunker_lag(self) -> dict[str, int]:
        return {"chunker": sum(lag for (stage, _), lag in self.lag().items() if stage == "chunker")}

    async def _ends(self, topic: Topic) -> dict[int, int]:
        return {0: len(self.topics[topic.name])}

    async def read(self, topic: str, partition: int, offset: int) -> Record | None:
        log = self.topics[topic]
        return log[offset] if offset < len(log) else None

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        self.embedded.update(texts)
        digests = [hashlib.sha256(text.encode()).digest()[: self.model.dimensions] for text in texts]
        return np.array([[byte + 1.0 for byte in digest] for digest in digests], dtype=np.float32)

    @property
    def model(self) -> EmbeddingModel:
        return A_MODEL

    async def _embedder_of(self, model: EmbeddingModel) -> Any:
        return self

    def _chunker_parts(self) -> ChunkerParts:
        return ChunkerParts(
            catalog=self.catalog,
            ledger=self.ledger,
            blobs=InMemoryBlobStore(),
            parser=_Paragraphs(),
            counter_of=lambda generation: _Words(),
            log_reader=self,
            home_of=lambda key: 0,
            epochs=EpochWatch(0, look=_the_first_epoch),
            max_document_bytes=2**20,
        )


class _Outbox:
    """Appends at once; what was sent before a crash stays sent."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @asynccontextmanager
    async def sending(self) -> AsyncIterator["_Outbox"]:
        yield self

    async def event(self, topic: Topic, event: Event, *, key: bytes, partition: int | None = None) -> None:
        await self.raw(topic, key=key, value=event.model_dump_json(exclude_none=True).encode())

    async def raw(
        self,
        topic: Topic,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._model.append(topic, key, value, headers or {})


class _Paragraphs:
    """Every paragraph is a block of a section of its own; a text may say of itself that it cannot be read."""

    async def parse(self, content: Content) -> ParsedDocument:
        text = content.data.decode()
        if text.startswith(UNREADABLE):
            raise UnreadableDocument("empty-document", "it says so")
        return ParsedDocument(text, tuple(_blocks(text)))


def _blocks(text: str) -> Iterable[Block]:
    start = 0
    for number, paragraph in enumerate(text.split("\n\n")):
        yield Block(start, start + len(paragraph), (f"Part {number}",))
        start += len(paragraph) + 2


class _Words:
    def count(self, text: str) -> int:
        return len(text.split())

    count_exact = count


class _EveryWord:
    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector([len(text)], [1.0]) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        return SparseVector([len(text)], [1.0])


async def _the_first_epoch() -> int:
    return 0


def run(work: Any) -> Any:
    """Run a coroutine of the model to its end."""
    with asyncio.Runner() as runner:
        return runner.run(work)


def upsert(text: str, **fields: Any) -> DocumentChanged:
    return DocumentChanged(text=text, **fields)


def deletion(**fields: Any) -> DocumentChanged:
    return DocumentChanged(change=Change.DELETE, **fields)
