"""The index process: owns the folder, serves the port to every other process of this machine on a Unix socket."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from infra.index import wire
from infra.index.address import private_folder
from infra.index.edge import EdgeIndex
from streams.errors import LeatError

log = logging.getLogger(__name__)

# One read of the socket; the default of 64 KiB would cut a frame of points into dozens of them.
READ_BUFFER_BYTES = 1024 * 1024

_Method = Callable[[dict[str, Any]], Awaitable[Any]]


class IndexServer:
    """Answers requests on a socket. All of them share the event loop with the engine: see ``EdgeIndex``."""

    def __init__(self, index: EdgeIndex, socket: Path) -> None:
        self._socket = socket
        self._methods: dict[str, _Method] = _methods(index)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The index's folder is ours, so a socket that is there belonged to an owner that died."""
        private_folder(self._socket.parent)
        self._socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._socket, limit=READ_BUFFER_BYTES)
        self._socket.chmod(0o600)

    async def stop(self) -> None:
        """Stop listening and hang up. A client that waits for an answer tries again at the next owner."""
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._socket.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await _Connection(reader, writer, self._methods).serve()
        except asyncio.CancelledError:
            pass  # the server stops; asyncio would log a task of its own that ends cancelled
        except (EOFError, ConnectionError):
            pass  # the client has left
        except ValueError as error:
            log.warning("index_client_refused", extra={"detail": str(error)})
        finally:
            self._connections.discard(connection)
            writer.close()


class _Connection:
    """One client. Requests run side by side; each is answered when it is done."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, methods: dict[str, _Method]) -> None:
        self._reader = reader
        self._writer = writer
        self._methods = methods
        self._running: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        try:
            while True:
                request_id, method, *rest = await wire.read_frame(self._reader)
                if method == "cancel":
                    if running := self._running.get(request_id):
                        running.cancel()
                    continue
                task = asyncio.create_task(self._answer(request_id, method, *rest))
                self._running[request_id] = task
                task.add_done_callback(lambda _, done=request_id: self._running.pop(done, None))  # type: ignore[misc]
        finally:
            for task in self._running.values():
                task.cancel()

    async def _answer(self, request_id: int, method: str, give_up_at: float, arguments: dict[str, Any]) -> None:
        left_s = give_up_at - time.monotonic()
        if left_s <= 0:
            return  # its client has given up while it waited here: whoever comes next must not wait for it too
        try:
            async with asyncio.timeout(left_s):
                reply = (wire.OK, await self._methods[method](arguments))
        except TimeoutError:
            return  # the client has given up already
        except (LeatError, ValueError) as error:
            reply = wire.pack_error(error)
        except (KeyError, TypeError, AttributeError) as error:
            log.exception("index_request_failed", extra={"method": method})
            reply = wire.pack_error(ValueError(f"{method}: {error!r}"))
        with contextlib.suppress(ConnectionError):
            self._writer.write(wire.frame([request_id, *reply]))
            await self._writer.drain()


def _methods(index: EdgeIndex) -> dict[str, _Method]:
    """The port, method by method, in terms of the wire."""

    async def ping(_: dict[str, Any]) -> None:
        return None

    async def ensure_space(arguments: dict[str, Any]) -> None:
        await index.ensure_space(arguments["space"], arguments["dimensions"])

    async def upsert(arguments: dict[str, Any]) -> None:
        await index.upsert(arguments["space"], wire.unpack_points(arguments["points"]))

    async def update_vectors(arguments: dict[str, Any]) -> bytes:
        ids = wire.unpack_ids(arguments["ids"])
        vectors = dict(zip(ids, wire.unpack_vectors(arguments["vectors"]), strict=True))
        return wire.pack_ids(list(await index.update_vectors(arguments["space"], vectors)))

    async def delete(arguments: dict[str, Any]) -> None:
        await index.delete(arguments["space"], wire.unpack_ids(arguments["ids"]))

    async def delete_generation(arguments: dict[str, Any]) -> None:
        await index.delete_generation(arguments["space"], arguments["generation_id"])

    async def search(arguments: dict[str, Any]) -> list[Any]:
        dense, sparse = wire.unpack_query(arguments["query"])
        scope = wire.unpack_scope(arguments["scope"])
        found = await index.search(arguments["space"], scope, dense=dense, sparse=sparse, limit=arguments["limit"])
        return wire.pack_candidates(found)

    async def scroll(arguments: dict[str, Any]) -> list[Any]:
        after = UUID(bytes=arguments["after"]) if arguments["after"] else None
        page = await index.scroll(arguments["space"], arguments["generation_id"], after=after, limit=arguments["limit"])
        return [wire.pack_ids([point_id for point_id, _ in page]), [embedded for _, embedded in page]]

    async def count(arguments: dict[str, Any]) -> int:
        return await index.count(arguments["space"], arguments["generation_id"])

    methods = (ping, ensure_space, upsert, update_vectors, delete, delete_generation, search, scroll, count)
    return {method.__name__: method for method in methods}
