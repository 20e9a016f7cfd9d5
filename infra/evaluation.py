"""A collection for measuring: the real parser, chunker, encoders and Qdrant Edge, without log and database.

What is measured is ``streams.retrieve.retrieve`` itself; only the passage store is a dictionary, since everybody may
read everything and nothing changes.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np

from infra.embedding import describe_model, make_embedder, make_token_counter
from infra.index.edge import EdgeIndex
from infra.parsing import make_parser
from infra.settings import Settings
from infra.sparse import make_sparse_encoder
from schemas.access import AccessLevel, Principal
from schemas.answers import RetrievalOptions
from schemas.documents import DocumentKey
from streams.chunk import chunk, embedded_text
from streams.model import (
    Candidates,
    CitedRevision,
    Collection,
    Content,
    EmbeddingModel,
    FloatMatrix,
    FloatVector,
    Freshness,
    Generation,
    GenerationState,
    HydratedPassage,
    IndexScope,
    OnFailure,
    Ordering,
    Point,
    PointPayload,
    SparseVector,
)
from streams.ports import Embedder
from streams.retrieve import Retrieval, retrieve

TENANT, COLLECTION = "evaluation", "evaluation"
_NAMESPACE = UUID("0c1f6f0e-6d1d-5d0c-9f0b-4e7a1c0a2e11")
_SLICE = 200
_EMBED_SLICE = 256
# Shorter lists are embedded anew: a file each would be a litter.
_MIN_CACHED = 200

PRINCIPAL = Principal(tenant=TENANT, subject="evaluation", clearance=AccessLevel.RESTRICTED, every_group=True)


class EvaluationPassages:
    """A ``PassageStore`` in a dictionary: everything is live and readable."""

    def __init__(self) -> None:
        self.passages: dict[UUID, HydratedPassage] = {}
        self.by_document: dict[str, list[UUID]] = {}
        """In reading order."""

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        return {point_id: self.passages[point_id] for point_id in point_ids if point_id in self.passages}

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        of_document = self.by_document.get(key.document_id, [])
        return [self.passages[of_document[ordinal]] for ordinal in sorted(ordinals) if ordinal < len(of_document)]

    async def freshness(self, tenant: str, collection: str) -> Freshness:
        return Freshness(None, 0.0)

    async def unchanged(self, principal: Principal, generation_id: int, seen: Sequence[CitedRevision]) -> bool:
        return True


class CachedEmbedder:
    """An ``Embedder`` that keeps the vectors of whole lists in files, by fingerprint and content."""

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        self._embedder = embedder
        self._folder = folder
        self._queries: dict[str, FloatVector] = {}

    @property
    def model(self) -> EmbeddingModel:
        return self._embedder.model

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        if len(texts) < _MIN_CACHED:
            return await self._embedder.embed_passages(texts)
        digest = hashlib.sha256("\x00".join((self.model.fingerprint, *texts)).encode("utf-8", "surrogatepass"))
        path = self._folder / f"{digest.hexdigest()[:24]}.npy"
        if path.is_file():
            cached: FloatMatrix = np.load(path)
            return cached
        parts = [
            await self._embedder.embed_passages(texts[start : start + _EMBED_SLICE])
            for start in range(0, len(texts), _EMBED_SLICE)
        ]
        vectors: FloatMatrix = (
            np.concatenate(parts) if parts else np.zeros((0, self.model.dimensions), dtype=np.float32)
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
        return vectors

    async def embed_query(self, text: str) -> FloatVector:
        if text not in self._queries:
            self._queries[text] = await self._embedder.embed_query(text)
        return self._queries[text]


class EvaluationCollection:
    """Documents, indexed in a folder of their own as the pipeline would index them."""

    def __init__(self, folder: Path, embedder: Embedder, counter_of: str, settings: Settings) -> None:
        self.embedder = embedder
        self.sparse = make_sparse_encoder()
        self.index = EdgeIndex(folder)
        self.passages = EvaluationPassages()
        self.collection = _collection(embedder.model, settings)
        self._counter = make_token_counter(settings, counter_of)
        self._parser = make_parser(settings)

    async def open(self) -> None:
        await self.index.open()
        await self.index.ensure_space(self.collection.serving.space, self.embedder.model.dimensions)

    async def close(self) -> None:
        await self.index.close()
        await self._parser.close()

    async def put(self, documents: Iterable[tuple[str, str]], *, content_type: str | None = None) -> None:
        """Add or replace documents (id, text). Without a content type, the id's ending decides."""
        added: list[HydratedPassage] = []
        for document_id, text in documents:
            await self.remove(document_id)
            passages = await self._cut(document_id, text, content_type)
            self.passages.by_document[document_id] = [passage.point_id for passage in passages]
            added += passages
        texts = [embedded_text(passage.heading_path, passage.text) for passage in added]
        vectors = await self.embedder.embed_passages(texts)
        sparse = self.sparse.encode_passages(texts)
        for start in range(0, len(added), _SLICE):
            end = min(start + _SLICE, len(added))
            points = [
                Point(added[place].point_id, self._payload(added[place]), sparse[place], vectors[place])
                for place in range(start, end)
            ]
            await self.index.upsert(self.collection.serving.space, points)
        self.passages.passages.update({passage.point_id: passage for passage in added})

    async def remove(self, document_id: str) -> None:
        dead = self.passages.by_document.pop(document_id, [])
        for point_id in dead:
            self.passages.passages.pop(point_id, None)
        if dead:
            await self.index.delete(self.collection.serving.space, dead)

    async def search(self, query: str, *, limit: int, terms: SparseVector | None = None) -> Candidates:
        """The legs as they are, or with other weights of the query's terms."""
        serving = self.collection.serving
        return await self.index.search(
            serving.space,
            IndexScope.of(PRINCIPAL, serving.generation_id),
            dense=await self.embedder.embed_query(query),
            sparse=terms or self.sparse.encode_query(query),
            limit=limit,
        )

    async def retrieve(self, query: str, *, top_k: int, surrounded: bool = False) -> Retrieval:
        return await retrieve(
            query,
            PRINCIPAL,
            RetrievalOptions(collection=COLLECTION, top_k=top_k),
            collection=self.collection,
            embedder=self.embedder,
            sparse=self.sparse,
            index=self.index,
            passages=self.passages,
            surrounded_from=self.passages if surrounded else None,
        )

    async def _cut(self, document_id: str, text: str, content_type: str | None) -> list[HydratedPassage]:
        parsed = await self._parser.parse(Content(text.encode("utf-8", "surrogatepass"), content_type, document_id))
        serving = self.collection.serving
        cut = await asyncio.to_thread(
            chunk, parsed, max_tokens=serving.chunk_tokens, overlap=serving.chunk_overlap, counter=self._counter
        )
        return [
            HydratedPassage(
                point_id=uuid5(_NAMESPACE, f"{document_id}/{ordinal}/{passage.content_hash.hex()}"),
                key=DocumentKey(TENANT, COLLECTION, document_id),
                revision=1,
                ordinal=ordinal,
                title=parsed.title or document_id,
                url=None,
                text=passage.text,
                heading_path=passage.heading_path,
                page=passage.page,
                start=passage.start,
                end=passage.end,
                tokens=passage.tokens,
                updated_at=datetime(2026, 1, 1, tzinfo=UTC),
                access_level=AccessLevel.PUBLIC,
                metadata={},
            )
            for ordinal, passage in enumerate(cut)
        ]

    def _payload(self, passage: HydratedPassage) -> PointPayload:
        return PointPayload(TENANT, self.collection.serving.generation_id, passage.key.document_id, 0, ())


