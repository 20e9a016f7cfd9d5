"""Waits until everything serves: the API says ready, and every consumer group of ours has its partitions."""

import asyncio
import time
from collections.abc import Callable, Sequence

from infra.settings import Settings
from streams.errors import Unavailable
from streams.topology import STAGES


async def wait_until_ready(
    settings: Settings, api_address: tuple[str, int], *, ended: Callable[[], Sequence[str]], timeout_s: float = 240.0
) -> None:
    """Return when questions and changes are taken care of.

    ``ended`` names processes that have died; they are being started again, and are named when time is up.

    Raises:
        Unavailable: not ready in time; the message says what is missing.
    """
    end = time.monotonic() + timeout_s
    missing = ["the API"]
    try:
        while not await _is_ready(*api_address):
            await _pause(end)
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(1.0, end - time.monotonic())):
            while missing := await _unassigned_groups(settings):
                await _pause(end)
    except TimeoutError as error:
        died = ", ".join(ended())
        why = f"{', '.join(missing)} after {timeout_s:.0f} s" + (f"; died: {died}" if died else "")
        raise Unavailable("Leat", f"still waiting for {why}; see the logs in the data directory") from error


async def _pause(end: float) -> None:
    if time.monotonic() > end:
        raise TimeoutError
    await asyncio.sleep(0.05)


async def _is_ready(host: str, port: int) -> bool:
    """One GET of ``/readyz``; the launcher carries no HTTP client for it."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 2.0)
    except (OSError, TimeoutError):
        return False
    try:
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        status = await asyncio.wait_for(reader.readline(), 5.0)
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
    return status.split()[1:2] == [b"200"]


async def _unassigned_groups(settings: Settings) -> list[str]:
    """Groups of the pipeline that are not settled yet."""
    from infra.kafka.groups import unsettled_groups

    wanted = {stage.group_of(topic, settings.topic_prefix) for stage in STAGES for topic in stage.reads}
    return await unsettled_groups(settings, wanted)
