"""Cancelling tasks until they are done."""

import asyncio
from typing import Any

CANCEL_AGAIN_S = 0.1


async def cancelled(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel until they have ended; how they ended is nobody's business any more.

    Once is not always enough. A client library may turn a cancellation into an error of its own, and
    ``asyncio.wait_for`` of Python 3.11 forgets one that comes in the very moment in which what it waits for is done.
    The task goes on then, for ever if it follows a stream.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
