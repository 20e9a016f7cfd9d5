"""Compare a slice of the index with what the manifests say it holds, and decide what to repair."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from uuid import UUID

from schemas.documents import DocumentKey
from schemas.pipeline import DocumentAttributes
from streams.model import ManifestPassage


@dataclass(frozen=True, slots=True)
class LivePoint:
    """What the database says of a point that a live passage names."""

    embedded: bool
    fits: bool
    """Its payload says of access and metadata what the document says now."""


@dataclass(frozen=True, slots=True)
class LivePassage:
    """A live passage, and what its point must say of its document."""

    key: DocumentKey
    attributes: DocumentAttributes
    passage: ManifestPassage


@dataclass(frozen=True, slots=True)
class Differences:
    """Points of a slice that are not as the manifests say, by what is wrong with them."""

    missing: frozenset[UUID] = field(default_factory=frozenset)
    """A live passage that no search can find."""
    misdescribed: frozenset[UUID] = field(default_factory=frozenset)
    """The filter inside the vector query would judge it by an access that is not the document's."""
    blind: frozenset[UUID] = field(default_factory=frozenset)
    """Counted as embedded, but the point has no vector."""
    orphans: frozenset[UUID] = field(default_factory=frozenset)
    """No live passage names it, and nobody is going to sweep it."""

    def __and__(self, other: "Differences") -> "Differences":
        """What differs in both. A slice is never of one moment: what differs once is on its way."""
        return Differences(
            self.missing & other.missing,
            self.misdescribed & other.misdescribed,
            self.blind & other.blind,
            self.orphans & other.orphans,
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.misdescribed or self.blind or self.orphans)

    def counts(self) -> dict[str, int]:
        """By kind, under the names that ``leat verify`` uses."""
        return {
            "missing-point": len(self.missing),
            "wrong-payload": len(self.misdescribed),
            "missing-vector": len(self.blind),
            "orphan-point": len(self.orphans),
        }


def differences(live: Mapping[UUID, LivePoint], points: Mapping[UUID, bool], garbage: Set[UUID]) -> Differences:
    """What is wrong with a slice. ``points``: whether each has a vector; ``garbage``: dead ones that will be swept."""
    return Differences(
        missing=frozenset(live.keys() - points.keys()),
        misdescribed=frozenset(point for point in live.keys() & points.keys() if not live[point].fits),
        blind=frozenset(point for point in live.keys() & points.keys() if live[point].embedded and not points[point]),
        orphans=frozenset(points.keys() - live.keys() - garbage),
    )
