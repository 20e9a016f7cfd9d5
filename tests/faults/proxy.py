"""A TCP proxy that hurts connections, in Toxiproxy's words: down, latency, timeout, reset_peer, bandwidth, limit."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

_BUFFER = 64 * 1024


@dataclass
class Toxics:
    """What is done to every connection; change it while it runs. All off: bytes pass as they come."""

    latency_s: float = 0.0
    """Before every read is passed on, in both directions."""
    bytes_per_s: float | None = None
    hang: bool = False
    """Toxiproxy's ``timeout`` without an end: connections are accepted, nothing passes."""
    limit_bytes: int | None = None
    """Close a connection after the dependency has sent this many bytes: requests take effect, answers get lost."""
    drop_replies: float = 0.0
    """Share of what the dependency sends in one piece that is lost together with its connection."""


class Proxy:
    """One listener on loopback in front of one dependency."""

    def __init__(self, host: str, port: int, *, listen_port: int = 0, seed: int = 1) -> None:
        """``listen_port``: where to listen, for a dependency that must be told beforehand."""
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = listen_port
        self._random = random.Random(seed)
        self.toxics = Toxics()
        self.dropped = 0

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    async def up(self) -> None:
        """Listen, always on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset_peer()

    def reset_peer(self) -> None:
        """End every connection with RST; new ones are welcome."""
        for writer in list(self._writers):
            with suppress(OSError):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        try:
            await asyncio.gather(
                self._pass_on(reader, up_writer, limited=False), self._pass_on(up_reader, writer, limited=True)
            )
        finally:
            self._writers -= {writer, up_writer}

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := await reader.read(_BUFFER):
                while self.toxics.hang:
                    await asyncio.sleep(0.02)
                if self.toxics.latency_s:
                    await asyncio.sleep(self.toxics.latency_s)
                if self.toxics.bytes_per_s:
                    await asyncio.sleep(len(data) / self.toxics.bytes_per_s)
                limit = self.toxics.limit_bytes
                if limited and limit is not None and passed + len(data) > limit:
                    break
                if limited and self._random.random() < self.toxics.drop_replies:
                    self.dropped += 1
                    break
                passed += len(data)
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy that listens until the block ends."""
    proxy = Proxy(host, port)
    await proxy.up()
    try:
        yield proxy
    finally:
        proxy.toxics = Toxics()
        await proxy.down()
