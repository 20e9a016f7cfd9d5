"""What is built from the log and can be rebuilt: index, ledger, manifests, passages, vectors; and the blobs."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from schemas.access import Principal
from schemas.documents import DocumentKey
from streams.model import (
    Admission,
    AdmissionRequest,
    Candidates,
    CitedRevision,
    Collection,
    Flip,
    FloatVector,
    Freshness,
    Generation,
    HydratedPassage,
    IndexScope,
    LogPlace,
    Manifest,
    Point,
    SparseVector,
)


class CandidateSearch(Protocol):
    """Proposes passages for a question."""

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


class VectorIndex(CandidateSearch, Protocol):
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

    async def receiving(self, tenant: str, name: str, at: LogPlace) -> Collection | None:
        """The collection that a record is for, as ``collection``; None: it is for one that was deleted since."""
        ...

    async def is_over(self, tenant: str, name: str, at: LogPlace) -> bool:
        """Whether a record is for a collection that was deleted since: the present one of that name is another."""
        ...

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

    async def in_force(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        """The newest revision per document that has taken effect in what is served: searchable, or a deletion.

        What is newer may still turn out to be unreadable; then the newest one that can be read counts.
        """
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


class Hydration(Protocol):
    """Disposes of what an index proposes."""

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        """Those candidates that are live in the generation, not deleted, and that the principal may read."""
        ...


class Neighbourhood(Protocol):
    """Knows what stands beside a passage."""

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        """Passages of one document by their ordinal, in reading order, under the same re-check."""
        ...


class PassageStore(Hydration, Neighbourhood, Protocol):
    """Texts of passages, handed out only after a re-check."""

    async def freshness(self, tenant: str, collection: str) -> Freshness: ...

    async def unchanged(self, principal: Principal, generation_id: int, seen: Sequence[CitedRevision]) -> bool:
        """Whether all these documents still are what they were, none has a change under way, and the principal may
        read each of them.
        """
        ...
