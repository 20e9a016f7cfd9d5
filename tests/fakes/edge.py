"""An HTTP edge on fakes: questions are answered by a script, documents come from a list."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
from starlette.types import ASGIApp

from api.auth import LocalAuthenticator
from api.edge import Edge, EdgeOptions
from api.routes import build_api, wrapped
from schemas.access import AccessLevel, Principal
from schemas.answers import (
    Answer,
    FailedEvent,
    MetaEvent,
    Passage,
    QuestionAsked,
    SourcesEvent,
    StreamEventName,
    TokenEvent,
)
from schemas.documents import DocumentKey
from schemas.positions import Position
from streams.errors import NotFound
from streams.model import (
    DeadLetter,
    DocumentRecord,
    DocumentStage,
    EmbeddingModel,
    HydratedPassage,
    SparseVector,
    WaitState,
    WaitVerdict,
)
from tests.fakes.conversations import InMemoryConversationStore
from tests.fakes.index import InMemoryIndex
from tests.fakes.stores import (
    InMemoryAnswerStore,
    InMemoryBlobStore,
    InMemoryCatalog,
    InMemoryPassageStore,
    World,
)
from tests.fakes.streams import InMemoryAnswerStream
from tests.fakes.watching import InMemoryChangeLog

TOKEN = "a-token-of-the-administrator"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class FakeEmbedder:
    model = EmbeddingModel("hash", "hash-v1", 8, 256)

    async def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 8), np.float32) / np.sqrt(np.float32(8))

    async def embed_query(self, text: str) -> np.ndarray:
        return (await self.embed_passages([text]))[0]


class FakeEmbedders:
    """One embedder for every model."""

    async def of(self, model: EmbeddingModel) -> FakeEmbedder:
        return FakeEmbedder()


class FakeSparse:
    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]:
        return [self.encode_query(text) for text in texts]

    def encode_query(self, text: str) -> SparseVector:
        terms = sorted({sum(word.encode()) for word in text.lower().split()})
        return SparseVector(terms, [1.0] * len(terms))


def a_passage(citation: int = 1, **changes: Any) -> Passage:
    passage = Passage(
        citation=citation,
        document_id="guides/retention.md",
        title="Retention",
        revision=7,
        text="Records are kept for 7 days. After that compaction may forget them.",
        score=0.87,
        heading_path=("Operations", "Retention"),
        start=120,
        end=187,
        updated_at=NOW,
        access_level=AccessLevel.PUBLIC,
    )
    return passage.model_copy(update=changes)


def a_piece(text: str, start: int = 0, *, revision: int = 7, ordinal: int = 0) -> HydratedPassage:
    """Of the document that ``a_passage`` is of."""
    return HydratedPassage(
        point_id=uuid4(),
        key=DocumentKey("default", "default", "guides/retention.md"),
        revision=revision,
        ordinal=ordinal,
        title="Retention",
        url=None,
        text=text,
        heading_path=("Operations",),
        page=None,
        start=start,
        end=start + len(text),
        tokens=len(text.split()),
        updated_at=NOW,
        access_level=AccessLevel.PUBLIC,
        metadata={},
    )


def an_answer(question: QuestionAsked, text: str, sources: Sequence[Passage] = (a_passage(),)) -> Answer:
    return Answer(
        query_id=question.question_id,
        request_id=question.request_id,
        query=question.query,
        answer=text,
        answered=True,
        sources=tuple(sources),
        confidence=0.9,
        took_ms=12.5,
        timestamp=NOW,
        generation=1,
    )


@dataclass
class ScriptedQuestionLog:
    """Answers every question with the same tokens, or fails it."""

    stream: InMemoryAnswerStream
    answers: InMemoryAnswerStore
    tokens: Sequence[str] = ("Records are kept ", "for 7 days [1].")
    failure: tuple[str, str] | None = None
    pause_s: float = 0.0
    hold: asyncio.Event | None = None
    """Answer only once it is set."""
    asked: list[QuestionAsked] = field(default_factory=list)
    error: Exception | None = None

    async def ask(self, question: QuestionAsked) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(question)
        self._task = asyncio.create_task(self._answer(question))

    async def _answer(self, question: QuestionAsked) -> None:
        attempt = await self.stream.begin(question.question_id, "script")
        seq = 0

        async def put(name: StreamEventName, event: Any) -> None:
            nonlocal seq
            seq += 1
            await self.stream.append(question.question_id, attempt, seq, [(name.value, event.model_dump_json())])

        url = f"/api/v1/queries/{question.question_id}/stream"
        await put(StreamEventName.META, MetaEvent(query_id=question.question_id, stream_url=url, generation=1))
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            await self.answers.save_failure(question, *self.failure, attempt)
            await put(StreamEventName.FAILED, FailedEvent(reason=self.failure[0], detail=self.failure[1]))
            return
        await put(StreamEventName.SOURCES, SourcesEvent(sources=(a_passage(),)))
        for token in self.tokens:
            await asyncio.sleep(self.pause_s)
            await put(StreamEventName.TOKEN, TokenEvent(text=token))
        answer = an_answer(question, "".join(self.tokens))
        await self.answers.save(question, answer, attempt)
        await put(StreamEventName.DONE, answer)


def a_document(document_id: str = "guides/retention.md", **changes: Any) -> DocumentRecord:
    key = DocumentKey("default", "default", document_id)
    record = DocumentRecord(
        key=key,
        stage=DocumentStage.EMBEDDED,
        revision=7,
        applied_revision=7,
        title="Retention",
        url=None,
        content_type="text/markdown",
        size_bytes=2048,
        passages=4,
        passages_without_vector=0,
        access_level=AccessLevel.PUBLIC,
        allowed_groups=(),
        metadata={},
        accepted_at=NOW,
        position=Position(0, 1, 7, key).encode(),
    )
    return replace(record, **changes)


@dataclass
class FakeDirectory:
    documents: dict[str, DocumentRecord] = field(default_factory=dict)
    verdicts: list[WaitState] = field(default_factory=lambda: [WaitState(WaitVerdict.EMBEDDED)])
    """What successive looks find; the last one stays."""
    passages: list[HydratedPassage] = field(default_factory=list)
    """What every excerpt has."""

    async def get(self, principal: Principal, collection: str, document_id: str) -> DocumentRecord | None:
        return self.documents.get(document_id)

    async def list_documents(
        self,
        principal: Principal,
        collection: str,
        *,
        after: str | None = None,
        limit: int = 100,
        stage: DocumentStage | None = None,
        newest_first: bool = False,
    ) -> list[DocumentRecord]:
        ids = sorted(self.documents)
        return [self.documents[i] for i in ids if (after is None or i > after)][:limit]

    async def wait_state(self, position: Position) -> WaitState:
        return self.verdicts.pop(0) if len(self.verdicts) > 1 else self.verdicts[0]

    async def excerpt(
        self, principal: Principal, collection: str, document_id: str, *, start: int, end: int, context: int
    ) -> list[HydratedPassage]:
        return self.passages

    async def status(self, tenant: str) -> Mapping[str, Any]:
        return {
            "documents": {"received": 128, "searchable": 126, "embedded": 120, "failed": 2, "withheld": 0},
            "passages": 2104,
            "passages_without_vector": 35,
            "freshness_ms": {"searchable": {"p50": 31.0, "p95": 84.0}, "embedded": {"p50": 140.0, "p95": 410.0}},
            "embedded": {"passages": 2069, "tokens": 400000},
            "dead_letters": 1,
            "generations": {"default": 1},
            "oldest_unapplied_s": 0.4,
        }


@dataclass
class FakeHistory:
    """Past passages, for excerpts."""

    passages: list[HydratedPassage] = field(default_factory=list)

    async def excerpt(
        self, principal: Principal, collection: str, document_id: str, revision: int, **_: int
    ) -> list[HydratedPassage]:
        return [passage for passage in self.passages if passage.revision == revision]


@dataclass
class FakeDeadLetters:
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Listed still, but no longer in the topic."""
    replayed: list[str] = field(default_factory=list)

    async def list_dead_letters(self, **_: Any) -> list[DeadLetter]:
        return list(self.letters.values())

    async def get(self, letter_id: str) -> DeadLetter | None:
        return self.letters.get(letter_id)

    async def value(self, letter_id: str) -> bytes | None:
        return b"\x00not json"

    async def replay(self, letter_id: str) -> None:
        if letter_id in self.gone:
            raise NotFound(letter_id)
        self.replayed.append(letter_id)


