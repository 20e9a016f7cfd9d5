"""The events between the stages: what the chunker, the embedder and the indexer tell each other and the world."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from schemas.access import AccessLevel, Groups
from schemas.base import Event, Instant
from schemas.documents import Change, DocumentChanged, DocumentKey


class Lane(StrEnum):
    """Interactive changes overtake bulk ones; within a lane and a document the order of the log holds."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Origin(Event):
    """The document record that an event descends from."""

    epoch: int
    """How many times the documents topic was started anew; 0 for the first topic."""
    partition: int
    offset: int
    event_id: str
    accepted_at: Instant
    """When the broker appended the record: freshness is measured from here."""
    lane: Lane = Lane.INTERACTIVE


class BulkForwarded(Event):
    """A bulk document record, admitted by the chunker and passed on to the bulk lane."""

    version: int = 1
    key: DocumentKey
    origin: Origin
    revision: int
    changed: DocumentChanged
    """With the access in force filled in."""
    generation_ids: tuple[int, ...] | None = None
    """Cut for these generations only: a reindex fills them from the log. Its public outcome was said long ago."""


class ChunkedPassage(Event):
    """A slice of one revision, in reading order."""

    content_hash: bytes
    """SHA-256 of ``streams.chunk.embedded_text`` (heading path, text); equal input has equal hashes everywhere."""
    text: str
    heading_path: tuple[str, ...] = ()
    page: int | None = None
    """1-based, for paged formats."""
    start: int
    """Offset of the first code point in the document's text."""
    end: int
    """Offset behind the last code point."""
    tokens: int


class DocumentAttributes(Event):
    """What a passage inherits from its document."""

    title: str
    url: str | None = None
    content_type: str
    size_bytes: int
    metadata: dict[str, Any] = Field(default_factory=dict)
    access_level: AccessLevel = AccessLevel.PUBLIC
    allowed_groups: Groups = ()


class DocumentChunked(Event):
    """Passages of one revision for one generation; part ``part`` of ``parts``, published in order under one key.

    A deletion has no passages and no attributes, and is one part.
    """

    version: int = 1
    key: DocumentKey
    generation_id: int
    revision: int
    change: Change
    origin: Origin
    attributes: DocumentAttributes | None = None
    part: int = 1
    parts: int = 1
    digest: bytes = b""
    """SHA-256 over the content hashes of all parts in order: parts of different attempts are never mixed."""
    passages: tuple[ChunkedPassage, ...] = ()
    chunked_at: Instant


class PassageVector(Event):
    content_hash: bytes
    vector: bytes | None = None
    """Little-endian float32, unit length. None: it was in the vector cache already; look there."""


class DocumentEmbedded(Event):
    """Vectors of one part of a ``DocumentChunked``. They are in the vector cache before this is published."""

    version: int = 1
    key: DocumentKey
    generation_id: int
    revision: int
    origin: Origin
    embedding_fingerprint: str
    part: int = 1
    parts: int = 1
    vectors: tuple[PassageVector, ...] = ()
    tokens_embedded: int = 0
    embedded_at: Instant


class Outcome(StrEnum):
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    FAILED = "failed"


class IndexCommitted(Event):
    """The one public outcome of one document event."""

    version: int = 1
    key: DocumentKey
    outcome: Outcome
    change: Change | None = None
    revision: int
    generation_id: int | None = None
    event_id: str
    origin: Origin
    reason: str | None = None
    """A short fixed word when superseded or failed, for example ``older-than-applied`` or ``unreadable-document``."""
    detail: str | None = None
    passages_added: int = 0
    passages_kept: int = 0
    passages_removed: int = 0
    chunked_at: Instant | None = None
    committed_at: Instant
    """For an applied upsert: the moment it was searchable. For a deletion: the text had been invisible before."""
