"""Retrieval against an index and a store in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

import numpy as np
import pytest

from infra.sparse import make_sparse_encoder
from schemas.access import AccessLevel, Principal
from schemas.answers import RetrievalOptions
from schemas.documents import DocumentKey
from streams.errors import Unavailable
from streams.model import (
    Collection,
    EmbeddingModel,
    FloatMatrix,
    FloatVector,
    Freshness,
    Generation,
    GenerationState,
    HydratedPassage,
    OnFailure,
    Ordering,
    Point,
    PointPayload,
)
from streams.retrieve import Retrieval, retrieve
from tests.fakes.index import InMemoryIndex

NAMESPACE = UUID("8f7f6a54-0000-4000-8000-000000000000")
MODEL = EmbeddingModel("letters", "letters-1", 26, 254)
GENERATION = Generation(7, "default", "default", 3, GenerationState.SERVING, MODEL, 254, 50)
COLLECTION = Collection(
    "default", "default", Ordering.LOG, OnFailure.KEEP, AccessLevel.PUBLIC, (), GENERATION, (GENERATION,)
)
READER = Principal(subject="reader")


class LetterEmbedder:
    """Means by the letters of a text: enough for a dense leg with an order."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down

    @property
    def model(self) -> EmbeddingModel:
        return MODEL

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        return np.stack([self._vector(text) for text in texts])

    async def embed_query(self, text: str) -> FloatVector:
        if self.down:
            raise Unavailable("embedder", "down")
        return self._vector(text)

    def _vector(self, text: str) -> FloatVector:
        counts = np.array([text.lower().count(chr(97 + place)) for place in range(26)], dtype=np.float32)
        return (counts + 0.01) / np.linalg.norm(counts + 0.01)


class Shelf:
    """A ``PassageStore`` and an index of the same passages; passages may vanish between search and hydration."""

    def __init__(self) -> None:
        self.index = InMemoryIndex()
        self.live: dict[UUID, HydratedPassage] = {}
        self.hydrations = 0
        self.on_first_hydration = lambda: None

    async def put(self, document_id: str, text: str, *, embedded: bool = True) -> UUID:
        passage = a_hydrated(document_id, text, embedded=embedded)
        self.live[passage.point_id] = passage
        [sparse] = make_sparse_encoder().encode_passages([text])
        dense = LetterEmbedder()._vector(text) if embedded else None
        payload = PointPayload("default", GENERATION.generation_id, document_id, 0, ())
        await self.index.ensure_space(GENERATION.space, MODEL.dimensions)
        await self.index.upsert(GENERATION.space, [Point(passage.point_id, payload, sparse, dense)])
        return passage.point_id

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        self.hydrations += 1
        if self.hydrations == 1:
            self.on_first_hydration()
        return {point_id: self.live[point_id] for point_id in point_ids if point_id in self.live}

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        return []

    async def freshness(self, tenant: str, collection: str) -> Freshness:
        return Freshness(None, 0.0)

    async def ask(self, query: str, *, down: bool = False, surrounded: bool = False, **options: object) -> Retrieval:
        return await retrieve(
            query,
            READER,
            RetrievalOptions(**options),
            collection=COLLECTION,
            embedder=LetterEmbedder(down=down),
            sparse=make_sparse_encoder(),
            index=self.index,
            passages=self,
            surrounded_from=self if surrounded else None,
        )


def a_hydrated(document_id: str, text: str, *, embedded: bool = True) -> HydratedPassage:
    return HydratedPassage(
        point_id=uuid5(NAMESPACE, f"{document_id}/{text}"),
        key=DocumentKey("default", "default", document_id),
        revision=5,
        ordinal=0,
        title=document_id,
        url=None,
        text=text,
        heading_path=(),
        page=None,
        start=0,
        end=len(text),
        tokens=10,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        access_level=AccessLevel.PUBLIC,
        metadata={"team": "core"},
        embedded=embedded,
    )