def a_dead_letter(letter_id: str) -> DeadLetter:
    return DeadLetter(
        letter_id=letter_id,
        key=b"default/default/broken.json",
        reason="not-json",
        detail="no JSON",
        stage="chunker",
        attempts=1,
        topic="leat.documents.v1",
        partition=0,
        offset=int(letter_id.partition("-")[2]),
        group="leat.chunker.documents",
        died_at=datetime.now(UTC),
        revision=None,
        event_id=None,
    )


@dataclass
class FakeEdge:
    """The parts, to look into and to turn, and the application."""

    stream: InMemoryAnswerStream
    answers: InMemoryAnswerStore
    questions: ScriptedQuestionLog
    changes: InMemoryChangeLog
    blobs: InMemoryBlobStore
    directory: FakeDirectory
    dead_letters: FakeDeadLetters
    edge: Edge
    app: ASGIApp

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://127.0.0.1:8765",
            headers={"Authorization": f"Bearer {TOKEN}", **headers},
        )


async def _fine() -> None:
    return None


async def _no_lag() -> Mapping[str, int]:
    return {"leat.chunker.documents": 0}


def an_edge(options: EdgeOptions | None = None, **parts: Any) -> FakeEdge:
    stream, answers, world = InMemoryAnswerStream(), InMemoryAnswerStore(), World()
    conversations = InMemoryConversationStore(world, answers)
    directory, letters = FakeDirectory(), FakeDeadLetters()
    questions = ScriptedQuestionLog(stream, answers)
    changes, blobs = InMemoryChangeLog(), InMemoryBlobStore()
    given: dict[str, Any] = {
        "authenticator": LocalAuthenticator(TOKEN, tenant="default"),
        "catalog": InMemoryCatalog(world),
        "embedders": FakeEmbedders(),
        "sparse": FakeSparse(),
        "index": InMemoryIndex(),
        "passages": InMemoryPassageStore(world),
        "answers": answers,
        "conversations": conversations,
        "stream": stream,
        "questions": questions,
        "changes": changes,
        "blobs": blobs,
        "directory": directory,
        "status": directory,
        "dead_letters": letters,
        "administration": None,
        "lag": _no_lag,
        "checks": {"postgres": _fine},
        "options": options or EdgeOptions(version="1.2.3"),
    }
    edge = Edge(**(given | parts))
    return FakeEdge(
        stream, answers, questions, changes, blobs, directory, letters, edge, wrapped(build_api(edge), edge)
    )
