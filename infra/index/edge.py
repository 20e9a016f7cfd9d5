"""Qdrant Edge as the index: the engine inside this process, one shard per space in a folder that it alone owns.

The engine holds the GIL for whole calls, so threads would only add hand-overs: every call runs on the event loop, and
writes run in slices small enough that a search waits for one of them at most.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import qdrant_edge as edge

from infra.index.folder import FolderLock, shard_folder, spaces_in
from infra.index.labels import DOCUMENT, GENERATION, LABELS, SCOPE, filter_groups, payload_fields, scopes_seen
from streams.errors import LeatError, NotFound, PermanentError, TransientError
from streams.model import Candidate, Candidates, FloatVector, IndexScope, Point, SparseVector

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")

DENSE = "dense"
SPARSE = "sparse"

# Points per engine call: 3 to 4 ms of writing, as long as a search waits for at most. 200 wrote no faster than 64.
SLICE_POINTS = 32

# Turns of the event loop that a search needs from the socket to its answer. A writer that gave way for one turn only
# would put a slice between any two of them: p50 45 ms instead of 20, with slices of 64.
TURNS_PER_REQUEST = 5

# The write-ahead log keeps what was acknowledged through a kill -9, a flush through a power loss. A flush holds
# everything up for 60 to 160 ms, so it is rare; what came since the last one is re-driven from the log.
FLUSH_INTERVAL_S = 10.0

# Vacuum when a fifth of a space is dead (and it is worth it), and nobody has asked for this long: it blocks searches.
VACUUM_SHARE = 0.2
VACUUM_MIN_POINTS = 1000
QUIET_S = 30.0

# Exact search takes 4 ms at 50,000 points and 15 ms at 200,000; an HNSW graph would cost seconds of building instead.
NEVER_INDEX_KB = 10**9

_DATA = "shard"
_DIMENSIONS = "dimensions"


class EdgeIndex:
    """A ``VectorIndex`` over the shards of a folder. Open it before use; one instance per folder and machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FolderLock(folder)
        self._shards: dict[str, _Shard] = {}
        self._writing = asyncio.Lock()
        self._maintenance: asyncio.Task[None] | None = None
        self._last_search_at = 0.0

    async def open(self) -> None:
        """Own the folder and load what is in it.

        Raises:
            Unavailable: another process owns the folder.
        """
        self._lock.acquire()
        try:
            for space in spaces_in(self._folder):
                self._shards[space] = _Shard.load(shard_folder(self._folder, space))
        except BaseException:
            await self.close()
            raise
        self._maintenance = asyncio.create_task(self._maintain(), name="index-maintenance")

    async def close(self) -> None:
        """Flush, close the shards, let the folder go."""
        if self._maintenance is not None:
            self._maintenance.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._maintenance
            self._maintenance = None
        try:
            while self._shards:
                self._shards.popitem()[1].close()
        finally:
            self._lock.release()

    async def check(self) -> None:
        """Nothing to check: the engine is in this process."""

    async def ensure_space(self, space: str, dimensions: int) -> None:
        """Create the space unless it is there.

        Raises:
            PermanentError: ``space-mismatch``, it is there with other dimensions.
        """
        shard = self._shards.get(space)
        if shard is None:
            shard = self._shards[space] = _Shard.create(shard_folder(self._folder, space), dimensions)
            log.info("space_created", extra={"space": space, "dimensions": dimensions})
        if shard.dimensions != dimensions:
            raise PermanentError(
                "space-mismatch", f"space {space!r} has {shard.dimensions} dimensions, want {dimensions}"
            )

    async def upsert(self, space: str, points: Sequence[Point]) -> None:
        await self._write_in_slices(points, self._shard(space).upsert)

    async def update_vectors(self, space: str, vectors: Mapping[UUID, FloatVector]) -> frozenset[UUID]:
        absent: set[UUID] = set()
        shard = self._shard(space)
        await self._write_in_slices(list(vectors.items()), lambda part: absent.update(shard.update_vectors(part)))
        return frozenset(absent)

    async def delete(self, space: str, point_ids: Sequence[UUID]) -> None:
        if shard := self._shards.get(space):
            await self._write_in_slices(point_ids, shard.delete)

    async def delete_generation(self, space: str, generation_id: int) -> None:
        """Page by page, since deleting by filter would hold up searches for as long as all of it takes."""
        while page := await self.scroll(space, generation_id, after=None, limit=16 * SLICE_POINTS):
            await self.delete(space, [point_id for point_id, _ in page])

    async def search(
        self, space: str, scope: IndexScope, *, dense: FloatVector | None, sparse: SparseVector | None, limit: int
    ) -> Candidates:
        """A space without points has no candidates.

        Raises:
            ValueError: the scope has no tenant.
        """
        visible = _visible(scope)
        self._last_search_at = time.monotonic()
        shard = self._shards.get(space)
        if shard is None:
            return Candidates()
        return Candidates(
            dense=() if dense is None else shard.nearest(dense.tolist(), visible, limit),
            sparse=()
            if sparse is None or not sparse.indices
            else shard.best(sparse, visible, scope.generation_id, limit),
        )

    async def scroll(
        self, space: str, generation_id: int, *, after: UUID | None, limit: int
    ) -> list[tuple[UUID, bool]]:
        shard = self._shards.get(space)
        return shard.scroll(generation_id, after, limit) if shard else []

    async def count(self, space: str, generation_id: int) -> int:
        shard = self._shards.get(space)
        return shard.count(generation_id) if shard else 0

    def _shard(self, space: str) -> "_Shard":
        shard = self._shards.get(space)
        if shard is None:
            raise NotFound(f"space {space!r} is not in the index; ensure_space creates it")
        return shard

    async def _write_in_slices(self, items: Sequence[_Item], write: Callable[[Sequence[_Item]], None]) -> None:
        """One writer at a time; searches that arrived meanwhile go first after every slice."""
        async with self._writing:
            for start in range(0, len(items), SLICE_POINTS):
                write(items[start : start + SLICE_POINTS])
                for _ in range(TURNS_PER_REQUEST):
                    await asyncio.sleep(0)

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            for space, shard in list(self._shards.items()):
                async with self._writing:
                    try:
                        shard.flush()
                        if time.monotonic() - self._last_search_at > QUIET_S:
                            shard.vacuum()
                    except TransientError as error:
                        # A full disk, most likely. What was acknowledged is in the write-ahead log; try again later.
                        log.error("index_flush_failed", extra={"space": space, "detail": str(error)})