async def evaluation_collection(settings: Settings, folder: Path) -> EvaluationCollection:
    """An empty collection with the embedder that the settings name; ``open`` and ``close`` it."""
    model = await describe_model(settings, settings.embedder)
    embedder = make_embedder(settings, settings.embedder, purpose="bulk", model=model)
    cached = CachedEmbedder(embedder, settings.data_dir / "cache" / "evaluation")
    return EvaluationCollection(folder, cached, settings.embedder, settings)


def documents_of(passages: Mapping[UUID, HydratedPassage], ranking: Iterable[UUID]) -> list[str]:
    """Document ids of a ranking of points, each where its best passage stands."""
    return list(dict.fromkeys(passages[point_id].key.document_id for point_id in ranking))


def _collection(model: EmbeddingModel, settings: Settings) -> Collection:
    generation = Generation(
        generation_id=1,
        tenant=TENANT,
        collection=COLLECTION,
        number=1,
        state=GenerationState.SERVING,
        model=model,
        chunk_tokens=min(settings.chunk_tokens, model.max_tokens),
        chunk_overlap=settings.chunk_overlap,
    )
    return Collection(
        tenant=TENANT,
        name=COLLECTION,
        ordering=Ordering.LOG,
        on_failure=OnFailure.KEEP,
        default_access_level=AccessLevel.PUBLIC,
        default_allowed_groups=(),
        serving=generation,
        live=(generation,),
    )
