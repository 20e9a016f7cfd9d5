"""The watcher: a folder's changes become document changes in the log, as they happen and after having been away.

Events of the file system are hints of where to look; what is published comes from looking. So a lost event costs a
minute (the safety scan), never a change.
"""

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TypeVar

from watchfiles import awatch

from infra.file_change import upsert_of
from infra.folder import Entry, Folder, Look, Reading, RootGone, batches, read_all
from infra.settings import Settings
from schemas.documents import Change, DocumentChanged, DocumentKey
from streams.errors import TransientError, Unavailable
from streams.ignore import IGNORE_FILES
from streams.ports import BlobStore, ChangeLog, WatchedFiles
from streams.watch import FileState, WatchedFolder, plan, under

log = logging.getLogger(__name__)

T = TypeVar("T")

# watchfiles sleeps this long between two looks at its queue, and hands over after one quiet look: 6 ms from a change to
# us, for 0.3 % of a core while idle (2 ms: 4 ms, 0.5 %; 8 ms: 10 ms, 0.2 %).
STEP_MS = 4
DEBOUNCE_MS = 50
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
BATCH_FILES = 200
BATCH_BYTES = 8 * 1024 * 1024
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class WatchReport:
    """What one look led to; for whoever shows it."""

    caught_up: bool
    """False while a catch-up is still going on."""
    upserts: tuple[str, ...] = ()
    moves: Mapping[str, str] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()
    withheld: int = 0
    unreadable: int = 0
    files: int = 0
    """Documents of the folder that the log knows."""


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
    watcher = _Watcher(folder, watched, settings.max_document_bytes, changes, known, blobs, on_report or _ignore)
    await watcher.run(once=once)


def _ignore(_: WatchReport) -> None:
    """Nobody is looking."""


