"""Points of the vector index, and searching among them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from streams.model.vectors import FloatVector, SparseVector


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
