"""The folder of an embedded index: one owner at a time, one shard per space."""

import fcntl
import os
from pathlib import Path
from urllib.parse import quote, unquote

from streams.errors import Unavailable


class FolderLock:
    """An ``flock`` on the folder, taken before any shard is loaded: even a failed ``load`` breaks the owner's flush.

    The kernel drops it when the process ends, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "owner.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Own the folder.

        Raises:
            Unavailable: another process owns it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise Unavailable("index", f"{self._path.parent} belongs to process {owner}", retry_after_s=1.0) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def shard_folder(folder: Path, space: str) -> Path:
    """Where the shard of a space lives."""
    return folder / "spaces" / quote(space, safe="").replace(".", "%2E")


def spaces_in(folder: Path) -> list[str]:
    """Spaces whose shard was created completely."""
    shards = folder / "spaces"
    if not shards.is_dir():
        return []
    return sorted(
        unquote(entry.name) for entry in shards.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
