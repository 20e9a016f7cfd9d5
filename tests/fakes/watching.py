"""The watcher's surroundings in memory: a log that can be away, and the memory of what it acknowledged."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from time import time_ns

from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.positions import Position
from streams.errors import NotFound, Unavailable
from streams.watch import FileState, WatchedFolder


class InMemoryChangeLog:
    """Keeps what was published, in order, with the time of its publication; ``away`` makes it refuse."""

    def __init__(self) -> None:
        self.records: list[tuple[DocumentKey, DocumentChanged | None, bool]] = []
        self.times_ns: list[int] = []
        self.away = False
        self.refused = 0

    async def publish(self, key: DocumentKey, change: DocumentChanged | None, *, bulk: bool = False) -> Position:
        if self.away:
            self.refused += 1
            raise Unavailable("Kafka", "not now")
        self.records.append((key, change, bulk))
        self.times_ns.append(time_ns())
        return Position(0, 0, len(self.records) - 1, key)

    async def publish_many(
        self, changes: Sequence[tuple[DocumentKey, DocumentChanged]], *, bulk: bool = False
    ) -> list[Position]:
        return [await self.publish(key, change, bulk=bulk) for key, change in changes]

    def fold(self) -> dict[str, DocumentChanged]:
        """What compaction would keep: the last upsert of every document that is not deleted."""
        documents: dict[str, DocumentChanged] = {}
        for key, change, _ in self.records:
            if change is None or change.change is Change.DELETE:
                documents.pop(key.document_id, None)
            else:
                documents[key.document_id] = change
        return documents

    def upserts(self) -> list[str]:
        return [key.document_id for key, change, _ in self.records if change and change.change is Change.UPSERT]

    def deletes(self) -> list[str]:
        return [key.document_id for key, change, _ in self.records if change and change.change is Change.DELETE]


class InMemoryWatchedFiles:
    def __init__(self) -> None:
        self.files: dict[WatchedFolder, dict[str, FileState]] = {}
        self.withheld: dict[WatchedFolder, dict[str, bool]] = {}
        self.unreadable: dict[WatchedFolder, dict[str, str]] = {}

    async def load(self, folder: WatchedFolder) -> dict[str, FileState]:
        return dict(self.files.get(folder, {}))

    async def remember(
        self, folder: WatchedFolder, published: Mapping[str, FileState], *, forget: Iterable[str] = ()
    ) -> None:
        files = self.files.setdefault(folder, {})
        files.update(published)
        for document_id in forget:
            files.pop(document_id, None)

    async def withhold(self, folder: WatchedFolder, document_ids: Iterable[str]) -> None:
        before = self.withheld.get(folder, {})
        self.withheld[folder] = {name: before.get(name, False) for name in document_ids}

    async def waiting(self, folder: WatchedFolder) -> dict[str, bool]:
        return dict(self.withheld.get(folder, {}))

    async def approve(self, tenant: str, collection: str) -> int:
        """What the command does: let the watcher delete everything that waits."""
        count = 0
        for folder, waiting in self.withheld.items():
            if folder[:2] == (tenant, collection):
                count += sum(not approved for approved in waiting.values())
                self.withheld[folder] = dict.fromkeys(waiting, True)
        return count

    async def report_unreadable(self, folder: WatchedFolder, reasons: Mapping[str, str]) -> None:
        self.unreadable[folder] = dict(reasons)


class InMemoryBlobs:
    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}

    async def put(self, tenant: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[tenant, sha256] = data
        return sha256

    async def get(self, tenant: str, sha256: str) -> bytes:
        try:
            return self.blobs[tenant, sha256]
        except KeyError as error:
            raise NotFound(sha256) from error
