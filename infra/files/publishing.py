"""What a producer on this machine needs: the log, the blob store, and the watcher's memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.blobs import FolderBlobStore
from infra.files.folder_log import WatchReport
from infra.files.watching import watch
from infra.kafka.change_log import KafkaChangeLog
from infra.kafka.connection import connection_kwargs
from infra.kafka.epochs import current_epoch
from infra.postgres.pool import Pool, open_pool
from infra.postgres.watched import PostgresWatchedFiles
from infra.settings import Settings
from streams.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Publishing:
    """Open connections of a producer."""

    changes: KafkaChangeLog
    watched: PostgresWatchedFiles
    blobs: FolderBlobStore
    database: Pool


@asynccontextmanager
async def open_publishing(settings: Settings) -> AsyncIterator[Publishing]:
    """Connect; everything is closed when the block ends.

    Raises:
        Unavailable: the brokers or the database do not answer.
        PermanentError: the settings do not say where they are.
    """
    if not settings.postgres_dsn:
        raise PermanentError("postgres-not-configured", "give LEAT_POSTGRES_DSN, or start everything with `leat up`")
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(
            await open_pool(settings.postgres_dsn, 2, application="leat-watcher")
        )
        epoch = await current_epoch(settings, database)
        changes = KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix, epoch=epoch)
        stack.push_async_callback(changes.close)
        blobs = FolderBlobStore(settings.blob_dir or settings.data_dir / "blobs")
        stack.push_async_callback(blobs.close)
        yield Publishing(changes, PostgresWatchedFiles(database), blobs, database)


async def watch_folder(
    settings: Settings,
    *,
    root: Path,
    collection: str = "default",
    on_report: Callable[[WatchReport], None] | None = None,
) -> None:
    """Connect and watch until cancelled. Raises as ``open_publishing`` and ``watch``."""
    async with open_publishing(settings) as producer:
        await watch(
            settings,
            root=root,
            collection=collection,
            changes=producer.changes,
            known=producer.watched,
            blobs=producer.blobs,
            on_report=on_report,
        )
