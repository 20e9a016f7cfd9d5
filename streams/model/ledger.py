"""The fold of the log: what the newest change of each document says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentKey
from schemas.pipeline import Origin


class LogPlace(NamedTuple):
    """Where a record stands in the documents topic."""

    epoch: int
    partition: int
    offset: int


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


@dataclass(frozen=True, slots=True)
class Unapplied:
    """A change that was admitted and has not taken effect in the serving generation."""

    key: DocumentKey
    revision: int
    partition: int
    offset: int
    accepted_at: datetime
