"""The whole pipeline in one process, on real Kafka, PostgreSQL and Qdrant Edge, for integration tests."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from consumers.app import PIPELINE, wired
from consumers.wiring.role import Wiring
from infra.index import serve_index
from infra.kafka.admin import ensure_topics
from infra.postgres.migrate import migrate
from infra.resources import Resources, open_resources
from infra.settings import Settings
from schemas.access import AccessLevel, Principal
from schemas.answers import Passage, RetrievalOptions
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.pipeline import IndexCommitted
from schemas.topics import DEAD_LETTERS, DOCUMENTS, INDEX_COMMITS, Topic, prefixed
from streams.letters import letter_of
from streams.model import DeadLetter
from streams.retrieve import retrieve
from tests.services import Services

DEADLINE_S = 60.0
ADMINISTRATOR = Principal(subject="tests", clearance=AccessLevel.RESTRICTED, every_group=True)


async def eventually(condition: Callable[[], Awaitable[Any]], *, within_s: float = DEADLINE_S) -> Any:
    """The first true value of a condition; fails with the last value seen when the deadline passes."""
    deadline = time.monotonic() + within_s
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s} s; last seen: {value!r}"
        await asyncio.sleep(0.02)


@dataclass
class Pipeline:
    """A running pipeline, a producer of its own, and what it said so far."""

    settings: Settings
    resources: Resources
    producer: AIOKafkaProducer
    wiring: Wiring | None = None
    outcomes: list[IndexCommitted] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    def topic(self, topic: Topic) -> str:
        return prefixed(topic.name, self.settings.topic_prefix)

    async def produce(self, key: str | bytes | None, value: bytes | None, **options: Any) -> Any:
        """A raw record on the documents topic."""
        raw = key.encode() if isinstance(key, str) else key
        return await self.producer.send_and_wait(self.topic(DOCUMENTS), value, key=raw, **options)

    async def change(self, document_id: str, text: str | None, **fields: Any) -> IndexCommitted:
        """Publish an upsert (text) or a deletion (None) and wait for its outcome."""
        number = len(self.outcomes)
        event_id = fields.pop("event_id", f"{document_id}-{number}-{time.monotonic_ns()}")
        changed = (
            DocumentChanged(text=text, event_id=event_id, **fields)
            if text is not None
            else DocumentChanged(change=fields.pop("change", Change.DELETE), event_id=event_id, **fields)
        )
        key = DocumentKey("default", "default", document_id)
        await self.produce(key.encode(), changed.model_dump_json(exclude_none=True).encode())
        return await self.outcome(event_id)

    async def outcome(self, event_id: str) -> IndexCommitted:
        async def said() -> IndexCommitted | None:
            return next((outcome for outcome in self.outcomes if outcome.event_id == event_id), None)

        found = await eventually(said)
        assert isinstance(found, IndexCommitted)
        return found

    async def letter(self, event_id: str) -> DeadLetter:
        async def found() -> DeadLetter | None:
            return next((letter for letter in self.letters if letter.event_id == event_id), None)

        letter = await eventually(found)
        assert isinstance(letter, DeadLetter)
        return letter

    async def search(
        self, query: str, *, principal: Principal = ADMINISTRATOR, collection: str = "default"
    ) -> tuple[Passage, ...]:
        found = await self.resources.catalog.find("default", collection)
        assert found is not None
        retrieval = await retrieve(
            query,
            principal,
            RetrievalOptions(collection=collection, top_k=10, threshold=0.0),
            collection=found,
            embedder=await self.resources.query_embedders.of(found.serving.model),
            sparse=self.resources.sparse,
            index=self.resources.index,
            passages=self.resources.passages,
        )
        return retrieval.passages

    async def texts(self, query: str, **options: Any) -> list[str]:
        return [passage.text for passage in await self.search(query, **options)]

    async def fully_embedded(self) -> None:
        async def level() -> bool:
            status = await self.resources.directory.status("default")
            return status["passages_without_vector"] == 0

        await eventually(level)


@asynccontextmanager
async def prepared(services: Services, folder: Path, **overrides: object) -> AsyncIterator[Pipeline]:
    """Topics, tables, an index process and a producer; no consumers yet."""
    settings = services.settings(
        **{"postgres_dsn": await services.new_database(), "data_dir": folder, "embedder": "hash", **overrides}
    )
    await migrate(settings.postgres_dsn or "")
    await ensure_topics(settings)
    index = asyncio.create_task(serve_index(settings))
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    wanted = {"index", "sparse", "query_embedders", "change_log", "log_reader", "dead_letters"}
    try:
        async with open_resources(settings, want=wanted) as resources:
            running = Pipeline(settings, resources, producer)
            follower = asyncio.create_task(_follow(running))
            try:
                yield running
            finally:
                follower.cancel()
                with suppress(asyncio.CancelledError):
                    await follower
    finally:
        await producer.stop()
        index.cancel()
        with suppress(asyncio.CancelledError):
            await index


@asynccontextmanager
async def pipeline(services: Services, folder: Path, **overrides: object) -> AsyncIterator[Pipeline]:
    """A prepared installation with all consumers of the pipeline."""
    async with (
        prepared(services, folder, **overrides) as running,
        wired(PIPELINE, running.settings, asyncio.Event()) as wiring,
    ):
        running.wiring = wiring
        yield running
        assert wiring.bug is None, wiring.bug


async def _follow(running: Pipeline) -> None:
    topics = [running.topic(INDEX_COMMITS), running.topic(DEAD_LETTERS)]
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=running.settings.kafka_bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async for raw in consumer:
            if raw.topic == topics[0]:
                running.outcomes.append(IndexCommitted.model_validate_json(raw.value))
            else:
                from infra.kafka.log_reader import as_record

                running.letters.append(letter_of(as_record(raw, DEAD_LETTERS.name)))
    finally:
        await consumer.stop()