class _Shard:
    """The shard of one space: engine calls, with errors translated."""

    def __init__(self, engine: edge.EdgeShard, dimensions: int) -> None:
        self.dimensions = dimensions
        self._engine = engine
        self._dirty = False
        self._dead_points = 0

    @classmethod
    def create(cls, folder: Path, dimensions: int) -> "_Shard":
        """Whole or not at all: a crash on the way leaves a hidden folder, which the next attempt replaces."""
        half_done = folder.with_name(f".{folder.name}")
        shutil.rmtree(half_done, ignore_errors=True)
        half_done.mkdir(parents=True)
        (half_done / _DIMENSIONS).write_text(str(dimensions))
        with _translated("create a space"):
            engine = edge.EdgeShard.create(str(half_done / _DATA), _config(dimensions))
            for field, kind in _payload_indexes().items():
                engine.update(edge.UpdateOperation.create_field_index(field, kind))
            engine.flush()
            engine.close()
        half_done.rename(folder)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "_Shard":
        with _translated("load a space"):
            return cls(edge.EdgeShard.load(str(folder / _DATA)), int((folder / _DIMENSIONS).read_text()))

    def close(self) -> None:
        with _translated("close a space"):
            self.flush()
            self._engine.close()

    def flush(self) -> None:
        if self._dirty:
            with _translated("flush"):
                self._engine.flush()
            self._dirty = False

    def vacuum(self) -> None:
        """Give the room of deleted points back, when they are many."""
        if self._dead_points < max(VACUUM_MIN_POINTS, VACUUM_SHARE * self._engine.info().points_count):
            return
        started_at = time.monotonic()
        with _translated("optimize"):
            self._engine.optimize()
        log.info("space_vacuumed", extra={"points": self._dead_points, "elapsed_s": time.monotonic() - started_at})
        self._dead_points = 0

    def upsert(self, points: Sequence[Point]) -> None:
        for point in points:
            if point.dense is not None and point.dense.shape != (self.dimensions,):
                raise PermanentError(
                    "vector-mismatch", f"a vector of shape {point.dense.shape}, want {self.dimensions}"
                )
        self._update("upsert", edge.UpdateOperation.upsert_points(_engine_points(points)))

    def update_vectors(self, vectors: Sequence[tuple[UUID, FloatVector]]) -> set[UUID]:
        """The engine refuses a whole call for one unknown id, so leave those out. Nothing can come in between."""
        with _translated("retrieve"):
            records = self._engine.retrieve(
                [point_id for point_id, _ in vectors], with_payload=False, with_vector=False
            )
        present = {record.id for record in records}
        updates = [edge.PointVectors(point_id, {DENSE: v.tolist()}) for point_id, v in vectors if point_id in present]
        if updates:
            self._update("update vectors", edge.UpdateOperation.update_vectors(updates))
        return {point_id for point_id, _ in vectors} - present

    def delete(self, point_ids: Sequence[UUID]) -> None:
        self._update("delete", edge.UpdateOperation.delete_points(list(point_ids)))
        self._dead_points += len(point_ids)

    def nearest(self, vector: list[float], visible: edge.Filter, limit: int) -> tuple[Candidate, ...]:
        """By cosine similarity."""
        return self._query(edge.Query.Nearest(vector, using=DENSE), visible, limit, None)

    def best(self, terms: SparseVector, visible: edge.Filter, generation_id: int, limit: int) -> tuple[Candidate, ...]:
        """By the dot product with document frequencies of this generation: another tenant's texts weigh nothing."""
        query = edge.Query.Nearest(edge.SparseVector(list(terms.indices), list(terms.values)), using=SPARSE)
        corpus = edge.IdfParams(corpus=_of_generation(generation_id))
        return self._query(query, visible, limit, edge.SearchParams(idf=corpus))

    def scroll(self, generation_id: int, after: UUID | None, limit: int) -> list[tuple[UUID, bool]]:
        request = edge.ScrollRequest(
            offset=after,  # inclusive
            limit=limit + (after is not None),
            filter=_of_generation(generation_id),
            with_payload=False,
            with_vector=[DENSE],
        )
        with _translated("scroll"):
            records, _ = self._engine.scroll(request)
        return [(_uuid(record.id), bool(record.vector)) for record in records if record.id != after][:limit]

    def count(self, generation_id: int) -> int:
        with _translated("count"):
            return int(self._engine.count(edge.CountRequest(exact=True, filter=_of_generation(generation_id))))

    def _update(self, action: str, operation: edge.UpdateOperation) -> None:
        self._dirty = True
        with _translated(action):
            self._engine.update(operation)

    def _query(
        self, query: edge.Query, visible: edge.Filter, limit: int, params: edge.SearchParams | None
    ) -> tuple[Candidate, ...]:
        request = edge.QueryRequest(limit=limit, query=query, filter=visible, params=params, with_payload=False)
        with _translated("search"):
            return tuple(Candidate(point_id=_uuid(hit.id), score=hit.score) for hit in self._engine.query(request))


