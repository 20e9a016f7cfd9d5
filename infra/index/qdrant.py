"""A Qdrant server as the index, over gRPC."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar
from urllib.parse import quote, urlsplit
from uuid import UUID

import grpc
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from infra.breaker import CircuitBreaker
from infra.index.labels import DOCUMENT, GENERATION, LABELS, SCOPE, filter_groups, payload_fields, scopes_seen
from streams.errors import NotFound, PermanentError, TransientError, Unavailable
from streams.model import Candidate, Candidates, FloatVector, IndexScope, Point, SparseVector

DENSE = "dense"
SPARSE = "sparse"

# Points per call: with 384 dimensions about 1.5 MB, far below gRPC's and the server's limits for any model.
CHUNK_POINTS = 500

TIMEOUT_S = 30
# A search takes milliseconds; a server that is silent for this long is down, as far as a question is concerned.
SEARCH_TIMEOUT_S = 1.0

# As for the index process: after five failures in a row, one search every half second is the probe.
BREAKER_PAUSE_S = 0.5

# Points may vanish between the look whether they are there and the update that refuses all of them for one.
VANISHED_RETRIES = 3

_Item = TypeVar("_Item")


class QdrantIndex:
    """A ``VectorIndex`` over the collections of a server, one per space."""

    def __init__(self, client: AsyncQdrantClient, *, prefix: str = "") -> None:
        self._client = client
        self._breaker = CircuitBreaker("index", pause_s=BREAKER_PAUSE_S)
        self._prefix = f"{prefix}." if prefix else ""

    @classmethod
    def connect(cls, url: str, api_key: SecretStr | None = None, *, prefix: str = "") -> "QdrantIndex":
        """A client of the server at ``url`` (its HTTP address; gRPC is on the port above). Connects when first used.

        ``prefix`` keeps installations that share a server apart.
        """
        port = urlsplit(url).port or 6333
        client = AsyncQdrantClient(
            url=url,
            grpc_port=port + 1,
            prefer_grpc=True,
            api_key=api_key.get_secret_value() if api_key else None,
            timeout=TIMEOUT_S,
            check_compatibility=False,  # would be a blocking request in the constructor
        )
        return cls(client, prefix=prefix)

    async def close(self) -> None:
        await self._client.close()

    async def check(self) -> None:
        """Whether the server answers.

        Raises:
            Unavailable: it does not.
        """
        with _translated():
            await self._client.get_collections()

    async def ensure_space(self, space: str, dimensions: int) -> None:
        """Create the collection and its payload indexes unless they are there. Safe to call from several processes.

        Raises:
            PermanentError: ``space-mismatch``, it is there with other dimensions.
        """
        name = self._name(space)
        with _translated():
            if not await self._client.collection_exists(name):
                await self._create(name, dimensions)
            config = (await self._client.get_collection(name)).config.params
        vectors = config.vectors
        found = vectors[DENSE].size if isinstance(vectors, dict) and DENSE in vectors else None
        if found != dimensions:
            raise PermanentError("space-mismatch", f"collection {name!r} has {found} dimensions, want {dimensions}")

    async def upsert(self, space: str, points: Sequence[Point]) -> None:
        for part in _parts(points):
            with _translated(space):
                await self._client.upsert(self._name(space), [_point(point) for point in part], wait=True)

    async def update_vectors(self, space: str, vectors: Mapping[UUID, FloatVector]) -> frozenset[UUID]:
        absent: set[UUID] = set()
        for part in _parts(list(vectors)):
            absent |= await self._update_present(space, {point_id: vectors[point_id] for point_id in part})
        return frozenset(absent)

    async def delete(self, space: str, point_ids: Sequence[UUID]) -> None:
        for part in _parts(point_ids):
            await self._delete(space, models.PointIdsList(points=list(part)))

    async def delete_generation(self, space: str, generation_id: int) -> None:
        await self._delete(space, models.FilterSelector(filter=_of_generation(generation_id)))

    async def search(
        self, space: str, scope: IndexScope, *, dense: FloatVector | None, sparse: SparseVector | None, limit: int
    ) -> Candidates:
        """Both legs in one request. A space without points has no candidates.

        Raises:
            ValueError: the scope has no tenant.
        """
        visible = _visible(scope)
        legs: dict[str, models.QueryRequest] = {}
        if dense is not None:
            legs[DENSE] = models.QueryRequest(query=dense.tolist(), using=DENSE, filter=visible, limit=limit)
        if sparse is not None and sparse.indices:
            # Document frequencies of this generation: another tenant's texts weigh nothing. Servers before 1.18 do
            # not know the parameter and count the whole collection.
            corpus = models.SearchParams(idf=models.IdfCorpusParams(corpus=_of_generation(scope.generation_id)))
            terms = models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
            legs[SPARSE] = models.QueryRequest(query=terms, using=SPARSE, filter=visible, limit=limit, params=corpus)
        if not legs:
            return Candidates()
        try:
            with self._breaker.attempt(), _translated(space):
                async with asyncio.timeout(SEARCH_TIMEOUT_S):
                    found = await self._client.query_batch_points(self._name(space), list(legs.values()))
        except NotFound:
            return Candidates()
        by_leg = {leg: _candidates(response) for leg, response in zip(legs, found, strict=True)}
        return Candidates(dense=by_leg.get(DENSE, ()), sparse=by_leg.get(SPARSE, ()))

    async def scroll(
        self, space: str, generation_id: int, *, after: UUID | None, limit: int
    ) -> list[tuple[UUID, bool]]:
        # The offset is inclusive, so one more is asked for and left out again.
        try:
            ids = await self._scroll(space, _of_generation(generation_id), after, limit + (after is not None))
            ids = [point_id for point_id in ids if point_id != after][:limit]
            embedded = await self._scroll(space, _with_vector(ids), None, limit) if ids else []
        except NotFound:
            return []
        with_vector = set(embedded)
        return [(point_id, point_id in with_vector) for point_id in ids]

    async def count(self, space: str, generation_id: int) -> int:
        try:
            with _translated(space):
                found = await self._client.count(self._name(space), _of_generation(generation_id), exact=True)
        except NotFound:
            return 0
        return found.count

    def _name(self, space: str) -> str:
        return self._prefix + quote(space, safe="")

    async def _create(self, name: str, dimensions: int) -> None:
        with contextlib.suppress(_AlreadyThere), _translated():
            await self._client.create_collection(
                name,
                vectors_config={DENSE: models.VectorParams(size=dimensions, distance=models.Distance.COSINE)},
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
        for field in (SCOPE, LABELS, DOCUMENT):
            await self._client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
        await self._client.create_payload_index(name, GENERATION, models.PayloadSchemaType.INTEGER)

    async def _update_present(self, space: str, vectors: Mapping[UUID, FloatVector]) -> set[UUID]:
        """Update those that are there; the server refuses a whole call for one that is not. Returns the absent ids."""
        for _ in range(VANISHED_RETRIES):
            with _translated(space):
                records = await self._client.retrieve(self._name(space), list(vectors), with_payload=False)
            present = {_uuid(record.id) for record in records}
            updates = [
                models.PointVectors(id=point_id, vector={DENSE: vectors[point_id].tolist()}) for point_id in present
            ]
            try:
                if updates:
                    with _translated(space):
                        await self._client.update_vectors(self._name(space), updates, wait=True)
            except NotFound:
                continue  # one vanished meanwhile
            return set(vectors) - present
        raise TransientError(f"points of space {space!r} vanish faster than they can be updated")

    async def _delete(self, space: str, points: models.PointsSelector) -> None:
        with contextlib.suppress(NotFound), _translated(space):
            await self._client.delete(self._name(space), points, wait=True)

    async def _scroll(self, space: str, condition: models.Filter, offset: UUID | None, limit: int) -> list[UUID]:
        with _translated(space):
            records, _ = await self._client.scroll(
                self._name(space), condition, limit=limit, offset=offset, with_payload=False, with_vectors=False
            )
        return [_uuid(record.id) for record in records]


class _AlreadyThere(PermanentError):
    """Another process has created the collection in the meantime."""


def _point(point: Point) -> models.PointStruct:
    sparse = models.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    vectors: dict[str, models.Vector] = {SPARSE: sparse}
    if point.dense is not None:
        vectors[DENSE] = point.dense.tolist()
    return models.PointStruct(id=point.point_id, vector=vectors, payload=payload_fields(point.payload))


def _visible(scope: IndexScope) -> models.Filter:
    conditions = [(SCOPE, scopes_seen(scope)), *filter_groups(scope.filters)]
    return models.Filter(
        must=[models.FieldCondition(key=key, match=models.MatchAny(any=values)) for key, values in conditions]
    )


def _of_generation(generation_id: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=GENERATION, match=models.MatchValue(value=generation_id))])


def _with_vector(ids: Sequence[UUID]) -> models.Filter:
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids)), models.HasVectorCondition(has_vector=DENSE)])


def _candidates(response: models.QueryResponse) -> tuple[Candidate, ...]:
    return tuple(Candidate(point_id=_uuid(hit.id), score=hit.score) for hit in response.points)


def _uuid(point_id: int | str | UUID) -> UUID:
    return point_id if isinstance(point_id, UUID) else UUID(str(point_id))


def _parts(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while part := list(islice(remaining, CHUNK_POINTS)):
        yield part


@contextlib.contextmanager
def _translated(space: str | None = None) -> Iterator[None]:
    """The client's errors as ours. ``NotFound`` is the space or a point."""
    try:
        yield
    except grpc.RpcError as error:
        raise _of_status(error.code(), error.details() or "", space) from error
    except TimeoutError as error:
        raise Unavailable("index", f"Qdrant does not answer within {SEARCH_TIMEOUT_S:g} s") from error
    except ResourceExhaustedResponse as error:
        raise TransientError(f"Qdrant is busy: {error}") from error
    except ResponseHandlingException as error:
        raise Unavailable("index", f"Qdrant: {error.source}") from error
    except UnexpectedResponse as error:
        raise _of_http_status(error.status_code or 500, str(error), space) from error
    except ValueError as error:
        # The client's local mode, which contract tests use, has no other word for it.
        if "not found" in str(error):
            raise NotFound(f"space {space!r}: {error}") from error
        raise


