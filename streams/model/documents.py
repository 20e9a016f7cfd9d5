"""Documents and their failures, as people look at them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from schemas.pipeline import Lane


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
