"""Free TCP ports on loopback."""

import asyncio
import socket
import time
from contextlib import suppress


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens on now."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def first_free(host: str, start: int, tries: int = 200) -> int:
    """``start`` or the next free port behind it."""
    for port in range(start, min(start + tries, 65536)):
        if is_free(host, port):
            return port
    return free_ports(1, host)[0]


async def accepts(host: str, port: int) -> bool:
    """Whether a server answers the connection."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def deadline(timeout_s: float) -> float:
    """The monotonic instant at which patience ends."""
    return time.monotonic() + timeout_s
