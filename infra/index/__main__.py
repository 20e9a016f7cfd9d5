"""``python -m infra.index``: the index process alone, until SIGTERM or SIGINT."""

import asyncio
import contextlib
import signal
import sys

from infra.index import serve_index
from infra.settings import load
from streams.errors import Unavailable


async def _serve() -> None:
    serving = asyncio.current_task()
    assert serving is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serve_index(load())


if __name__ == "__main__":
    try:
        asyncio.run(_serve())
    except Unavailable as error:
        print(error, file=sys.stderr)
        sys.exit(3)