class _Watcher:
    """One watched folder: what is known of it, what is to be looked at, and when."""

    def __init__(
        self,
        folder: Folder,
        watched: WatchedFolder,
        max_document_bytes: int,
        changes: ChangeLog,
        memory: WatchedFiles,
        blobs: BlobStore,
        on_report: Callable[[WatchReport], None],
    ) -> None:
        self._folder = folder
        self._watched = watched
        self._max_bytes = max_document_bytes
        self._changes = changes
        self._memory = memory
        self._blobs = blobs
        self._on_report = on_report
        self._known: dict[str, FileState] = {}
        self._sorted: list[str] | None = None
        self._unsaved: dict[str, FileState | None] = {}
        """Acknowledged by the log, not yet remembered; None: deleted."""
        self._withheld: frozenset[str] = frozenset()
        self._unreadable: dict[str, str] = {}
        self._due: dict[str, float] = {}
        """Relative paths to look at, and when."""
        self._new_directories: set[str] = set()
        self._deferred: set[str] = set()
        """Empty files that have had their moment to grow."""

    # Running

    async def run(self, *, once: bool) -> None:
        self._known = await self._persistently(lambda: self._memory.load(self._watched))
        if not self._known:
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
        async with _notifications(self._folder.root) as hints:
            self._due.clear()
            await self._persistently(self._catch_up)
            next_scan = monotonic() + SAFETY_SCAN_S
            while True:
                hint = await _next(hints, self._pause(next_scan))
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
        if not self._withheld:
            return False
        return any((await self._persistently(lambda: self._memory.waiting(self._watched))).values())

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
        return document_id in self._known or bool(under(self._sorted_ids(), document_id))

    def _sorted_ids(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self._known)
        return self._sorted

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
        scope = {name for name in named if name in self._known}
        scope.update(*(under(self._sorted_ids(), name) for name in named))
        for path in paths:
            del self._due[path]
        try:
            await self._apply(look, scope, live=True, named=named, bulk=len(look.files) > MAX_INTERACTIVE_UPSERTS)
        except BaseException:
            self._due.update(dict.fromkeys(paths, now))
            raise
        self._unreadable = {name: why for name, why in self._unreadable.items() if name not in scope | named}
        await self._report_unreadable({**self._unreadable, **look.unreadable})
        await self._set_withheld(self._withheld - look.files.keys())
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
        withheld = await self._memory.waiting(self._watched)
        try:
            look = await asyncio.to_thread(self._folder.look)
        except RootGone as error:
            await self._publish_deletes(
                tuple(sorted(n for n, agreed in withheld.items() if agreed and n in self._known))
            )
            if self._withheld != self._known.keys():
                log.warning("watched_folder_gone", extra={"root": self._watched.root, "error": str(error)})
            await self._set_withheld(frozenset(self._known))
            self._report(caught_up=True)
            return
        new = sum(1 for name, entry in look.files.items() if not self._is_unchanged(name, entry))
        now_withheld = await self._apply(
            look,
            self._known.keys(),
            live=False,
            waiting=withheld.keys(),
            approved={name for name, approved in withheld.items() if approved},
            bulk=new > MAX_INTERACTIVE_UPSERTS,
        )
        self._withheld = frozenset(withheld)
        await self._set_withheld(now_withheld)
        await self._report_unreadable({**look.unreadable, **look.unreadable_directories})
        self._report(caught_up=True)

    def _is_unchanged(self, document_id: str, entry: Entry) -> bool:
        state = self._known.get(document_id)
        return state is not None and (state.size_bytes, state.mtime_ns) == (entry.size_bytes, entry.mtime_ns)

    async def _set_withheld(self, withheld: frozenset[str]) -> None:
        if withheld == self._withheld:
            return
        await self._memory.withhold(self._watched, withheld)
        if withheld - self._withheld:
            log.warning("deletions_withheld", extra={"root": self._watched.root, "deletions": len(withheld)})
        self._withheld = withheld

    async def _report_unreadable(self, unreadable: dict[str, str]) -> None:
        if unreadable == self._unreadable:
            return
        await self._memory.report_unreadable(self._watched, unreadable)
        self._unreadable = unreadable

    # From a look to the log

    async def _apply(
        self,
        look: Look,
        scope: Set[str],
        *,
        live: bool,
        bulk: bool,
        named: Collection[str] = (),
        waiting: Collection[str] = (),
        approved: Collection[str] = (),
    ) -> frozenset[str]:
        """Bring the log level with what was seen of ``scope``. Returns the documents whose deletion is withheld.

        ``named`` files are read even when size and time look the same. ``waiting`` deletions stay withheld.
        """
        await self._save()
        known = {name: self._known[name] for name in scope}
        changed = {
            name: entry for name, entry in look.files.items() if name in named or not self._is_unchanged(name, entry)
        }
        missing = known.keys() - look.files.keys()
        withheld: frozenset[str] = frozenset()
        if missing:
            sizes = {known[name].size_bytes for name in missing}
            suspects = {n: e for n, e in changed.items() if n not in known and e.size_bytes in sizes}
            states = {name: reading.state for name, reading in (await self._read(suspects, live=live)).items()}
            steps = plan(
                known,
                {name: known[name] for name in look.files.keys() & known.keys()} | states,
                live=live,
                unknown=self._unseen(look, missing) | set(waiting),
                approved=approved,
                folder_size=len(self._known),
            )
            withheld = frozenset(steps.withheld)
            await self._publish_changed({n: look.files[n] for n in steps.upserts}, steps.moves, live=live, bulk=bulk)
            await self._publish_deletes(steps.deletes)
            changed = {name: entry for name, entry in changed.items() if name not in states}
        await self._publish_changed(changed, {}, live=live, bulk=bulk)
        return withheld

    def _unseen(self, look: Look, missing: Iterable[str]) -> set[str]:
        """Missing documents that may well be there: their file or a directory above it cannot be read."""
        hidden = {name for directory in look.unreadable_directories for name in under(self._sorted_ids(), directory)}
        return {name for name in missing if name in hidden or name in look.unreadable}

    async def _read(self, entries: Mapping[str, Entry], *, live: bool) -> dict[str, Reading]:
        """Contents of files that are worth publishing now; the others are looked at again or listed as unreadable."""
        readings, unreadable, unsettled, vanished = await asyncio.to_thread(
            read_all, entries, max_bytes=self._max_bytes
        )
        for name in unsettled | vanished:
            self._look_again(entries[name])
        if live:
            for name, reading in list(readings.items()):
                if self._may_still_grow(name, reading):
                    self._look_again(entries[name])
                    del readings[name]
        if unreadable:
            await self._report_unreadable({**self._unreadable, **unreadable})
        return readings

    def _may_still_grow(self, document_id: str, reading: Reading) -> bool:
        known = self._known.get(document_id)
        if reading.state.size_bytes or (known is not None and known.size_bytes == 0) or document_id in self._deferred:
            self._deferred.discard(document_id)
            return False
        self._deferred.add(document_id)
        return True

    def _look_again(self, entry: Entry) -> None:
        relative = self._folder.relative(entry.path)
        if relative:
            self._due[relative] = monotonic() + SETTLE_S

    async def _publish_changed(
        self, entries: Mapping[str, Entry], moves: Mapping[str, str], *, live: bool, bulk: bool
    ) -> None:
        for batch in batches(entries, max_files=BATCH_FILES, max_bytes=BATCH_BYTES):
            readings = await self._read(batch, live=live)
            known = {name: self._known[name] for name in readings if name in self._known}
            steps = plan(known, {name: reading.state for name, reading in readings.items()}, live=live)
            events = [
                (
                    self._key(name),
                    await upsert_of(
                        batch[name],
                        readings[name],
                        tenant=self._watched.tenant,
                        blobs=self._blobs,
                        source="watcher",
                        moved_from=moves.get(name),
                    ),
                )
                for name in steps.upserts
            ]
            if events:
                await self._changes.publish_many(events, bulk=bulk)
            await self._remember({name: readings[name].state for name in (*steps.upserts, *steps.touched)})
            if steps.upserts:
                self._report(upserts=steps.upserts, moves={n: moves[n] for n in steps.upserts if n in moves})

    async def _publish_deletes(self, document_ids: tuple[str, ...]) -> None:
        for start in range(0, len(document_ids), BATCH_FILES):
            part = document_ids[start : start + BATCH_FILES]
            deletion = DocumentChanged(change=Change.DELETE, source="watcher", occurred_at=datetime.now(UTC))
            await self._changes.publish_many([(self._key(name), deletion) for name in part])
            await self._remember(dict.fromkeys(part))
            self._report(deletes=part)

    def _key(self, document_id: str) -> DocumentKey:
        return DocumentKey(self._watched.tenant, self._watched.collection, document_id)

    async def _remember(self, states: Mapping[str, FileState | None]) -> None:
        """The log has acknowledged these: known from now on, whatever becomes of the database."""
        for name, state in states.items():
            if state is None:
                self._known.pop(name, None)
            else:
                self._known[name] = state
        self._sorted = None
        self._unsaved.update(states)
        await self._save()

    async def _save(self) -> None:
        if not self._unsaved:
            return
        unsaved = dict(self._unsaved)
        published = {name: state for name, state in unsaved.items() if state is not None}
        await self._memory.remember(self._watched, published, forget=unsaved.keys() - published.keys())
        self._unsaved.clear()

    def _report(
        self,
        *,
        caught_up: bool = False,
        upserts: tuple[str, ...] = (),
        moves: Mapping[str, str] | None = None,
        deletes: tuple[str, ...] = (),
    ) -> None:
        if upserts or deletes:
            log.info(
                "folder_changes_published",
                extra={"root": self._watched.root, "upserts": len(upserts), "deletes": len(deletes)},
            )
        self._on_report(
            WatchReport(
                caught_up=caught_up,
                upserts=upserts,
                moves=moves or {},
                deletes=deletes,
                withheld=len(self._withheld),
                unreadable=len(self._unreadable),
                files=len(self._known),
            )
        )


@contextlib.asynccontextmanager
async def _notifications(root: str) -> AsyncIterator["asyncio.Queue[set[str] | BaseException]"]:
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


async def _next(hints: "asyncio.Queue[set[str] | BaseException]", timeout_s: float) -> set[str] | BaseException:
    """The next hint, with all that have piled up behind it; nothing after ``timeout_s``."""
    try:
        hint = hints.get_nowait() if not hints.empty() else await asyncio.wait_for(hints.get(), timeout_s)
    except TimeoutError:
        return set()
    while not isinstance(hint, BaseException) and not hints.empty():
        following = hints.get_nowait()
        hint = following if isinstance(following, BaseException) else hint | following
    return hint
