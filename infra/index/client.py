"""The index as the other processes see it: the port, over the socket of the index process."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from infra.breaker import CircuitBreaker
from infra.index import wire
from infra.index.labels import scopes_seen
from streams.errors import Unavailable
from streams.model import Candidates, FloatVector, IndexScope, Point, SparseVector

# How long a call waits for an index process that is being restarted, before it says so.
RECONNECT_S = 1.0
RECONNECT_PAUSE_S = 0.05
# After five searches in a row that got no answer, one in this many seconds finds out whether it is back: all others are
# refused at once instead of waiting for nothing. Short: one that only stood still for a second must not cost two more.
BREAKER_PAUSE_S = 0.5

# A search takes milliseconds; an index that is silent for this long is down, as far as a question is concerned.
SEARCH_TIMEOUT_S = 1.0
WRITE_TIMEOUT_S = 30.0
# Deleting a generation of a million points, or creating a space on a slow disk.
LONG_TIMEOUT_S = 600.0

# Points per request: some 170 kB, so that neither side is busy with one frame for more than a few milliseconds.
CHUNK_POINTS = 64

READ_BUFFER_BYTES = 1024 * 1024


class RemoteIndex:
    """A ``VectorIndex`` served by another process. Connects when first needed, and again when the connection is lost.

    Every call is idempotent, so one that loses its connection is sent once more to whoever answers then.
    """

    def __init__(self, socket: Path, *, reconnect_s: float = RECONNECT_S) -> None:
        """``reconnect_s``: how long a call waits for an index process that is being started again."""
        self._socket = socket
        self._reconnect_s = reconnect_s
        self._breaker = CircuitBreaker("index", pause_s=BREAKER_PAUSE_S, probe_s=2 * (SEARCH_TIMEOUT_S + reconnect_s))
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def check(self) -> None:
        """Whether the index process answers. It has one thread, so an answer is progress.

        Raises:
            Unavailable: it does not.
        """
        await self._call("ping", SEARCH_TIMEOUT_S)

    async def ensure_space(self, space: str, dimensions: int) -> None:
        """Create the space unless it is there.

        Raises:
            PermanentError: ``space-mismatch``, it is there with other dimensions.
        """
        await self._call("ensure_space", LONG_TIMEOUT_S, space=space, dimensions=dimensions)

    async def upsert(self, space: str, points: Sequence[Point]) -> None:
        for start in range(0, len(points), CHUNK_POINTS):
            packed = wire.pack_points(points[start : start + CHUNK_POINTS])
            await self._call("upsert", WRITE_TIMEOUT_S, space=space, points=packed)

    async def update_vectors(self, space: str, vectors: Mapping[UUID, FloatVector]) -> frozenset[UUID]:
        absent: set[UUID] = set()
        ids = list(vectors)
        for start in range(0, len(ids), CHUNK_POINTS):
            part = ids[start : start + CHUNK_POINTS]
            packed = wire.pack_vectors([vectors[point_id] for point_id in part])
            reply = await self._call(
                "update_vectors", WRITE_TIMEOUT_S, space=space, ids=wire.pack_ids(part), vectors=packed
            )
            absent.update(wire.unpack_ids(reply))
        return frozenset(absent)

    async def delete(self, space: str, point_ids: Sequence[UUID]) -> None:
        if point_ids:
            await self._call("delete", WRITE_TIMEOUT_S, space=space, ids=wire.pack_ids(point_ids))

    async def delete_generation(self, space: str, generation_id: int) -> None:
        await self._call("delete_generation", LONG_TIMEOUT_S, space=space, generation_id=generation_id)

    async def search(
        self, space: str, scope: IndexScope, *, dense: FloatVector | None, sparse: SparseVector | None, limit: int
    ) -> Candidates:
        """A space without points has no candidates.

        Raises:
            ValueError: the scope has no tenant.
        """
        scopes_seen(scope)  # an unscoped search does not leave this process
        with self._breaker.attempt():
            reply = await self._call(
                "search",
                SEARCH_TIMEOUT_S,
                space=space,
                scope=wire.pack_scope(scope),
                query=wire.pack_query(dense, sparse),
                limit=limit,
            )
        return wire.unpack_candidates(reply)

    async def scroll(
        self, space: str, generation_id: int, *, after: UUID | None, limit: int
    ) -> list[tuple[UUID, bool]]:
        ids, embedded = await self._call(
            "scroll",
            WRITE_TIMEOUT_S,
            space=space,
            generation_id=generation_id,
            after=after.bytes if after else None,
            limit=limit,
        )
        return list(zip(wire.unpack_ids(ids), embedded, strict=True))

    async def count(self, space: str, generation_id: int) -> int:
        return int(await self._call("count", WRITE_TIMEOUT_S, space=space, generation_id=generation_id))

    async def _call(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        try:
            async with asyncio.timeout(timeout_s + self._reconnect_s - RECONNECT_S):
                try:
                    return await self._call_once(method, timeout_s, arguments)
                except ConnectionError:
                    return await self._call_once(method, timeout_s, arguments)
        except TimeoutError as error:
            raise Unavailable("index", f"no answer to {method} within {timeout_s:g} s") from error
        except ConnectionError as error:
            raise Unavailable("index", f"connection lost during {method}") from error

    async def _call_once(self, method: str, timeout_s: float, arguments: dict[str, Any]) -> Any:
        connection = await self._connected()
        async with asyncio.timeout(timeout_s):
            return await connection.call(method, time.monotonic() + timeout_s, arguments)

    async def _connected(self) -> "_Connection":
        if self._connection is not None and not self._connection.lost:
            return self._connection
        if self._connecting is None:
            # One attempt for all who wait: in turn, the tenth would wait ten times as long for the same answer.
            self._connecting = asyncio.create_task(_connect(self._socket, self._reconnect_s), name="index-connecting")
            self._connecting.add_done_callback(self._connect_ended)
        return await asyncio.shield(self._connecting)

    def _connect_ended(self, connecting: "asyncio.Task[_Connection]") -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._connection = connecting.result()


async def _connect(socket: Path, within_s: float) -> "_Connection":
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(socket, limit=READ_BUFFER_BYTES)
            return _Connection(reader, writer)
        except OSError as error:
            if loop.time() > give_up_at:
                detail = f"nothing answers at {socket} ({error.strerror}); `leat run index` starts it"
                raise Unavailable("index", detail, retry_after_s=1.0) from error
        await asyncio.sleep(RECONNECT_PAUSE_S)


class _Connection:
    """One connection with any number of calls under way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._request_ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._receiving = asyncio.create_task(self._receive(reader), name="index-replies")
        self.lost = False

    async def call(self, method: str, give_up_at: float, arguments: dict[str, Any]) -> Any:
        """Send a request and wait for its reply.

        ``give_up_at`` of ``time.monotonic``, the same clock for every process of a machine: a request that has waited
        for too long in the other process's queue is not worked on any more, which would make the next ones late too.

        Raises:
            ConnectionError: the connection was lost before the reply came.
        """
        if self.lost:
            raise ConnectionResetError
        request_id = next(self._request_ids)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = reply
        try:
            self._writer.write(wire.frame([request_id, method, give_up_at, arguments]))
            await self._writer.drain()
            return await reply
        except asyncio.CancelledError:
            if not self.lost:
                self._writer.write(wire.frame([request_id, "cancel"]))
            raise
        finally:
            del self._waiting[request_id]

    async def close(self) -> None:
        self._receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiving

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                request_id, status, body = await wire.read_frame(reader)
                reply = self._waiting.get(request_id)
                if reply is None or reply.done():
                    continue  # its caller has given up
                if status == wire.OK:
                    reply.set_result(body)
                else:
                    reply.set_exception(wire.unpack_error(status, body))
        except (EOFError, OSError, ValueError):
            pass  # whoever waits is told below
        finally:
            self.lost = True
            for reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(ConnectionResetError())
            self._writer.close()
