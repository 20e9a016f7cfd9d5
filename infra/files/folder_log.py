"""What the log knows of a folder, and the road of a look into it.

A file is remembered as published only when the log has acknowledged it; what waits for a person and what cannot be read
is kept beside it.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime

from infra.files.file_change import upsert_of
from infra.files.folder import Entry, Look, Reading, batches, read_all
from schemas.documents import Change, DocumentChanged, DocumentKey
from streams.ports import BlobStore, ChangeLog, WatchedFiles
from streams.watch import FileState, WatchedFolder, plan, under

log = logging.getLogger(__name__)

BATCH_FILES = 200
BATCH_BYTES = 8 * 1024 * 1024


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


@dataclass(frozen=True, slots=True)
class FolderLogParts:
    """What it needs from the outside world."""

    changes: ChangeLog
    memory: WatchedFiles
    blobs: BlobStore
    max_document_bytes: int
    on_report: Callable[[WatchReport], None]


class FolderLog:
    """One folder as the log has it."""

    def __init__(self, watched: WatchedFolder, parts: FolderLogParts, *, look_again: Callable[[Entry], None]) -> None:
        """``look_again`` is called with files that changed while they were read."""
        self._watched = watched
        self._parts = parts
        self._look_again = look_again
        self.known: dict[str, FileState] = {}
        """What has been published, by document id."""
        self.withheld: frozenset[str] = frozenset()
        """Deletions that wait for a person."""
        self._sorted: list[str] | None = None
        self._unsaved: dict[str, FileState | None] = {}
        """Acknowledged by the log, not yet remembered; None: deleted."""
        self._unreadable: dict[str, str] = {}
        self._deferred: set[str] = set()
        """Empty files that have had their moment to grow."""

    async def load(self) -> None:
        """Remember what was published before this process began."""
        self.known = await self._parts.memory.load(self._watched)

    async def waiting(self) -> dict[str, bool]:
        """The withheld deletions, and whether a person has approved each since."""
        return await self._parts.memory.waiting(self._watched)

    def is_known(self, document_id: str) -> bool:
        """Whether the log has this document, or one in a directory of this name."""
        return document_id in self.known or bool(self.below(document_id))

    def below(self, directory: str) -> Collection[str]:
        """Documents of the log in a directory."""
        if self._sorted is None:
            self._sorted = sorted(self.known)
        return under(self._sorted, directory)

    def is_unchanged(self, document_id: str, entry: Entry) -> bool:
        """Whether the file has the size and the time that it was published with."""
        state = self.known.get(document_id)
        return state is not None and (state.size_bytes, state.mtime_ns) == (entry.size_bytes, entry.mtime_ns)

    async def apply(
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
        known = {name: self.known[name] for name in scope}
        changed = {
            name: entry for name, entry in look.files.items() if name in named or not self.is_unchanged(name, entry)
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
                folder_size=len(self.known),
            )
            withheld = frozenset(steps.withheld)
            await self._publish_changed({n: look.files[n] for n in steps.upserts}, steps.moves, live=live, bulk=bulk)
            await self.publish_deletes(steps.deletes)
            changed = {name: entry for name, entry in changed.items() if name not in states}
        await self._publish_changed(changed, {}, live=live, bulk=bulk)
        return withheld

    async def publish_deletes(self, document_ids: tuple[str, ...]) -> None:
        """Delete these documents in the log."""
        for start in range(0, len(document_ids), BATCH_FILES):
            part = document_ids[start : start + BATCH_FILES]
            deletion = DocumentChanged(change=Change.DELETE, source="watcher", occurred_at=datetime.now(UTC))
            await self._parts.changes.publish_many([(self._key(name), deletion) for name in part])
            await self._remember(dict.fromkeys(part))
            self.report(deletes=part)

    async def withhold(self, withheld: frozenset[str]) -> None:
        """Exactly these deletions wait for a person now."""
        if withheld == self.withheld:
            return
        await self._parts.memory.withhold(self._watched, withheld)
        if withheld - self.withheld:
            log.warning("deletions_withheld", extra={"root": self._watched.root, "deletions": len(withheld)})
        self.withheld = withheld

    async def found_unreadable(self, unreadable: Mapping[str, str], *, among: Set[str] | None = None) -> None:
        """These could not be read, and why; ``among`` are the names that were looked at, None: all of the folder."""
        others = {} if among is None else {n: why for n, why in self._unreadable.items() if n not in among}
        await self._tell_unreadable({**others, **unreadable})

    def report(
        self,
        *,
        caught_up: bool = False,
        upserts: tuple[str, ...] = (),
        moves: Mapping[str, str] | None = None,
        deletes: tuple[str, ...] = (),
    ) -> None:
        """Say what a look led to."""
        if upserts or deletes:
            log.info(
                "folder_changes_published",
                extra={"root": self._watched.root, "upserts": len(upserts), "deletes": len(deletes)},
            )
        self._parts.on_report(
            WatchReport(
                caught_up=caught_up,
                upserts=upserts,
                moves=moves or {},
                deletes=deletes,
                withheld=len(self.withheld),
                unreadable=len(self._unreadable),
                files=len(self.known),
            )
        )

    async def _read(self, entries: Mapping[str, Entry], *, live: bool) -> dict[str, Reading]:
        """Contents of files that are worth publishing now; the others are looked at again or listed as unreadable."""
        readings, unreadable, unsettled, vanished = await asyncio.to_thread(
            read_all, entries, max_bytes=self._parts.max_document_bytes
        )
        for name in unsettled | vanished:
            self._look_again(entries[name])
        if live:
            for name, reading in list(readings.items()):
                if self._may_still_grow(name, reading):
                    self._look_again(entries[name])
                    del readings[name]
        if unreadable:
            await self._tell_unreadable({**self._unreadable, **unreadable})
        return readings

    def _may_still_grow(self, document_id: str, reading: Reading) -> bool:
        known = self.known.get(document_id)
        if reading.state.size_bytes or (known is not None and known.size_bytes == 0) or document_id in self._deferred:
            self._deferred.discard(document_id)
            return False
        self._deferred.add(document_id)
        return True

    async def _publish_changed(
        self, entries: Mapping[str, Entry], moves: Mapping[str, str], *, live: bool, bulk: bool
    ) -> None:
        for batch in batches(entries, max_files=BATCH_FILES, max_bytes=BATCH_BYTES):
            readings = await self._read(batch, live=live)
            known = {name: self.known[name] for name in readings if name in self.known}
            steps = plan(known, {name: reading.state for name, reading in readings.items()}, live=live)
            events = [
                (
                    self._key(name),
                    await upsert_of(
                        batch[name],
                        readings[name],
                        tenant=self._watched.tenant,
                        blobs=self._parts.blobs,
                        source="watcher",
                        moved_from=moves.get(name),
                    ),
                )
                for name in steps.upserts
            ]
            if events:
                await self._parts.changes.publish_many(events, bulk=bulk)
            await self._remember({name: readings[name].state for name in (*steps.upserts, *steps.touched)})
            if steps.upserts:
                self.report(upserts=steps.upserts, moves={n: moves[n] for n in steps.upserts if n in moves})

    async def _remember(self, states: Mapping[str, FileState | None]) -> None:
        """The log has acknowledged these: known from now on, whatever becomes of the database."""
        for name, state in states.items():
            if state is None:
                self.known.pop(name, None)
            else:
                self.known[name] = state
        self._sorted = None
        self._unsaved.update(states)
        await self._save()

    async def _save(self) -> None:
        if not self._unsaved:
            return
        unsaved = dict(self._unsaved)
        published = {name: state for name, state in unsaved.items() if state is not None}
        await self._parts.memory.remember(self._watched, published, forget=unsaved.keys() - published.keys())
        self._unsaved.clear()

    def _unseen(self, look: Look, missing: Iterable[str]) -> set[str]:
        """Missing documents that may well be there: their file or a directory above it cannot be read."""
        hidden = {name for directory in look.unreadable_directories for name in self.below(directory)}
        return {name for name in missing if name in hidden or name in look.unreadable}

    async def _tell_unreadable(self, unreadable: dict[str, str]) -> None:
        if unreadable == self._unreadable:
            return
        await self._parts.memory.report_unreadable(self._watched, unreadable)
        self._unreadable = unreadable

    def _key(self, document_id: str) -> DocumentKey:
        return DocumentKey(self._watched.tenant, self._watched.collection, document_id)
