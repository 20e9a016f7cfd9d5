"""The watcher: a folder's changes become document changes in the log, as they happen and after having been away.

Events of the file system are hints of where to look; what is published comes from looking. So a lost event costs a
minute (the safety scan), never a change.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import TypeVar

from infra.files.folder import Entry, Folder, Look, RootGone
from infra.files.folder_log import FolderLog, FolderLogParts, WatchReport
from infra.files.notifications import next_hint, notifications
from infra.settings import Settings
from streams.errors import TransientError, Unavailable
from streams.ignore import IGNORE_FILES
from streams.ports import BlobStore, ChangeLog, WatchedFiles
from streams.watch import WatchedFolder

log = logging.getLogger(__name__)

T = TypeVar("T")

# An editor that saves by renaming leaves a moment without the file: a deletion is believed after this long. The same
# pause brings both halves of a rename into one plan, and lets a file grow that has just been created empty.
SETTLE_S = 0.04
# Files that were created inside a new directory before its watch was in place are found by looking again.
NEW_DIRECTORY_S = 0.25
SAFETY_SCAN_S = 60.0
# How often to look for a root that is gone or was replaced, and for approvals.
TICK_S = 1.0
# Without notifications (the system's limit of watches, an exotic file system) looking is all we have.
POLLING_SCAN_S = 5.0
# More changes than this at once are a bulk load (a checkout, an unpacked archive), not somebody's edit.
MAX_INTERACTIVE_UPSERTS = 32
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)


async def watch(
    settings: Settings,
    *,
    root: Path,
    collection: str = "default",
    changes: ChangeLog,
    known: WatchedFiles,
    blobs: BlobStore,
    on_report: Callable[[WatchReport], None] | None = None,
    once: bool = False,
) -> None:
    """Publish the changes of ``root`` until cancelled; with ``once``, catch up and return.

    What did not change since it was last published is not published again, also over restarts. While the log or the
    database is away nothing is lost: the watcher tries again until they are back.

    Raises:
        RootGone: there is no readable folder and there has never been one. One that vanished is waited for.
    """
    # One line for every change that it hears of, before we know whether it means anything.
    logging.getLogger("watchfiles.main").setLevel(logging.WARNING)
    folder = Folder(root)
    watched = WatchedFolder(settings.tenant, collection, folder.name)
    parts = FolderLogParts(
        changes=changes,
        memory=known,
        blobs=blobs,
        max_document_bytes=settings.max_document_bytes,
        on_report=on_report or _ignore,
    )
    await _Watcher(folder, watched, parts).run(once=once)


def _ignore(_: WatchReport) -> None:
    """Nobody is looking."""


class _Watcher:
    """One watched folder: where to look, and when."""

    def __init__(self, folder: Folder, watched: WatchedFolder, parts: FolderLogParts) -> None:
        self._folder = folder
        self._watched = watched
        self._log = FolderLog(watched, parts, look_again=self._look_again)
        self._due: dict[str, float] = {}
        """Relative paths to look at, and when."""
        self._new_directories: set[str] = set()

    # Running

    async def run(self, *, once: bool) -> None:
        await self._persistently(self._log.load)
        if not self._log.known:
            self._folder.identity()
        if once:
            await self._persistently(self._catch_up)
            return
        while True:
            await self._session()

    async def _session(self) -> None:
        """Watch one incarnation of the root: until it goes, is replaced, or notifications fail."""
        try:
            identity = self._folder.identity()
        except RootGone:
            await self._persistently(self._catch_up)
            await asyncio.sleep(TICK_S)
            return
        async with notifications(self._folder.root) as hints:
            self._due.clear()
            await self._persistently(self._catch_up)
            next_scan = monotonic() + SAFETY_SCAN_S
            while True:
                hint = await next_hint(hints, self._pause(next_scan))
                if isinstance(hint, BaseException):
                    await self._after_failed_notifications(hint)
                    return
                if not await asyncio.to_thread(self._is_still, identity):
                    self._due.clear()
                    return
                self._note(hint)
                if self._asks_for_a_scan():
                    next_scan = monotonic()
                await self._persistently(self._look_at_due)
                if self._may_scan(next_scan) or await self._approval_came():
                    await self._persistently(self._catch_up)
                    next_scan = monotonic() + SAFETY_SCAN_S

    def _may_scan(self, next_scan: float) -> bool:
        """A scan would take deletions that are settling for ones that it must ask about: those first."""
        late_s = monotonic() - next_scan
        return late_s >= (SAFETY_SCAN_S if self._due else 0)

    def _is_still(self, identity: tuple[int, int]) -> bool:
        try:
            return self._folder.identity() == identity
        except RootGone:
            return False

    def _asks_for_a_scan(self) -> bool:
        """The root itself or an ignore file was touched: no single path says what that means."""
        asking = [path for path in self._due if not path or path.rpartition("/")[2] in IGNORE_FILES]
        for path in asking:
            del self._due[path]
        return bool(asking)

    async def _after_failed_notifications(self, error: BaseException) -> None:
        if "decode path" in str(error) or "decode path" in str(getattr(error, "exceptions", "")):
            # watchfiles gives up at a name that is not UTF-8; the next session's catch-up finds that file.
            await asyncio.sleep(TICK_S)
            return
        log.warning("folder_notifications_failed", extra={"root": self._watched.root, "error": str(error)})
        await asyncio.sleep(POLLING_SCAN_S)

    def _pause(self, next_scan: float) -> float:
        upcoming = min(self._due.values(), default=next_scan)
        return max(0.0, min(upcoming, next_scan, monotonic() + TICK_S) - monotonic())

    async def _approval_came(self) -> bool:
        if not self._log.withheld:
            return False
        return any((await self._persistently(self._log.waiting)).values())

    async def _persistently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it; while the log, the blobs or the database are away, wait and do it again from what is then there."""
        for attempt in itertools.count():
            try:
                return await act()
            except (Unavailable, TransientError) as error:
                if attempt == 0:
                    log.warning("watcher_waits", extra={"root": self._watched.root, "error": str(error)})
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
        raise AssertionError("unreachable: the count never ends")

    # Looking where the file system says that something happened

    def _note(self, paths: Iterable[str]) -> None:
        """Decide when to look at what: at once, or after a pause where an editor may be in the middle of saving."""
        now = monotonic()
        relatives = [relative for path in paths if (relative := self._folder.relative(path)) is not None]
        gone = {path for path in relatives if not os.path.lexists(os.path.join(self._folder.root, path))}
        renaming = any(self._is_known(path) for path in gone)
        for path in relatives:
            if path in gone:
                if self._is_known(path):
                    self._due[path] = now + SETTLE_S
                continue
            if not self._is_known(path) and os.path.isdir(os.path.join(self._folder.root, path)):
                self._new_directories.add(path)
            # The new half of a rename waits for the old one, so that both are in one plan.
            self._due[path] = now + SETTLE_S if renaming and not self._is_known(path) else now

    def _is_known(self, relative: str) -> bool:
        try:
            document_id = self._folder.document_id(relative)
        except ValueError:
            return False
        return self._log.is_known(document_id)

    async def _look_at_due(self) -> None:
        now = monotonic()
        paths = sorted(path for path, due in self._due.items() if due <= now)
        if not paths:
            return
        try:
            look = await asyncio.to_thread(self._look_at, paths)
        except RootGone:
            return  # The session notices by itself, and withholds.
        named = {document_id for path in paths if (document_id := self._id_or_none(path)) is not None}
        scope = {name for name in named if name in self._log.known}
        scope.update(*(self._log.below(name) for name in named))
        for path in paths:
            del self._due[path]
        try:
            await self._log.apply(look, scope, live=True, named=named, bulk=len(look.files) > MAX_INTERACTIVE_UPSERTS)
        except BaseException:
            self._due.update(dict.fromkeys(paths, now))
            raise
        await self._log.found_unreadable(look.unreadable, among=scope | named)
        await self._log.withhold(self._log.withheld - look.files.keys())
        for path in self._new_directories.intersection(paths):
            self._due[path] = now + NEW_DIRECTORY_S
        self._new_directories.difference_update(paths)

    def _id_or_none(self, relative: str) -> str | None:
        try:
            return self._folder.document_id(relative)
        except ValueError:
            return None

    def _look_at(self, paths: Iterable[str]) -> Look:
        look = Look()
        covered = ""
        for path in paths:  # Sorted: a directory comes before what is in it.
            if covered and path.startswith(covered):
                continue
            part = self._folder.look(path)
            look.files |= part.files
            look.unreadable |= part.unreadable
            look.unreadable_directories |= part.unreadable_directories
            if os.path.isdir(os.path.join(self._folder.root, path)):
                covered = f"{path}/"
        return look

    # Looking at everything

    async def _catch_up(self) -> None:
        withheld = await self._log.waiting()
        try:
            look = await asyncio.to_thread(self._folder.look)
        except RootGone as error:
            await self._log.publish_deletes(
                tuple(sorted(n for n, agreed in withheld.items() if agreed and n in self._log.known))
            )
            if self._log.withheld != self._log.known.keys():
                log.warning("watched_folder_gone", extra={"root": self._watched.root, "error": str(error)})
            await self._log.withhold(frozenset(self._log.known))
            self._log.report(caught_up=True)
            return
        new = sum(1 for name, entry in look.files.items() if not self._log.is_unchanged(name, entry))
        now_withheld = await self._log.apply(
            look,
            self._log.known.keys(),
            live=False,
            waiting=withheld.keys(),
            approved={name for name, approved in withheld.items() if approved},
            bulk=new > MAX_INTERACTIVE_UPSERTS,
        )
        self._log.withheld = frozenset(withheld)
        await self._log.withhold(now_withheld)
        await self._log.found_unreadable({**look.unreadable, **look.unreadable_directories})
        self._log.report(caught_up=True)

    def _look_again(self, entry: Entry) -> None:
        relative = self._folder.relative(entry.path)
        if relative:
            self._due[relative] = monotonic() + SETTLE_S
