"""The watcher's memory: what it has published of which folder, and deletions that wait for approval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.postgres.pool import Connection, Pool
from streams.watch import FileState, WatchedFolder

_REMEMBER = """
insert into watched_files (tenant, collection, root, document_id, size_bytes, mtime_ns, sha256)
select $1, $2, $3, * from unnest($4::text[], $5::bigint[], $6::bigint[], $7::bytea[])
on conflict (tenant, collection, root, document_id) do update set
    size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256
"""
_OF_FOLDER = "tenant = $1 and collection = $2 and root = $3"


@dataclass(frozen=True, slots=True)
class WithheldDeletion:
    """A document whose file seems to be gone, with too many others to believe it."""

    folder: WatchedFolder
    document_id: str
    noticed_at: datetime
    approved_at: datetime | None


class PostgresWatchedFiles:
    """``WatchedFiles``, and the other side of it: the person who looks and approves."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, folder: WatchedFolder) -> dict[str, FileState]:
        rows = await self._pool.fetch(
            f"select document_id, size_bytes, mtime_ns, sha256 from watched_files where {_OF_FOLDER}",  # noqa: S608
            *folder,
        )
        return {row["document_id"]: FileState(row["size_bytes"], row["mtime_ns"], row["sha256"]) for row in rows}

    async def remember(
        self, folder: WatchedFolder, published: Mapping[str, FileState], *, forget: Iterable[str] = ()
    ) -> None:
        names = sorted(published)
        states = [published[name] for name in names]
        async with self._pool.transaction() as connection:
            if names:
                await connection.execute(
                    _REMEMBER,
                    *folder,
                    names,
                    [state.size_bytes for state in states],
                    [state.mtime_ns for state in states],
                    [state.sha256 for state in states],
                )
            await _delete(connection, "watched_files", folder, list(forget))

    async def withhold(self, folder: WatchedFolder, document_ids: Iterable[str]) -> None:
        names = sorted(set(document_ids))
        async with self._pool.transaction() as connection:
            await connection.execute(
                f"delete from withheld_deletions where {_OF_FOLDER} and document_id <> all($4::text[])",  # noqa: S608
                *folder,
                names,
            )
            await connection.execute(
                "insert into withheld_deletions (tenant, collection, root, document_id)"
                " select $1, $2, $3, * from unnest($4::text[]) on conflict do nothing",
                *folder,
                names,
            )

    async def waiting(self, folder: WatchedFolder) -> dict[str, bool]:
        rows = await self._pool.fetch(
            f"select document_id, approved_at from withheld_deletions where {_OF_FOLDER}",  # noqa: S608
            *folder,
        )
        return {row["document_id"]: row["approved_at"] is not None for row in rows}

    async def report_unreadable(self, folder: WatchedFolder, reasons: Mapping[str, str]) -> None:
        async with self._pool.transaction() as connection:
            await connection.execute(f"delete from unreadable_files where {_OF_FOLDER}", *folder)  # noqa: S608
            await connection.execute(
                "insert into unreadable_files (tenant, collection, root, document_id, reason)"
                " select $1, $2, $3, * from unnest($4::text[], $5::text[])",
                *folder,
                list(reasons),
                list(reasons.values()),
            )

    async def unreadable(self, tenant: str, collection: str | None = None) -> dict[str, str]:
        """Files that cannot be read now, ``root/document id`` to the reason."""
        rows = await self._pool.fetch(
            "select root || '/' || document_id as name, reason from unreadable_files"
            " where tenant = $1 and ($2::text is null or collection = $2) order by 1",
            tenant,
            collection,
        )
        return {row["name"]: row["reason"] for row in rows}

    async def withheld(self, tenant: str, collection: str | None = None) -> list[WithheldDeletion]:
        """Deletions that wait for approval, or for the watcher to act on it."""
        rows = await self._pool.fetch(
            "select * from withheld_deletions where tenant = $1 and ($2::text is null or collection = $2)"
            " order by collection, root, document_id",
            tenant,
            collection,
        )
        return [
            WithheldDeletion(
                WatchedFolder(row["tenant"], row["collection"], row["root"]),
                row["document_id"],
                row["noticed_at"],
                row["approved_at"],
            )
            for row in rows
        ]

    async def approve(self, tenant: str, collection: str, document_ids: Sequence[str] | None = None) -> int:
        """Let the watcher delete these documents (None: all that wait); returns how many were approved now."""
        return await self._pool.execute(
            "update withheld_deletions set approved_at = clock_timestamp()"
            " where tenant = $1 and collection = $2 and approved_at is null"
            " and ($3::text[] is null or document_id = any($3))",
            tenant,
            collection,
            document_ids,
        )


async def _delete(connection: Connection, table: str, folder: WatchedFolder, names: list[str]) -> None:
    if names:
        await connection.execute(
            f"delete from {table} where {_OF_FOLDER} and document_id = any($4::text[])",  # noqa: S608
            *folder,
            names,
        )
