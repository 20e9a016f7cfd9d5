"""Large contents in a folder, by their hash."""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection
from pathlib import Path

from streams.errors import NotFound, PermanentError, Unavailable

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# A temporary file of this age belongs to a process that died while writing.
_ABANDONED_AFTER_S = 3600.0


class FolderBlobStore:
    """``BlobStore`` in a folder: ``tenant/ab/cd/abcd…``. Durable when ``put`` returns; all work is done in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def put(self, tenant: str, data: bytes) -> str:
        """Store durably, or renew what is there; returns the hex SHA-256."""
        return await asyncio.to_thread(self._put, tenant, data)

    async def get(self, tenant: str, sha256: str) -> bytes:
        return await asyncio.to_thread(self._get, tenant, sha256)

    async def sweep(self, tenant: str, *, keep: Collection[str], older_than_s: float) -> int:
        """Drop blobs that are not in ``keep`` and were last put before that time; returns how many."""
        return await asyncio.to_thread(self._sweep, tenant, frozenset(keep), older_than_s)

    async def remove(self, tenant: str, sha256s: Collection[str], *, put_before: float) -> int:
        """Drop these blobs, unless they were put again at that time (of the epoch, in seconds) or later.

        Returns how many there were.
        """
        return await asyncio.to_thread(self._remove, tenant, sha256s, put_before)

    async def tenants(self) -> list[str]:
        """Those who have blobs."""
        return await asyncio.to_thread(self._tenants)

    async def close(self) -> None:
        """Nothing is held open."""

    def _put(self, tenant: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        target = self._place(tenant, sha256)
        try:
            # A blob that is there may be about to be swept: a new time makes it young again.
            if target.is_file() and target.read_bytes() == data:
                os.utime(target)
                return sha256
            _make_directory(target.parent, self._path)
            temporary = target.with_name(f".{sha256}.{secrets.token_hex(6)}")
            try:
                _write_through(temporary, data)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(target.parent)
        except OSError as error:
            raise Unavailable("blobs", f"cannot write to {self._path}: {error.strerror or error}") from error
        return sha256

    def _get(self, tenant: str, sha256: str) -> bytes:
        try:
            data = self._place(tenant, sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no blob {sha256} of tenant {tenant!r}") from error
        except OSError as error:
            raise Unavailable("blobs", f"cannot read from {self._path}: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PermanentError(
                "blob-corrupt", f"the stored bytes of {sha256} have another hash: put the content again"
            )
        return data

    def _sweep(self, tenant: str, keep: frozenset[str], older_than_s: float) -> int:
        now = time.time()
        swept = 0
        for path in self._tenant(tenant).glob("*/*/*"):
            age_s = now - path.stat().st_mtime
            if path.name.startswith("."):
                if age_s > _ABANDONED_AFTER_S:
                    path.unlink(missing_ok=True)
            elif path.name not in keep and age_s >= older_than_s:
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    def _remove(self, tenant: str, sha256s: Collection[str], put_before: float) -> int:
        removed = 0
        for sha256 in sha256s:
            path = self._place(tenant, sha256)
            if path.is_file() and path.stat().st_mtime < put_before:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _tenants(self) -> list[str]:
        if not self._path.is_dir():
            return []
        return sorted(path.name for path in self._path.iterdir() if _TENANT.fullmatch(path.name))

    def _place(self, tenant: str, sha256: str) -> Path:
        """Raises ``NotFound`` for what cannot be a hash: a name from outside never walks out of the folder."""
        if not _SHA256.fullmatch(sha256):
            raise NotFound(f"{sha256[:80]!r} is not a SHA-256")
        return self._tenant(tenant) / sha256[:2] / sha256[2:4] / sha256

    def _tenant(self, tenant: str) -> Path:
        if not _TENANT.fullmatch(tenant):
            raise NotFound(f"{tenant[:80]!r} is not a tenant's name")
        return self._path / tenant


def _make_directory(directory: Path, root: Path) -> None:
    """Create a directory and make its name durable in every parent up to the root."""
    if directory.is_dir():
        return
    directory.mkdir(parents=True, exist_ok=True)
    while directory != root:
        directory = directory.parent
        _sync_directory(directory)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