def _config(dimensions: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(
            indexing_threshold=NEVER_INDEX_KB,
            deleted_threshold=VACUUM_SHARE,
            vacuum_min_vector_number=VACUUM_MIN_POINTS,
        ),
        wal_enabled=True,
    )


def _payload_indexes() -> dict[str, edge.PayloadSchemaType]:
    """Without these a filter reads every payload: 85 ms at 14,000 points instead of 3."""
    keyword = edge.PayloadSchemaType.Keyword
    return {SCOPE: keyword, LABELS: keyword, DOCUMENT: keyword, GENERATION: edge.PayloadSchemaType.Integer}


def _engine_points(points: Sequence[Point]) -> list[edge.Point]:
    """Points of one document share their payload object, whose labels are made once."""
    fields: dict[int, dict[str, Any]] = {}
    made = []
    for point in points:
        payload = fields.get(id(point.payload))
        if payload is None:
            payload = fields[id(point.payload)] = payload_fields(point.payload)
        vectors: dict[str, Any] = {SPARSE: edge.SparseVector(list(point.sparse.indices), list(point.sparse.values))}
        if point.dense is not None:
            # A list is copied twice as fast as an array, whose items the binding asks for one by one.
            vectors[DENSE] = point.dense.tolist()
        made.append(edge.Point(point.point_id, vectors, payload))
    return made


def _uuid(point_id: int | str | UUID) -> UUID:
    assert isinstance(point_id, UUID)  # every point of ours has one
    return point_id


def _visible(scope: IndexScope) -> edge.Filter:
    """One of the scope's labels, and of each filter one value. The labels stand in ``should``, of which at least one
    must hold: a third cheaper than the same as ``MatchAny`` when nearly every point has one of them.
    """
    return edge.Filter(
        should=[edge.FieldCondition(SCOPE, match=edge.MatchValue(label)) for label in scopes_seen(scope)],
        must=[edge.FieldCondition(key, match=edge.MatchAny(values)) for key, values in filter_groups(scope.filters)],
    )


def _of_generation(generation_id: int) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(GENERATION, match=edge.MatchValue(generation_id))])


@contextlib.contextmanager
def _translated(action: str) -> Iterator[None]:
    """The engine raises bare ``Exception`` for everything, a full disk included: none of it is the record's fault."""
    try:
        yield
    except (MemoryError, TypeError, LeatError):
        raise  # ours, not the engine's
    except Exception as error:
        raise TransientError(f"Qdrant Edge could not {action}: {error}") from error
