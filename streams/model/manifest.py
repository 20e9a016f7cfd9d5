"""The manifest of a document in a generation, and the flip from one to the next."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.documents import Change, DocumentKey
from schemas.pipeline import DocumentAttributes, Origin


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
