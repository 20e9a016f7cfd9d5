"""Passages of the past."""

from dataclasses import dataclass
from datetime import datetime

from schemas.documents import DocumentKey
from streams.model.index import HydratedPassage


@dataclass(frozen=True, slots=True)
class PastPassage:
    """A passage as it was, or as it is, with what its vector is kept under."""

    passage: HydratedPassage
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class ChangedPassages:
    """What became of a document's passages."""

    key: DocumentKey
    updated_at: datetime
    """When the change was accepted that the document shows now."""
    gone: tuple[PastPassage, ...]
    come: tuple[PastPassage, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back a collection can be looked at."""

    back_to: datetime | None
    """None: it keeps no history."""
    incomplete_documents: int = 0
    """Documents that change so often that their revision of the time asked for was not kept."""
