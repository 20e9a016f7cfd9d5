"""The watcher's memory of a folder."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from streams.watch import FileState, WatchedFolder


class WatchedFiles(Protocol):
    """The watcher's memory of a folder: what the log has acknowledged, and deletions that wait for a person."""

    async def load(self, folder: WatchedFolder) -> dict[str, FileState]:
        """What has been published, by document id."""
        ...

    async def remember(
        self, folder: WatchedFolder, published: Mapping[str, FileState], *, forget: Iterable[str] = ()
    ) -> None:
        """These files are in the log as they are here; these documents are deleted in the log."""
        ...

    async def withhold(self, folder: WatchedFolder, document_ids: Iterable[str]) -> None:
        """Exactly these deletions wait for approval now; approvals of those that stay are kept, others are dropped."""
        ...

    async def waiting(self, folder: WatchedFolder) -> dict[str, bool]:
        """The withheld deletions, and whether a person has approved each since."""
        ...

    async def report_unreadable(self, folder: WatchedFolder, reasons: Mapping[str, str]) -> None:
        """Exactly these files cannot be read now, and why; for ``leat status``."""
        ...
