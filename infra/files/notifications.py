"""Notifications of the file system, as hints of where to look. They get lost and come lossy: looking decides."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from watchfiles import awatch

# watchfiles sleeps this long between two looks at its queue, and hands over after one quiet look: 6 ms from a change to
# us, for 0.3 % of a core while idle (2 ms: 4 ms, 0.5 %; 8 ms: 10 ms, 0.2 %).
STEP_MS = 4
DEBOUNCE_MS = 50


@contextlib.asynccontextmanager
async def notifications(root: str) -> AsyncIterator["asyncio.Queue[set[str] | BaseException]"]:
    """Paths that something happened to, or the error that ended it. Being entered, no later change is missed."""
    hints: asyncio.Queue[set[str] | BaseException] = asyncio.Queue()
    stop = asyncio.Event()

    async def feed() -> None:
        try:
            async for batch in awatch(
                root,
                watch_filter=None,
                debounce=DEBOUNCE_MS,
                step=STEP_MS,
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                hints.put_nowait({path for _, path in batch})
        except* (RuntimeError, OSError) as group:
            hints.put_nowait(group)

    task = asyncio.create_task(feed())
    # awatch places its watches before it first awaits; after one turn of the loop they are in place.
    await asyncio.sleep(0)
    try:
        yield hints
    finally:
        stop.set()
        task.cancel()
        await asyncio.wait([task])


async def next_hint(hints: "asyncio.Queue[set[str] | BaseException]", timeout_s: float) -> set[str] | BaseException:
    """The next hint, with all that have piled up behind it; nothing after ``timeout_s``."""
    try:
        hint = hints.get_nowait() if not hints.empty() else await asyncio.wait_for(hints.get(), timeout_s)
    except TimeoutError:
        return set()
    while not isinstance(hint, BaseException) and not hints.empty():
        following = hints.get_nowait()
        hint = following if isinstance(following, BaseException) else hint | following
    return hint
