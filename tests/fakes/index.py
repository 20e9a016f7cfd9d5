"""A vector index in a dictionary: the meaning of the port, spelled out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import numpy as np

from streams.errors import NotFound, PermanentError
from streams.model import (
    Candidate,
    Candidates,
    FloatVector,
    IndexScope,
    Point,
    PointPayload,
    SparseVector,
)


class InMemoryIndex:
    """A ``VectorIndex`` that looks at every point. Vectors need not have unit length."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[UUID, Point]] = {}
        self._dimensions: dict[str, int] = {}

    async def close(self) -> None: ...

    async def check(self) -> None: ...

    async def ensure_space(self, space: str, dimensions: int) -> None:
        if self._dimensions.setdefault(space, dimensions) != dimensions:
            raise PermanentError("space-mismatch", f"{space!r} has {self._dimensions[space]} dimensions")
        self.spaces.setdefault(space, {})

    async def upsert(self, space: str, points: Sequence[Point]) -> None:
        self._known(space).update({point.point_id: point for point in points})

    async def update_vectors(self, space: str, vectors: Mapping[UUID, FloatVector]) -> frozenset[UUID]:
        points = self._known(space)
        for point_id in vectors.keys() & points.keys():
            points[point_id] = replace(points[point_id], dense=vectors[point_id])
        return frozenset(vectors.keys() - points.keys())

    async def delete(self, space: str, point_ids: Sequence[UUID]) -> None:
        for point_id in point_ids:
            self.spaces.get(space, {}).pop(point_id, None)

    async def delete_generation(self, space: str, generation_id: int) -> None:
        await self.delete(space, [point.point_id for point in self._of_generation(space, generation_id)])

    async def search(
        self,
        space: str,
        scope: IndexScope,
        *,
        dense: FloatVector | None,
        sparse: SparseVector | None,
        limit: int,
    ) -> Candidates:
        if not scope.tenant:
            raise ValueError("a search needs a tenant")
        corpus = self._of_generation(space, scope.generation_id)
        visible = [point for point in corpus if _sees(scope, point.payload)]
        by_meaning = [
            Candidate(point.point_id, _cosine(dense, point.dense))
            for point in visible
            if dense is not None and point.dense is not None
        ]
        weights = _with_document_frequencies(sparse, corpus) if sparse is not None else {}
        by_words = [
            Candidate(point.point_id, sum(weights.get(i, 0.0) * value for i, value in _terms(point.sparse)))
            for point in visible
            if weights.keys() & set(point.sparse.indices)
        ]
        return Candidates(dense=_best(by_meaning, limit), sparse=_best(by_words, limit))

    async def scroll(
        self, space: str, generation_id: int, *, after: UUID | None, limit: int
    ) -> list[tuple[UUID, bool]]:
        points = sorted(self._of_generation(space, generation_id), key=lambda point: point.point_id)
        page = [point for point in points if after is None or point.point_id > after][:limit]
        return [(point.point_id, point.dense is not None) for point in page]

    async def count(self, space: str, generation_id: int) -> int:
        return len(self._of_generation(space, generation_id))

    def _known(self, space: str) -> dict[UUID, Point]:
        if space not in self.spaces:
            raise NotFound(f"space {space!r} is not in the index; ensure_space creates it")
        return self.spaces[space]

    def _of_generation(self, space: str, generation_id: int) -> list[Point]:
        points = self.spaces.get(space, {}).values()
        return [point for point in points if point.payload.generation_id == generation_id]


def _sees(scope: IndexScope, payload: PointPayload) -> bool:
    groups_fit = scope.every_group or not payload.groups or bool(set(payload.groups) & set(scope.groups))
    return (
        payload.tenant == scope.tenant
        and payload.generation_id == scope.generation_id
        and payload.level_rank <= scope.max_level_rank
        and groups_fit
        and all(_matches(payload, key, wanted) for key, wanted in scope.filters.items())
    )


def _matches(payload: PointPayload, key: str, wanted: object) -> bool:
    has = payload.document_id if key == "document_id" else payload.metadata.get(key)
    return any(_same(one, other) for one in _listed(has) for other in _listed(wanted))


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _same(one: object, other: object) -> bool:
    return one is not None and one == other and isinstance(one, bool) == isinstance(other, bool)


def _terms(vector: SparseVector) -> list[tuple[int, float]]:
    return list(zip(vector.indices, vector.values, strict=True))


def _with_document_frequencies(query: SparseVector, corpus: Sequence[Point]) -> dict[int, float]:
    """The question's weights times the inverse document frequency, as Qdrant's ``Modifier.IDF`` defines it."""
    weights = {}
    for index, value in _terms(query):
        having = sum(index in point.sparse.indices for point in corpus)
        weights[index] = value * math.log(1 + (len(corpus) - having + 0.5) / (having + 0.5))
    return weights


def _cosine(one: FloatVector, other: FloatVector) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _best(candidates: list[Candidate], limit: int) -> tuple[Candidate, ...]:
    return tuple(sorted(candidates, key=lambda candidate: -candidate.score)[:limit])