@pytest.fixture
async def shelf() -> Shelf:
    shelf = Shelf()
    await shelf.put("kafka.md", "Kafka keeps records in topics that are split into partitions.")
    await shelf.put("qdrant.md", "Qdrant finds vectors that are near each other.")
    await shelf.put("redis.md", "Redis streams carry the tokens of an answer.")
    return shelf


async def test_passages_come_best_first_with_citations_from_one(shelf: Shelf) -> None:
    retrieval = await shelf.ask("Which topics does Kafka keep records in?")
    assert [passage.citation for passage in retrieval.passages] == [1, 2, 3]
    assert retrieval.passages[0].document_id == "kafka.md"
    assert retrieval.passages[0].metadata == {"team": "core"}
    scores = [passage.score for passage in retrieval.passages]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert retrieval.generation == 3
    assert not retrieval.degraded
    assert set(retrieval.timings_ms) == {"embed", "search", "hydrate", "rank", "total"}


async def test_without_the_embedder_words_decide_and_it_says_so(shelf: Shelf) -> None:
    retrieval = await shelf.ask("Which topics does Kafka keep records in?", down=True)
    assert retrieval.passages[0].document_id == "kafka.md"
    assert retrieval.degraded
    assert retrieval.degraded_reason == "embedder-unavailable"
    assert retrieval.similarity is None


async def test_top_k_and_threshold_limit_what_comes_back(shelf: Shelf) -> None:
    assert len((await shelf.ask("Kafka topics", top_k=1)).passages) == 1
    assert (await shelf.ask("Kafka topics", threshold=1.0)).passages == ()


async def test_what_is_not_live_is_never_shown(shelf: Shelf) -> None:
    gone = await shelf.put("secret.md", "Kafka keeps records in topics, said the deleted document.")
    del shelf.live[gone]
    retrieval = await shelf.ask("Which topics does Kafka keep records in?")
    assert "secret.md" not in {passage.document_id for passage in retrieval.passages}


async def test_a_document_that_moves_on_meanwhile_is_found_in_its_new_revision(shelf: Shelf) -> None:
    old = await shelf.put("news.md", "The moon landing is planned for May.")
    fresh = a_hydrated("news.md", "The moon landing is planned for June.")
    [sparse] = make_sparse_encoder().encode_passages([fresh.text])
    payload = PointPayload("default", GENERATION.generation_id, "news.md", 0, ())

    def flip() -> None:
        del shelf.live[old]
        shelf.live[fresh.point_id] = fresh
        shelf.index.spaces[GENERATION.space][fresh.point_id] = Point(fresh.point_id, payload, sparse, None)

    shelf.on_first_hydration = flip
    retrieval = await shelf.ask("When is the moon landing planned?")
    assert retrieval.passages[0].text == fresh.text
    assert shelf.hydrations == 2


async def test_dead_points_that_wait_for_the_sweep_cost_one_more_search_only(shelf: Shelf) -> None:
    gone = await shelf.put("dead.md", "Kafka keeps dead records.")
    del shelf.live[gone]
    await shelf.ask("Kafka records")
    assert shelf.hydrations == 2


async def test_near_duplicates_are_merged(shelf: Shelf) -> None:
    text = "The maximum size of a record is one mebibyte unless the topic says otherwise in its own configuration."
    await shelf.put("limits.md", text)
    await shelf.put("limits.md", text + " ")
    retrieval = await shelf.ask("What is the maximum size of a record?")
    assert [passage.document_id for passage in retrieval.passages].count("limits.md") == 1


async def test_a_passage_that_is_not_embedded_yet_is_found_by_its_words(shelf: Shelf) -> None:
    await shelf.put("new.md", "Zookeeper was removed in version 4.0 of the broker.", embedded=False)
    retrieval = await shelf.ask("In which version was Zookeeper removed?")
    assert retrieval.passages[0].document_id == "new.md"
