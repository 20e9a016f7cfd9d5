"""Publish files once, and find out what became of them."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.files.file_change import upsert_of
from infra.files.folder import Entry, Folder, Look, RootGone, batches, read_all
from infra.files.publishing import Publishing
from infra.postgres.pool import Pool
from infra.settings import Settings
from schemas.documents import DocumentChanged, DocumentKey
from schemas.positions import Position
from streams.errors import PermanentError

_BATCH_FILES = 200
_BATCH_BYTES = 8 * 1024 * 1024
# Fewer files than this are somebody's edit; more are a load, and yield to edits.
_MAX_INTERACTIVE_FILES = 32

_PROGRESS = """
select count(o.outcome) filter (where o.outcome = 'applied') as searchable,
       count(o.outcome) filter (where o.outcome = 'failed') as failed,
       count(o.outcome) filter (where o.outcome = 'superseded') as superseded,
       count(m.document_key) filter (where o.outcome = 'applied' and m.unembedded = 0) as embedded
from unnest($1::integer[], $2::integer[], $3::bigint[]) as w (epoch, partition, record_offset)
left join outcomes o on (o.epoch, o.partition, o.record_offset) = (w.epoch, w.partition, w.record_offset)
left join documents d on (d.tenant, d.collection, d.document_id) = (o.tenant, o.collection, o.document_id)
left join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests m on m.document_key = d.document_key and m.generation_id = g.generation_id
"""


@dataclass(frozen=True, slots=True)
class Published:
    """A batch that the log has acknowledged, and the files that could not be read."""

    positions: list[Position]
    unreadable: dict[str, str]


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the published documents have come how far."""

    searchable: int
    embedded: int
    failed: int
    superseded: int

    def seen(self) -> int:
        """Documents with an outcome."""
        return self.searchable + self.failed + self.superseded


def find_files(paths: Sequence[Path]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Files by document id: in a folder its path relative to it, as the watcher would say; of a file its name.

    Raises:
        RootGone: a path does not exist.
        PermanentError: ``same-document-id``, two paths lead to one id.
    """
    files: dict[str, Entry] = {}
    unreadable: dict[str, str] = {}
    for path in paths:
        look = Folder(path).look() if path.is_dir() else _look_at_file(path)
        if twice := files.keys() & look.files.keys():
            raise PermanentError("same-document-id", f"{min(twice)!r} comes from two paths: ingest them one by one")
        files |= look.files
        unreadable |= look.unreadable | look.unreadable_directories
    return files, unreadable


def _look_at_file(path: Path) -> Look:
    """A file that was named is wanted, whatever the ignore rules say."""
    try:
        status = path.stat()
    except OSError as error:
        raise RootGone(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RootGone(f"{path}: not a file or a folder")
    name = DocumentKey.of("default", "default", os.fsencode(path.name)).document_id
    return Look({name: Entry(str(path), status.st_size, status.st_mtime_ns)})


async def publish_files(
    settings: Settings, producer: Publishing, files: dict[str, Entry], *, collection: str
) -> AsyncIterator[Published]:
    """Publish files in batches, many of them down the bulk lane; yields as the log acknowledges.

    Raises:
        Unavailable: the log or the blob store does not answer. Publishing again is harmless.
    """
    for batch in batches(files, max_files=_BATCH_FILES, max_bytes=_BATCH_BYTES):
        readings, unreadable, unsettled, vanished = await asyncio.to_thread(
            read_all, batch, max_bytes=settings.max_document_bytes
        )
        unreadable |= dict.fromkeys(unsettled, "unsettled-file: it changed while it was read")
        unreadable |= dict.fromkeys(vanished, "vanished-file: it was gone before it could be read")
        changes: list[tuple[DocumentKey, DocumentChanged]] = [
            (
                DocumentKey.of(settings.tenant, collection, name),
                await upsert_of(batch[name], reading, tenant=settings.tenant, blobs=producer.blobs, source="ingest"),
            )
            for name, reading in readings.items()
        ]
        bulk = len(files) > _MAX_INTERACTIVE_FILES
        yield Published(await producer.changes.publish_many(changes, bulk=bulk), unreadable)


async def progress(database: Pool, positions: Sequence[Position]) -> Progress:
    """What has become of published changes, looked at once."""
    row = await database.fetchrow(
        _PROGRESS,
        [position.epoch for position in positions],
        [position.partition for position in positions],
        [position.offset for position in positions],
    )
    assert row is not None, "an aggregate without grouping has one row"
    return Progress(row["searchable"], row["embedded"], row["failed"], row["superseded"])
