"""Looking at a folder: which documents are in it, and their content. Blocking; call it in a thread."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from schemas.documents import DocumentKey
from streams.ignore import IGNORE_FILES, IgnoreRules
from streams.watch import FileState

# A file changed this shortly before we read it may change again within the same tick of the file system's clock, which
# no comparison of times would show. Its time is remembered as 0, so that the next look compares contents ("racy git").
_CLOCK_TICK_NS = 20_000_000
_READ_BYTES = 1024 * 1024
_MAX_IGNORE_FILE_BYTES = 1024 * 1024


class RootGone(Exception):
    """The folder itself is not there, is no directory, or may not be read."""


class Unsettled(Exception):
    """The file changed while it was read; look again in a moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a directory listing shows it."""

    path: str
    """Absolute; bytes that are not UTF-8 as surrogate escapes."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A file's state, with its content unless it is larger than the limit."""

    state: FileState
    data: bytes | None


@dataclass(slots=True)
class Look:
    """What a part of the folder holds. Keys are document ids."""

    files: dict[str, Entry] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Files that cannot be documents or be read, and why."""
    unreadable_directories: dict[str, str] = field(default_factory=dict)


class Folder:
    """A folder whose files are documents named by their path, with ``/``.

    Symbolic links to directories are not followed; links to files only if they stay inside the folder. Sockets, FIFOs
    and devices are passed over.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.name = self._shown(self.root)
        """The root as valid Unicode, for messages and as a key."""

    def identity(self) -> tuple[int, int]:
        """Device and inode: another one means that another folder is mounted or was put here.

        Raises:
            RootGone: there is no readable directory.
        """
        try:
            status = os.stat(self.root)
            with os.scandir(self.root):
                pass
        except OSError as error:
            raise RootGone(f"{self.root}: {error.strerror}") from error
        return status.st_dev, status.st_ino

    def document_id(self, relative: str) -> str:
        """The id of a path relative to the root. Raises ``ValueError``: it cannot be one, for example too long."""
        if relative.isascii() and len(relative) < 1024 and relative:
            return relative
        return DocumentKey.of("default", "default", os.fsencode(relative)).document_id

    def relative(self, path: str) -> str | None:
        """A path relative to the root (``""``: the root itself), or None when it is not inside or behind a link."""
        if path == self.root:
            return ""
        prefix = self.root.rstrip("/") + "/"
        if not path.startswith(prefix) or os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
            return None
        return path[len(prefix) :]

    def look(self, relative: str = "") -> Look:
        """List a directory with everything in it, or a single file. What does not exist is an empty look.

        Raises:
            RootGone: the root cannot be read. A directory below it that cannot is listed in the look.
        """
        self.identity()
        look = Look()
        rules = self._rules_above(relative)
        if rules is None:
            return look
        path = os.path.join(self.root, relative) if relative else self.root
        if os.path.isdir(path) and not (relative and os.path.islink(path)):
            self._list(path, relative, rules, look)
        elif relative:
            self._add(path, relative, look)
        return look

    def _rules_above(self, relative: str) -> IgnoreRules | None:
        """The rules that hold for a path, or None when it or a directory above it is ignored."""
        rules = IgnoreRules()
        parts = relative.split("/") if relative else []
        for depth in range(len(parts)):
            directory = "/".join(parts[:depth])
            rules = rules.inside(directory, _patterns(os.path.join(self.root, directory)))
            here = "/".join(parts[: depth + 1])
            # A last part that is gone could have been either: a rule for directories must not hide a deleted file.
            if rules.ignore(here, is_directory=depth + 1 < len(parts) or os.path.isdir(os.path.join(self.root, here))):
                return None
        return rules

    def _list(self, path: str, relative: str, rules: IgnoreRules, look: Look) -> None:
        pending = [(path, relative, rules)]
        while pending:
            path, relative, rules = pending.pop()
            try:
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                if not isinstance(error, FileNotFoundError | NotADirectoryError):
                    look.unreadable_directories[self._shown(relative)] = _reason(error)
                continue
            if any(entry.name in IGNORE_FILES for entry in entries):
                rules = rules.inside(relative, _patterns(path))
            for entry in entries:
                child = f"{relative}/{entry.name}" if relative else entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if rules.ignore(child, is_directory=is_directory):
                    continue
                if is_directory:
                    pending.append((entry.path, child, rules))
                else:
                    self._add(entry.path, child, look)

    def _add(self, path: str, relative: str, look: Look) -> None:
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                target = os.path.realpath(path)
                if not target.startswith(self.root.rstrip("/") + "/"):
                    return
                status = os.stat(target)
        except FileNotFoundError:
            return
        except OSError as error:
            look.unreadable[self._shown(relative)] = _reason(error)
            return
        if not stat.S_ISREG(status.st_mode):
            return
        try:
            document_id = self.document_id(relative)
        except ValueError as error:
            look.unreadable[self._shown(relative)[:1000]] = f"not-a-document-id: {error}"
            return
        if document_id in look.files:
            look.unreadable[f"{document_id} ({relative!r})"] = (
                "same-document-id: another file's name differs only in form"
            )
            return
        look.files[document_id] = Entry(path, status.st_size, status.st_mtime_ns)

    def _shown(self, relative: str) -> str:
        return os.fsencode(relative).decode(errors="backslashreplace")


