"""What the pipeline needs from the outside world: one protocol per role. Adapters live in ``infra``.

Every method may raise ``TransientError`` (try again in a moment) or ``Unavailable`` (the dependency is down). Other
errors are named in the docstrings. Calls are idempotent: doing it twice is doing it once.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from schemas.access import Principal
from schemas.answers import Answer, QuestionAsked
from schemas.documents import DocumentChanged, DocumentKey
from schemas.positions import Position
from streams.model import (
    Admission,
    AdmissionRequest,
    Candidates,
    CitedRevision,
    Collection,
    Content,
    ConversationSummary,
    DeadLetter,
    DeletedConversations,
    DocumentRecord,
    DocumentStage,
    EmbeddingModel,
    Flip,
    FloatMatrix,
    FloatVector,
    Freshness,
    Generation,
    HydratedPassage,
    IndexScope,
    Manifest,
    ParsedDocument,
    Point,
    SparseVector,
    Turn,
    WaitState,
)
from streams.records import Record
from streams.watch import FileState, WatchedFolder

# Models


class TokenCounter(Protocol):
    """Counts tokens of an embedding model without running it."""

    def count(self, text: str) -> int:
        """Approximate (mean error below 1 %), fast: for sums far from a limit."""
        ...

    def count_exact(self, text: str) -> int:
        """As the model's tokenizer counts, special tokens not included."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors. Runs in threads of its own; the event loop stays free."""

    @property
    def model(self) -> EmbeddingModel: ...

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        """One unit-length vector per text, shape (len(texts), dimensions), float32, in the order of the texts."""
        ...

    async def embed_query(self, text: str) -> FloatVector:
        """The vector of a question; some models embed questions unlike passages."""
        ...


class QueryEmbedders(Protocol):
    """Embedders of questions: each generation is asked with the model that its passages were embedded with."""

    async def of(self, model: EmbeddingModel) -> Embedder | None:
        """The embedder of a model, the same one every time; None where the model cannot be had here."""
        ...


class SparseEncoder(Protocol):
    """Turns text into weighted terms. The index multiplies them with inverse document frequencies."""

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]: ...

    def encode_query(self, text: str) -> SparseVector: ...


class Parser(Protocol):
    """Reads content of any supported format."""

    async def parse(self, content: Content) -> ParsedDocument:
        """Text and structure of a document.

        Raises:
            UnreadableDocument: with a reason that a person understands; retrying cannot help.
        """
        ...


