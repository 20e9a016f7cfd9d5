"""The indexer's handler on fakes: what a crash or an outage in the middle leaves to the redelivery."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.indexer import IndexerParts, Words
from schemas.base import Event
from schemas.documents import DocumentKey
from schemas.pipeline import DocumentChunked, IndexCommitted, Outcome
from schemas.topics import CHUNKS, Topic
from streams.errors import Unavailable
from streams.model import Flip, SparseVector
from streams.records import Record
from tests.fakes.index import InMemoryIndex
from tests.fakes.stores import (
    InMemoryCatalog,
    InMemoryDocumentLedger,
    InMemoryManifestStore,
    InMemoryVectorCache,
    World,
)
from tests.store_data import a_request
from tests.unit.test_index_plan import chunked

KEY = DocumentKey("default", "docs", "a.md")


class Said:
    """An outbox that keeps what was published."""

    def __init__(self) -> None:
        self.outcomes: list[IndexCommitted] = []

    @asynccontextmanager
    async def sending(self) -> AsyncIterator["Said"]:
        yield self

    async def event(self, topic: Topic, event: Event, *, key: bytes, partition: int | None = None) -> None:
        assert isinstance(event, IndexCommitted)
        self.outcomes.append(event)


class Manifests(InMemoryManifestStore):
    """Fails as often as it is told to."""

    failures = 0

    async def flip(self, flips: Sequence[Flip]) -> list[bool]:
        if self.failures:
            self.failures -= 1
            raise Unavailable("postgres", "connection refused")
        return await super().flip(flips)


class EveryWord:
    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector([len(text)], [1.0]) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        return SparseVector([len(text)], [1.0])


class Indexing:
    """The handler, its stores, and records for it."""

    def __init__(self) -> None:
        self.world = World()
        self.catalog = InMemoryCatalog(self.world)
        self.manifests = Manifests(self.world)
        self.index = InMemoryIndex()
        self.said = Said()
        parts = IndexerParts(self.catalog, self.manifests, InMemoryVectorCache(), self.index, EveryWord())
        self.handle = Words(parts, outbox=self.said).on_documents_chunked  # type: ignore[arg-type]

    async def admitted(self, *revisions: int) -> None:
        await self.catalog.collection("default", "docs")
        await InMemoryDocumentLedger(self.world).admit([a_request(KEY, revision) for revision in revisions])

    def record(self, event: DocumentChunked, offset: int, **changes: Any) -> Record:
        update: Mapping[str, Any] = {"generation_id": 1, **changes}
        value = event.model_copy(update=update).model_dump_json().encode()
        return Record(CHUNKS.name, 0, offset, datetime.now(UTC), KEY.encode(), value)


@pytest.fixture
def indexing() -> Indexing:
    return Indexing()


async def test_redelivery_after_a_crash_behind_the_flip_still_says_applied(indexing: Indexing) -> None:
    await indexing.admitted(1)
    record = indexing.record(chunked("one"), 0)
    await indexing.handle([record])
    indexing.said.outcomes.clear()  # the process died before it had said so
    await indexing.handle([record])
    assert [outcome.outcome for outcome in indexing.said.outcomes] == [Outcome.APPLIED]


async def test_revision_behind_a_newer_one_is_said_to_be_superseded(indexing: Indexing) -> None:
    await indexing.admitted(1, 2)
    await indexing.handle([indexing.record(chunked("two", revision=2), 0)])
    await indexing.handle([indexing.record(chunked("one", revision=1), 1)])
    assert [outcome.outcome for outcome in indexing.said.outcomes] == [Outcome.APPLIED, Outcome.SUPERSEDED]


async def test_outage_at_the_last_part_does_not_forget_the_parts_of_earlier_batches(indexing: Indexing) -> None:
    await indexing.admitted(1)
    first, last = (
        indexing.record(chunked(f"text {number}"), number, part=number, parts=2, digest=b"d") for number in (1, 2)
    )
    assert (await indexing.handle([first])).holding == {0: 1}
    indexing.manifests.failures = 1
    with pytest.raises(Unavailable):
        await indexing.handle([last])
    handled = await indexing.handle([last])  # only the batch that failed comes again
    assert handled.holding == {}
    assert [outcome.passages_added for outcome in indexing.said.outcomes] == [2]
