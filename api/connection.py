"""A connection of the HTTP server: may be broken off, notices a peer that has gone, holds little for a slow one."""

import contextlib
import socket
from asyncio import Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.sse import ABORT, LOST_READERS

# What the kernel takes from us for a reader that takes nothing; by itself it would let that grow to 4 MB.
UNSENT_BYTES = 128 * 1024
# Not in every Python's socket module; the number is Linux's.
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


class Connection(HttpToolsProtocol):
    """Lets a response break its connection off, which ASGI has no word for: a reader that takes nothing must go."""

    dead_peer_s: float = 15.0
    """A peer that acknowledges nothing for this long is gone: its machine was switched off, or its network has left.

    The kernel counts a window that stays closed too. So this is longer than the time that a slow reader has.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            _bound(connected, self.dead_peer_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, TimeoutError) and self.cycle is not None and not self.cycle.response_complete:
            LOST_READERS.inc()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]


def connection_with(send_timeout_s: float) -> type[Connection]:
    """Connections whose dead peers are noticed a little later than slow readers are."""

    class Bounded(Connection):
        dead_peer_s = send_timeout_s + 5.0

    return Bounded


def _bound(connected: Any, dead_peer_s: float) -> None:
    """Where the operating system knows these options (Linux does)."""
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    with contextlib.suppress(OSError):
        if user_timeout is not None:
            connected.setsockopt(socket.IPPROTO_TCP, user_timeout, int(dead_peer_s * 1000))
            connected.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