class TextGenerator(Protocol):
    """A language model that continues a conversation."""

    @property
    def name(self) -> str: ...

    def stream(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> AsyncIterator[str]:
        """Pieces of text as they are generated. Closing the iterator stops the generation."""
        ...


# Stores


class VectorIndex(Protocol):
    """Dense and sparse vectors of passages, searched under a scope. A *space* holds vectors of one model."""

    async def ensure_space(self, space: str, dimensions: int) -> None: ...

    async def upsert(self, space: str, points: Sequence[Point]) -> None:
        """Store points; a point with a known id is replaced."""
        ...

    async def update_vectors(self, space: str, vectors: Mapping[UUID, FloatVector]) -> frozenset[UUID]:
        """Give dense vectors to points that are there. Returns the ids that are not."""
        ...

    async def delete(self, space: str, point_ids: Sequence[UUID]) -> None: ...

    async def delete_generation(self, space: str, generation_id: int) -> None: ...

    async def search(
        self,
        space: str,
        scope: IndexScope,
        *,
        dense: FloatVector | None,
        sparse: SparseVector | None,
        limit: int,
    ) -> Candidates:
        """The ``limit`` best of each leg that has a vector.

        Points without a dense vector are only in the sparse leg.
        """
        ...

    async def scroll(
        self, space: str, generation_id: int, *, after: UUID | None, limit: int
    ) -> list[tuple[UUID, bool]]:
        """Ids in ascending order behind ``after``, each with whether it has a dense vector.

        Shorter than limit: the end.
        """
        ...

    async def count(self, space: str, generation_id: int) -> int: ...


class BlobStore(Protocol):
    """Content of documents by SHA-256, per tenant."""

    async def put(self, tenant: str, data: bytes) -> str:
        """Store durably; returns the hex SHA-256."""
        ...

    async def get(self, tenant: str, sha256: str) -> bytes:
        """The content, its hash verified.

        Raises:
            NotFound: no such blob.
            PermanentError: ``blob-corrupt``, the stored bytes have another hash.
        """
        ...


class Catalog(Protocol):
    """Collections and their generations. Answers may be cached for a second."""

    async def collection(self, tenant: str, name: str) -> Collection:
        """The collection; one that is written to for the first time is created with the defaults.

        Concurrent first uses create it once.
        """
        ...

    async def find(self, tenant: str, name: str) -> Collection | None: ...

    async def generation(self, generation_id: int) -> Generation | None: ...


class DocumentLedger(Protocol):
    """The fold of the documents topic: the newest change of each document, permissions and deletions in force at
    once.
    """

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        """Fold changes in, in order; one answer per request.

        After it returns, a deletion or access change is in force.
        """
        ...

    async def first_offset(self, sent_home_from: str, offset: int) -> int:
        """Where the record sent home from there arrived first: this offset, or an earlier one if it comes once more."""
        ...

    async def heads(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """The newest admitted revision per document."""
        ...


class ManifestStore(Protocol):
    """What each generation serves of each document, behind a fence."""

    async def read(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[DocumentKey, Manifest]:
        """Manifests of the documents that have one."""
        ...

    async def flip(self, flips: Sequence[Flip]) -> list[bool]:
        """Let manifests take effect, all in one transaction; False where the fence refused (an equal or newer
        revision).
        """
        ...

    async def missing_vectors(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[UUID, bytes]:
        """Point id to content hash of the live passages of these documents that have no vector yet."""
        ...

    async def mark_embedded(self, generation_id: int, point_ids: Sequence[UUID]) -> None:
        """Their vectors are in the index. Documents without a missing vector become *embedded*."""
        ...

    async def discard(self, space: str, point_ids: Sequence[UUID]) -> None:
        """Put points that no live passage has into the garbage: they were written for a flip that the fence refused."""
        ...

    async def take_garbage(self, *, older_than_s: float, limit: int) -> list[tuple[str, UUID]]:
        """Dead points (space, id) that may be swept."""
        ...

    async def forget_garbage(self, point_ids: Sequence[UUID]) -> None: ...


class VectorCache(Protocol):
    """Vectors by (tenant, fingerprint, content hash); what was embedded once is never embedded again."""

    async def get(self, tenant: str, fingerprint: str, hashes: Sequence[bytes]) -> dict[bytes, FloatVector]: ...

    async def put(self, tenant: str, fingerprint: str, vectors: Mapping[bytes, FloatVector], *, tokens: int) -> None:
        """Insert where absent; ``tokens`` were spent on them (counted for ``leat status``)."""
        ...


class PassageStore(Protocol):
    """Texts of passages, handed out only after a re-check."""

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        """Those candidates that are live in the generation, not deleted, and that the principal may read."""
        ...

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        """Passages of one document by their ordinal, in reading order, under the same re-check."""
        ...

    async def freshness(self, tenant: str, collection: str) -> Freshness: ...

    async def unchanged(self, principal: Principal, generation_id: int, seen: Sequence[CitedRevision]) -> bool:
        """Whether all these documents still are what they were, none has a change under way, and the principal may
        read each of them.
        """
        ...


class AnswerStore(Protocol):
    """Finished answers by question id, and who may read them."""

    async def save(self, question: QuestionAsked, answer: Answer, attempt: int) -> None:
        """Store the answer unless one is stored already."""
        ...

    async def save_failure(self, question: QuestionAsked, reason: str, detail: str, attempt: int) -> None: ...

    async def find(self, tenant: str, question_id: str) -> "StoredAnswer | None": ...


class StoredAnswer(Protocol):
    @property
    def subject(self) -> str: ...
    @property
    def state(self) -> str:
        """``done`` or ``failed``."""
        ...

    @property
    def answer(self) -> Answer | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...


class ConversationStore(Protocol):
    """Conversations of users: owned state. A user's conversations are visible to that user alone."""

    async def turns(self, principal: Principal, conversation_id: str, *, limit: int = 100) -> list[Turn]:
        """The newest ``limit`` turns, in the order in which they were asked."""
        ...

    async def add(self, question: QuestionAsked, answer: Answer) -> None:
        """Keep a turn. Begins the conversation with its first turn; not if it was deleted after the question."""
        ...

    async def find(self, principal: Principal, conversation_id: str) -> ConversationSummary | None: ...

    async def list_conversations(
        self, principal: Principal, *, before: ConversationSummary | None = None, limit: int = 100
    ) -> list[ConversationSummary]:
        """The most recently used first."""
        ...

    async def delete(self, principal: Principal, conversation_id: str | None) -> DeletedConversations:
        """Delete one conversation, or all of the user's, and the stored answers in them."""
        ...


class AnswerCache(Protocol):
    """Answers by everything that decides them, for a few minutes."""

    async def get(self, key: str) -> Answer | None: ...

    async def put(self, key: str, answer: Answer) -> None: ...


class Asker(NamedTuple):
    """Who asked a question that may still be unanswered."""

    tenant: str
    subject: str
    deadline_at: datetime


class AnswerStream(Protocol):
    """The tokens of an answer on their way to readers, in a Redis Stream per question.

    Entries have the id ``attempt-seq``; the stream refuses ids that do not grow, so a worker whose question was taken
    over can no longer write. The same id is the SSE ``id``, so ``Last-Event-ID`` resumes at it.
    """

    async def begin(self, question_id: str, owner: str) -> int:
        """Start a new attempt: 1, 2, …"""
        ...

    async def append(self, question_id: str, attempt: int, seq: int, events: Sequence[tuple[str, str]]) -> None:
        """Append (event name, JSON data) pairs under ``attempt-seq``, ``attempt-(seq+1)`` …

        Raises:
            StaleAttempt: a newer attempt has written.
        """
        ...

    def read(self, question_id: str, *, after: str | None) -> AsyncGenerator[tuple[str, str, str], None]:
        """(id, event name, JSON data) behind ``after``, live, until a terminal event. None: from the beginning.

        A reader counts as present (see ``attended``) while the iterator is open.

        Raises:
            StreamLost: what follows ``after`` is no longer in the buffer.
            Unavailable: the buffer has not answered for some seconds.
            ValueError: ``after`` is not an id of a stream.
        """
        ...

    async def announce(self, question: QuestionAsked) -> None:
        """Remember who asks, so that others may not read along before there is a stored answer."""
        ...

    async def asker(self, question_id: str) -> "Asker | None":
        """Who asked; None when the question is not known, or was forgotten."""
        ...

    async def exists(self, question_id: str) -> bool: ...

    async def forget(self, question_ids: Sequence[str]) -> None:
        """Drop streams, and who asked."""
        ...

    async def stop(self, question_id: str) -> None:
        """Ask the worker to stop generating."""
        ...

    async def stop_requested(self, question_id: str) -> bool: ...

    async def attended(self, question_id: str) -> bool:
        """Whether any reader, in any process, has the stream open now."""
        ...


class WatchedFiles(Protocol):
    """The watcher's memory of a folder: what the log has acknowledged, and deletions that wait for a person."""

    async def load(self, folder: WatchedFolder) -> dict[str, FileState]:
        """What has been published, by document id."""
        ...

    async def remember(
        self, folder: WatchedFolder, published: Mapping[str, FileState], *, forget: Iterable[str] = ()
    ) -> None:
        """These files are in the log as they are here; these documents are deleted in the log."""
        ...

    async def withhold(self, folder: WatchedFolder, document_ids: Iterable[str]) -> None:
        """Exactly these deletions wait for approval now; approvals of those that stay are kept, others are dropped."""
        ...

    async def waiting(self, folder: WatchedFolder) -> dict[str, bool]:
        """The withheld deletions, and whether a person has approved each since."""
        ...

    async def report_unreadable(self, folder: WatchedFolder, reasons: Mapping[str, str]) -> None:
        """Exactly these files cannot be read now, and why; for ``leat status``."""
        ...


# The log


class ChangeLog(Protocol):
    """Publishes document changes; a change is accepted when this returns."""

    async def publish(self, key: DocumentKey, change: DocumentChanged | None, *, bulk: bool = False) -> Position:
        """Append to the documents topic with ``acks=all``. None is a bare tombstone."""
        ...

    async def publish_many(
        self, changes: Sequence[tuple[DocumentKey, DocumentChanged]], *, bulk: bool = False
    ) -> list[Position]: ...


class LogReader(Protocol):
    """Reads single records back."""

    async def read(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at that position; None when retention or compaction has removed it."""
        ...


class QuestionLog(Protocol):
    async def ask(self, question: QuestionAsked) -> None: ...


# Looking at what is there


class DocumentDirectory(Protocol):
    """Documents as their readers may know them: state, paging, waiting for a change."""

    async def get(self, principal: Principal, collection: str, document_id: str) -> DocumentRecord | None:
        """None also when the principal may not read the document."""
        ...

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
        """Documents by id behind ``after``; or the newest changes, ``after`` ignored.

        Deleted ones only if asked for.
        """
        ...

    async def wait_state(self, position: Position) -> WaitState:
        """What has become of the change at a position, looked at once."""
        ...

    async def excerpt(
        self, principal: Principal, collection: str, document_id: str, *, start: int, end: int, context: int
    ) -> list[HydratedPassage]:
        """Live passages of a document that touch the range widened by ``context`` code points, in reading order."""
        ...


class StatusBoard(Protocol):
    async def status(self, tenant: str) -> Mapping[str, Any]:
        """As ``leat status --json``."""
        ...


class DeadLetterDesk(Protocol):
    """Dead letters for people: listed, looked at, sent back."""

    async def list_dead_letters(
        self,
        *,
        include_resolved: bool = False,
        reason: str | None = None,
        tenant: str | None = None,
        collection: str | None = None,
        before: DeadLetter | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Newest first, without their values."""
        ...

    async def get(self, letter_id: str) -> DeadLetter | None: ...

    async def value(self, letter_id: str) -> bytes | None:
        """The original bytes.

        Raises:
            NotFound: retention has removed the letter.
        """
        ...

    async def replay(self, letter_id: str) -> None:
        """Ask the pipeline to process the record again, under its old revision.

        Raises:
            NotFound: retention has removed the letter.
        """
        ...
