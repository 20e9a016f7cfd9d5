"""Plan what a new revision changes in the index: which points are born, which live on, which die.

Points are immutable and named by content: the same passage of the same birth always has the same id, so writing it
again changes nothing, and a late clean-up of an old point can never hit a new one.
"""

import hashlib
import json
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from schemas.documents import Change, DocumentKey
from schemas.pipeline import ChunkedPassage, DocumentAttributes, DocumentChunked
from streams.chunk import embedded_text
from streams.model import Flip, Generation, Manifest, ManifestPassage, Point, PointPayload, SparseVector

# Namespace of point ids. Changing it renames every point of every installation: a reindex.
_NAMESPACE = UUID("5e1f7c1e-3b0a-5d7e-9a86-1ea7d0c5ea7e")

_Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What becomes of a document's passages in a generation."""

    flip: Flip
    born: tuple[ManifestPassage, ...]
    """Passages that need a point."""
    kept: int
    payload: PointPayload | None

    def point(self, passage: ManifestPassage, sparse: SparseVector) -> Point:
        """The point of one of ``born``, without a dense vector."""
        assert self.payload is not None, "a deletion has no passages"
        return Point(passage.point_id, self.payload, sparse)


def plan(chunked: DocumentChunked, manifest: Manifest | None, *, generation: Generation) -> IndexPlan:
    """Carry unchanged passages over, give birth to new ones, list the dead.

    A passage lives on when its text and what its point says about access and metadata are unchanged; then only its
    place (offsets, heading path, ordinal) moves.
    """
    payload, digest = _payload(chunked, generation)
    living: dict[bytes, deque[ManifestPassage]] = defaultdict(deque)
    for passage in manifest.passages if manifest else ():
        if passage.payload_digest == digest:
            living[passage.content_hash].append(passage)
    # What the ids of all passages born now have in common.
    birth = f"{generation.generation_id}/{chunked.key}/{chunked.revision}/{digest.hex()}"
    occurrences: dict[bytes, int] = defaultdict(int)
    passages: list[ManifestPassage] = []
    born: list[ManifestPassage] = []
    for ordinal, cut in enumerate(chunked.passages if chunked.change is not Change.DELETE else ()):
        nth = occurrences[cut.content_hash]
        occurrences[cut.content_hash] += 1
        if living[cut.content_hash]:
            old = living[cut.content_hash].popleft()
            passages.append(_placed(cut, ordinal, old.point_id, old.birth_revision, digest, embedded=old.embedded))
            continue
        point_id = uuid5(_NAMESPACE, f"{birth}/{cut.content_hash.hex()}/{nth}")
        passages.append(_placed(cut, ordinal, point_id, chunked.revision, digest, embedded=False))
        born.append(passages[-1])
    alive = {passage.point_id for passage in passages}
    removed = tuple(p.point_id for p in (manifest.passages if manifest else ()) if p.point_id not in alive)
    flip = Flip(
        generation_id=generation.generation_id,
        key=chunked.key,
        revision=chunked.revision,
        change=chunked.change,
        origin=chunked.origin,
        attributes=chunked.attributes,
        passages=tuple(passages),
        removed=removed,
        space=generation.space,
        chunked_at=chunked.chunked_at,
    )
    return IndexPlan(flip, tuple(born), len(passages) - len(born), payload)


def points_ever_born(chunked: DocumentChunked, *, generation: Generation) -> list[UUID]:
    """Every point that any attempt at this revision may have written, whatever stood in the manifest then."""
    return [passage.point_id for passage in plan(chunked, None, generation=generation).born]


def text_of(passage: ManifestPassage) -> str:
    """The text that the models read: the heading path, then the passage."""
    return embedded_text(passage.heading_path, passage.text)


def _placed(
    cut: ChunkedPassage, ordinal: int, point_id: UUID, birth_revision: int, digest: bytes, *, embedded: bool
) -> ManifestPassage:
    return ManifestPassage(
        point_id=point_id,
        content_hash=cut.content_hash,
        birth_revision=birth_revision,
        payload_digest=digest,
        embedded=embedded,
        ordinal=ordinal,
        text=cut.text,
        heading_path=cut.heading_path,
        page=cut.page,
        start=cut.start,
        end=cut.end,
        tokens=cut.tokens,
    )


def _payload(chunked: DocumentChunked, generation: Generation) -> tuple[PointPayload | None, bytes]:
    if chunked.attributes is None:
        return None, b""
    return payload_of(chunked.key, chunked.attributes, generation)


def payload_of(key: DocumentKey, attributes: DocumentAttributes, generation: Generation) -> tuple[PointPayload, bytes]:
    """What the points of a document say of it, and the digest of what may change about that."""
    payload = PointPayload(
        tenant=key.tenant,
        generation_id=generation.generation_id,
        document_id=key.document_id,
        level_rank=attributes.access_level.rank,
        groups=attributes.allowed_groups,
        metadata=_filterable(attributes),
    )
    facts = [payload.level_rank, payload.groups, payload.metadata]
    return payload, hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).digest()[:16]


def _filterable(attributes: DocumentAttributes) -> dict[str, Any]:
    """Scalars and lists of scalars: what a filter can match. Nested metadata is shown, not filtered."""
    return {name: value for name, value in attributes.metadata.items() if _is_filterable(value)}


def _is_filterable(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, _Scalar) for item in value)
    return isinstance(value, _Scalar)