def read(entry: Entry, *, max_bytes: int) -> Reading:
    """Read a file and its state. A file above ``max_bytes`` is hashed in pieces and its content left behind.

    Raises:
        Unsettled: it changed meanwhile.
        OSError: it is gone or cannot be read.
    """
    # Without O_NONBLOCK a FIFO that took the file's place would hold us for ever.
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise FileNotFoundError(entry.path)
        digest = hashlib.sha256()
        pieces: list[bytes] = []
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
            if before.st_size <= max_bytes:
                pieces.append(piece)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unsettled(entry.path)
    racy = abs(time.time_ns() - after.st_mtime_ns) < _CLOCK_TICK_NS
    state = FileState(after.st_size, 0 if racy else after.st_mtime_ns, digest.digest())
    return Reading(state, b"".join(pieces) if after.st_size <= max_bytes else None)


def read_all(
    entries: Mapping[str, Entry], *, max_bytes: int
) -> tuple[dict[str, Reading], dict[str, str], frozenset[str], frozenset[str]]:
    """Read several files: readings, reasons of those that cannot be read, the unsettled and the vanished ones."""
    readings: dict[str, Reading] = {}
    unreadable: dict[str, str] = {}
    unsettled: set[str] = set()
    vanished: set[str] = set()
    for document_id, entry in entries.items():
        try:
            readings[document_id] = read(entry, max_bytes=max_bytes)
        except Unsettled:
            unsettled.add(document_id)
        except FileNotFoundError:
            vanished.add(document_id)
        except OSError as error:
            unreadable[document_id] = _reason(error)
    return readings, unreadable, frozenset(unsettled), frozenset(vanished)


def batches(entries: Mapping[str, Entry], *, max_files: int, max_bytes: int) -> Iterator[dict[str, Entry]]:
    """Cut entries into batches of bounded number and size; a single larger file is a batch of its own."""
    batch: dict[str, Entry] = {}
    size = 0
    for document_id, entry in entries.items():
        if batch and (len(batch) >= max_files or size + entry.size_bytes > max_bytes):
            yield batch
            batch, size = {}, 0
        batch[document_id] = entry
        size += entry.size_bytes
    if batch:
        yield batch


def _patterns(directory: str) -> Iterable[str]:
    lines: list[str] = []
    for name in IGNORE_FILES:
        try:
            with open(os.path.join(directory, name), "rb") as file:
                lines += file.read(_MAX_IGNORE_FILE_BYTES).decode("utf-8", "surrogateescape").splitlines()
        except OSError:
            continue  # None there, which is the usual case; or not to be read, and then it holds no rules.
    return lines


def _reason(error: OSError) -> str:
    return f"unreadable-file: {error.strerror or error}"
