"""The vector index: Qdrant Edge in the ``index`` process, or a Qdrant server where one is configured."""

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from infra.index.address import index_folder, index_socket
from infra.settings import Settings
from streams.errors import Unavailable
from streams.ports import VectorIndex

if TYPE_CHECKING:
    from infra.index.edge import EdgeIndex

log = logging.getLogger(__name__)

# How long a new index process waits for the one before it to let the folder go.
TAKEOVER_S = 10.0


class Index(VectorIndex, Protocol):
    """A ``VectorIndex`` with what its owner needs: to know that it answers, and to let it go."""

    async def check(self) -> None:
        """Whether it answers.

        Raises:
            Unavailable: it does not.
        """
        ...

    async def close(self) -> None: ...


def make_index(settings: Settings, *, reconnect_s: float = 1.0) -> Index:
    """The index that the settings name. Nothing is connected before the first call.

    ``reconnect_s``: how long a call waits for an index process that is being started again.
    """
    if settings.qdrant_url:
        from infra.index.qdrant import QdrantIndex  # 54 MB of modules that only this choice needs

        return QdrantIndex.connect(settings.qdrant_url, settings.qdrant_api_key, prefix=settings.topic_prefix)
    from infra.index.client import RemoteIndex

    return RemoteIndex(index_socket(settings), reconnect_s=reconnect_s)


async def serve_index(settings: Settings) -> None:
    """Own the index's folder and serve it on its socket until cancelled; then flush and let go.

    Raises:
        Unavailable: another process owns the folder, and keeps it.
    """
    from infra.index.edge import EdgeIndex
    from infra.index.server import IndexServer

    index = EdgeIndex(index_folder(settings))
    await _take_over(index)
    server = IndexServer(index, index_socket(settings))
    try:
        await server.start()
        log.info("index_serving", extra={"socket": str(index_socket(settings))})
        await asyncio.get_running_loop().create_future()
    finally:
        await server.stop()
        await index.close()


async def _take_over(index: "EdgeIndex") -> None:
    give_up_at = asyncio.get_running_loop().time() + TAKEOVER_S
    while True:
        try:
            return await index.open()
        except Unavailable:
            if asyncio.get_running_loop().time() > give_up_at:
                raise
        await asyncio.sleep(0.1)
