"""What clients and the index process say to each other.

A frame is four bytes of length (big endian) and a msgpack array. A request is ``[id, method, give_up_at, arguments]``,
``[id, "cancel"]`` ends one early; the reply is ``[id, status, body]`` with the status ``ok`` or an error's. Ids,
vectors and terms travel as packed arrays of many points: taking numbers apart one by one is what costs.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any
from uuid import UUID

import msgpack
import numpy as np

from streams.errors import LeatError, NotFound, PermanentError, TransientError, Unavailable
from streams.model import Candidate, Candidates, FloatVector, IndexScope, Point, PointPayload, SparseVector

# Larger than any honest frame (a client sends at most CHUNK_POINTS points in one), small enough to protect the server.
MAX_FRAME_BYTES = 64 * 1024 * 1024

OK = "ok"


def frame(message: Sequence[Any]) -> bytes:
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(4, "big") + body


async def read_frame(reader: asyncio.StreamReader) -> list[Any]:
    """The next message.

    Raises:
        EOFError: the other side has closed the connection.
        ValueError: the other side does not speak this protocol.
    """
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes, at most {MAX_FRAME_BYTES} are allowed")
    message = msgpack.unpackb(await reader.readexactly(length))
    if not isinstance(message, list) or len(message) < 2:
        raise ValueError("a message is an array of at least two parts")
    return message


# Points


def pack_ids(ids: Sequence[UUID]) -> bytes:
    return b"".join(point_id.bytes for point_id in ids)


def unpack_ids(data: bytes) -> list[UUID]:
    return [UUID(bytes=data[start : start + 16]) for start in range(0, len(data), 16)]


def pack_vectors(vectors: Sequence[FloatVector]) -> list[Any]:
    """``[dimensions, rows as little-endian float32]``."""
    if not vectors:
        return [0, b""]
    matrix = np.stack(vectors).astype("<f4", copy=False)
    return [matrix.shape[1], matrix.tobytes()]


def unpack_vectors(packed: list[Any]) -> list[FloatVector]:
    dimensions, data = packed
    return list(np.frombuffer(data, dtype="<f4").reshape(-1, dimensions)) if dimensions else []


def pack_points(points: Sequence[Point]) -> dict[str, Any]:
    """Points of one document stand together and share their payload object: it travels once for all of them."""
    payloads: list[list[Any]] = []
    last: PointPayload | None = None
    for point in points:
        if point.payload is not last:
            payloads.append([0, _pack_payload(point.payload)])
            last = point.payload
        payloads[-1][0] += 1
    return {
        "ids": pack_ids([point.point_id for point in points]),
        "payloads": payloads,
        "terms": _pack_terms([point.sparse for point in points]),
        "embedded": [point.dense is not None for point in points],
        "vectors": pack_vectors([point.dense for point in points if point.dense is not None]),
    }


def unpack_points(packed: Mapping[str, Any]) -> list[Point]:
    vectors = iter(unpack_vectors(packed["vectors"]))
    payloads = chain.from_iterable(repeat(_unpack_payload(payload), count) for count, payload in packed["payloads"])
    return [
        Point(point_id, payload, sparse, next(vectors) if embedded else None)
        for point_id, payload, sparse, embedded in zip(
            unpack_ids(packed["ids"]),
            payloads,
            _unpack_terms(packed["terms"]),
            packed["embedded"],
            strict=True,
        )
    ]


def _pack_payload(payload: PointPayload) -> list[Any]:
    return [
        payload.tenant,
        payload.generation_id,
        payload.document_id,
        payload.level_rank,
        payload.groups,
        _pack_metadata(payload.metadata),
    ]


def _unpack_payload(packed: list[Any]) -> PointPayload:
    tenant, generation_id, document_id, level_rank, groups, metadata = packed
    return PointPayload(tenant, generation_id, document_id, level_rank, tuple(groups), json.loads(metadata))


def _pack_metadata(metadata: Mapping[str, Any]) -> str:
    """As JSON: metadata comes from people, and msgpack refuses their 20-digit numbers and half characters."""
    return json.dumps(dict(metadata), default=str)


def _pack_terms(vectors: Sequence[SparseVector]) -> list[Any]:
    """``[terms per vector, all indices as uint32, all values as float32]``."""
    counts = [len(vector.indices) for vector in vectors]
    total = sum(counts)
    indices = np.fromiter(chain.from_iterable(vector.indices for vector in vectors), "<u4", total)
    values = np.fromiter(chain.from_iterable(vector.values for vector in vectors), "<f4", total)
    return [counts, indices.tobytes(), values.tobytes()]


def _unpack_terms(packed: list[Any]) -> list[SparseVector]:
    counts, index_bytes, value_bytes = packed
    indices = np.frombuffer(index_bytes, "<u4").tolist()
    values = np.frombuffer(value_bytes, "<f4").tolist()
    vectors = []
    start = 0
    for count in counts:
        vectors.append(SparseVector(indices[start : start + count], values[start : start + count]))
        start += count
    return vectors


# Searching


def pack_scope(scope: IndexScope) -> list[Any]:
    filters = {key: _plain(value) for key, value in scope.filters.items()}
    return [
        scope.tenant,
        scope.generation_id,
        scope.max_level_rank,
        scope.groups,
        scope.every_group,
        _pack_metadata(filters),
    ]


def unpack_scope(packed: list[Any]) -> IndexScope:
    tenant, generation_id, max_level_rank, groups, every_group, filters = packed
    return IndexScope(tenant, generation_id, max_level_rank, tuple(groups), every_group, json.loads(filters))


def pack_query(dense: FloatVector | None, sparse: SparseVector | None) -> list[Any]:
    return [
        None if dense is None else np.asarray(dense, "<f4").tobytes(),
        None if sparse is None else [list(sparse.indices), list(sparse.values)],
    ]


def unpack_query(packed: list[Any]) -> tuple[FloatVector | None, SparseVector | None]:
    dense, sparse = packed
    return (
        None if dense is None else np.frombuffer(dense, "<f4"),
        None if sparse is None else SparseVector(*sparse),
    )


def pack_candidates(candidates: Candidates) -> list[Any]:
    return [
        [pack_ids([candidate.point_id for candidate in leg]), [candidate.score for candidate in leg]]
        for leg in (candidates.dense, candidates.sparse)
    ]


def unpack_candidates(packed: list[Any]) -> Candidates:
    dense, sparse = (tuple(map(Candidate, unpack_ids(ids), scores)) for ids, scores in packed)
    return Candidates(dense=dense, sparse=sparse)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple | set | frozenset) else value


# Errors


def pack_error(error: Exception) -> tuple[str, list[Any]]:
    """Status and body of a reply that is an error."""
    match error:
        case Unavailable():
            return "unavailable", [error.detail, error.retry_after_s]
        case PermanentError():
            return "permanent", [error.reason, error.detail]
        case NotFound():
            return "not-found", [str(error)]
        case ValueError():
            return "invalid", [str(error)]
        case _:
            return "transient", [str(error) or type(error).__name__]


def unpack_error(status: str, body: list[Any]) -> LeatError | ValueError:
    match status:
        case "unavailable":
            return Unavailable("index", body[0], retry_after_s=body[1])
        case "permanent":
            return PermanentError(body[0], body[1])
        case "not-found":
            return NotFound(body[0])
        case "invalid":
            return ValueError(body[0])
        case _:
            return TransientError(f"the index process says: {body[0]}")
