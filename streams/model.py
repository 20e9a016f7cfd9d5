"""Plain values that steps and ports exchange. No I/O, no wire format: events are in ``schemas``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt

from schemas.access import AccessLevel, Principal
from schemas.documents import Change, DocumentKey
from schemas.pipeline import DocumentAttributes, Lane, Origin

FloatVector = npt.NDArray[np.float32]
"""Shape (dimensions,), unit length."""
FloatMatrix = npt.NDArray[np.float32]
"""Shape (n, dimensions), one unit-length row per text, in the order of the texts."""


# Collections and generations


class Ordering(StrEnum):
    """Which of two changes of a document wins."""

    LOG = "log"
    """The one later in the log."""
    SOURCE = "source"
    """The one with the higher ``source_version``, whatever the order of arrival."""


class OnFailure(StrEnum):
    """What becomes of the text before a revision that cannot be read."""

    KEEP = "keep"
    HIDE = "hide"


class GenerationState(StrEnum):
    BUILDING = "building"
    SERVING = "serving"
    STANDBY = "standby"
    """Served before, is kept up to date, can be switched back to."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What decides whether two vectors are comparable."""

    name: str
    """``minilm``, ``minilm-int8``, ``hash``, ``ollama:nomic-embed-text`` …"""
    fingerprint: str
    """Weights, precision and pooling; vectors of different fingerprints are never mixed."""
    dimensions: int
    max_tokens: int
    """What the model reads of a passage, special tokens not counted."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One index build of a collection: an embedding model and a way of cutting."""

    generation_id: int
    """Unique in the installation; in every point's payload."""
    tenant: str
    collection: str
    number: int
    """1, 2, 3 … per collection; what users see."""
    state: GenerationState
    model: EmbeddingModel
    chunk_tokens: int
    chunk_overlap: int
    served_lately: bool = False
    """It ceased to serve less than a minute ago."""

    @property
    def reports_outcomes(self) -> bool:
        """Whether what becomes of a change in this generation is the public outcome of the change.

        Only one generation's word counts. For a minute after a switch both may speak, so that a change which the new
        one took before the switch and the old one after it is not passed over in silence.
        """
        return self.state is GenerationState.SERVING or self.served_lately

    @property
    def space(self) -> str:
        """Name of the vector space (a Qdrant collection, an Edge shard) that its points share with like models."""
        return f"leat-{self.model.fingerprint}-{self.model.dimensions}"


@dataclass(frozen=True, slots=True)
class Collection:
    tenant: str
    name: str
    ordering: Ordering
    on_failure: OnFailure
    default_access_level: AccessLevel
    default_allowed_groups: tuple[str, ...]
    serving: Generation
    live: tuple[Generation, ...]
    """Every generation that the pipeline keeps up to date, the serving one included."""


# Parsing and cutting


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of parsed text that reads as one: a heading, a paragraph, a list item, a table row, a code block."""

    start: int
    end: int
    """Code points into ``ParsedDocument.text``."""
    heading_path: tuple[str, ...] = ()
    """Headings above and including this block's own, outermost first."""
    page: int | None = None
    kind: str = "paragraph"
    """``heading``, ``paragraph``, ``list-item``, ``table``, ``table-row``, ``code``, ``front-matter`` (alone)."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Text with its structure. For text formats ``text`` is the decoded source itself, so offsets fit the file."""

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Front matter or the format's own properties, plain JSON values."""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Content:
    """Raw content of a document on its way to a parser."""

    data: bytes
    content_type: str | None
    document_id: str


# The fold of the log: what the newest change of each document says


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    """It is the newest change of its document (or the very same record once more)."""
    KNOWN = "known"
    """The newest change, published once more elsewhere in the log; its position has moved on, nothing else has."""
    SUPERSEDED = "superseded"
    """A newer change has been seen."""


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A document record, as far as the fold needs it."""

    key: DocumentKey
    revision: int
    change: Change
    origin: Origin
    access_level: AccessLevel
    """The level in force from now on: the event's, else (upsert) the collection's default, else (access) the
    present one.
    """
    allowed_groups: tuple[str, ...] | None
    """None on an access change that leaves the groups as they are."""
    keep_level: bool = False
    """An access change that names only groups."""
    source_version: int | None = None
    content_sha256: bytes | None = None
    size_bytes: int | None = None
    moved_from: str | None = None
    title: str | None = None
    url: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Admission:
    """What the fold says of one request."""

    verdict: Verdict
    document_key: int
    """Surrogate key of the document in PostgreSQL."""
    head_revision: int
    """The newest revision known, this one included."""
    head_origin: Origin | None = None
    """Where the newest change stood in the log before this request."""
    content_at: tuple[int, int] | None = None
    """(partition, offset) of the record that holds the document's present content; None: it has none."""
    access_level: AccessLevel = AccessLevel.PUBLIC
    allowed_groups: tuple[str, ...] = ()
    """Access in force for the document now."""
    deleted: bool = False
    """There is no such document, now or any more."""


# The manifest of a document in a generation