def _of_status(status: grpc.StatusCode, detail: str, space: str | None) -> Exception:
    match status:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.UNAUTHENTICATED:
            return Unavailable("index", f"Qdrant: {detail}")
        case grpc.StatusCode.PERMISSION_DENIED:
            return Unavailable("index", f"Qdrant refuses LEAT_QDRANT_API_KEY: {detail}")
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(f"space {space!r}: {detail}")
        case grpc.StatusCode.ALREADY_EXISTS:
            return _AlreadyThere("space-exists", detail)
        case grpc.StatusCode.INVALID_ARGUMENT if "already exists" in detail:
            return _AlreadyThere("space-exists", detail)
        case grpc.StatusCode.INVALID_ARGUMENT if "No point with id" in detail:
            return NotFound(f"space {space!r}: {detail}")
        case grpc.StatusCode.INVALID_ARGUMENT:
            return PermanentError("index-refused", detail)
        case _:
            return TransientError(f"Qdrant: {status.name}: {detail}")


def _of_http_status(status: int, detail: str, space: str | None) -> Exception:
    """For the few calls that do not go through gRPC."""
    match status:
        case 401 | 403:
            return Unavailable("index", f"Qdrant refuses LEAT_QDRANT_API_KEY: {detail}")
        case 404:
            return NotFound(f"space {space!r}: {detail}")
        case 409:
            return _AlreadyThere("space-exists", detail)
        case 400 | 422:
            return PermanentError("index-refused", detail)
        case _:
            return TransientError(f"Qdrant: HTTP {status}: {detail}")