@dataclass(frozen=True, slots=True)
class ManifestPassage:
    """A live passage of a document in a generation."""

    point_id: UUID
    content_hash: bytes
    birth_revision: int
    payload_digest: bytes
    """Of what its point's payload says about access and metadata: another digest needs another point."""
    embedded: bool
    ordinal: int
    text: str
    heading_path: tuple[str, ...]
    page: int | None
    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation serves of a document, and the fence: revisions at or below ``applied_revision`` are refused."""

    generation_id: int
    key: DocumentKey
    applied_revision: int
    passages: tuple[ManifestPassage, ...] = ()


@dataclass(frozen=True, slots=True)
class Flip:
    """A new manifest to take effect, if its revision is newer than the fence."""

    generation_id: int
    key: DocumentKey
    revision: int
    change: Change
    origin: Origin
    attributes: DocumentAttributes | None
    passages: tuple[ManifestPassage, ...]
    removed: tuple[UUID, ...]
    space: str
    chunked_at: datetime


# Points and searching


@dataclass(frozen=True, slots=True)
class SparseVector:
    indices: Sequence[int]
    """Distinct, below 2**32."""
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class PointPayload:
    tenant: str
    generation_id: int
    document_id: str
    level_rank: int
    groups: tuple[str, ...]
    """Empty: every group."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Scalars and lists of scalars only; what filters can match."""


@dataclass(frozen=True, slots=True)
class Point:
    point_id: UUID
    payload: PointPayload
    sparse: SparseVector
    dense: FloatVector | None = None
    """None: not embedded yet; found by words only."""


@dataclass(frozen=True, slots=True)
class IndexScope:
    """Whose points a search may see. There is no unscoped search."""

    tenant: str
    generation_id: int
    max_level_rank: int
    groups: tuple[str, ...]
    every_group: bool = False
    filters: Mapping[str, Any] = field(default_factory=dict)
    """Metadata key (or ``document_id``) to the value, or list of values, that it must have."""

    @classmethod
    def of(cls, principal: Principal, generation_id: int, filters: Mapping[str, Any] | None = None) -> "IndexScope":
        return cls(
            tenant=principal.tenant,
            generation_id=generation_id,
            max_level_rank=principal.clearance.rank,
            groups=principal.groups,
            every_group=principal.every_group,
            filters=filters or {},
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point that a leg of the search proposes."""

    point_id: UUID
    score: float
    """Cosine similarity for the dense leg, the BM25-like dot product for the sparse leg."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Best first, per leg."""

    dense: tuple[Candidate, ...] = ()
    sparse: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class HydratedPassage:
    """A candidate that stands: re-checked against manifest, access and deletion, with its text."""

    point_id: UUID
    key: DocumentKey
    revision: int
    ordinal: int
    title: str
    url: str | None
    text: str
    heading_path: tuple[str, ...]
    page: int | None
    start: int
    end: int
    tokens: int
    updated_at: datetime
    access_level: AccessLevel
    metadata: Mapping[str, Any]
    embedded: bool = True


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far the index of a collection is behind the log."""

    position: str | None
    behind_ms: float


@dataclass(frozen=True, slots=True)
class Unapplied:
    """A change that was admitted and has not taken effect in the serving generation."""

    key: DocumentKey
    revision: int
    partition: int
    offset: int
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that waits for a human."""

    letter_id: str
    """``partition-offset`` in the dead-letter topic."""
    key: bytes | None
    reason: str
    detail: str
    stage: str
    attempts: int
    topic: str
    partition: int
    offset: int
    group: str
    died_at: datetime
    revision: int | None
    event_id: str | None
    lane: Lane | None = None
    value: bytes | None = None
    size_bytes: int = 0
    """Of the value, also where the value itself was not read along."""
    replayed_at: datetime | None = None
    resolved_at: datetime | None = None
    """A later revision of its document, or a replay, has been applied: nobody needs to look any more."""


# Looking at documents


class DocumentStage(StrEnum):
    """How far a document's newest change has come."""

    RECEIVED = "received"
    SEARCHABLE = "searchable"
    EMBEDDED = "embedded"
    FAILED = "failed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document as the log and the serving index know it."""

    key: DocumentKey
    stage: DocumentStage
    revision: int
    """Of the newest admitted change."""
    applied_revision: int | None
    """What the index shows; None: nothing yet."""
    title: str | None
    url: str | None
    content_type: str | None
    size_bytes: int | None
    passages: int
    passages_without_vector: int
    access_level: AccessLevel
    allowed_groups: tuple[str, ...]
    metadata: Mapping[str, Any]
    accepted_at: datetime
    position: str
    failure_reason: str | None = None
    failure_detail: str | None = None
    failed_revision: int | None = None


class WaitVerdict(StrEnum):
    """What became of the change at a position."""

    PENDING = "pending"
    SEARCHABLE = "searchable"
    EMBEDDED = "embedded"
    SUPERSEDED = "superseded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WaitState:
    verdict: WaitVerdict
    reason: str | None = None
    """A short fixed word when superseded or failed."""


# Conversations


class CitedRevision(NamedTuple):
    """A document as an answer has seen it."""

    key: DocumentKey
    revision: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation, and what was answered."""

    question_id: str
    query: str
    standalone: str
    """The question as it was understood with the earlier turns."""
    answer: str | None
    """None: it cites documents that are deleted by now, or that the asker may no longer read."""
    answered: bool
    asked_at: datetime


class DeletedConversations(NamedTuple):
    conversations: int
    question_ids: tuple[str, ...]
    """The questions that were in them."""


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    conversation_id: str
    title: str
    turns: int
    created_at: datetime
    updated_at: datetime
