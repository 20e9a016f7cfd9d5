"""Bring a database to the schema that this code needs."""

import hashlib
import logging
import re
from importlib.resources import files
from typing import NamedTuple

import asyncpg

from infra.postgres.pool import translated
from streams.errors import LeatError

log = logging.getLogger(__name__)

# Any number that nobody else uses: whoever holds this lock migrates, the others wait and then find nothing to do.
_LOCK = 0x6C656174
_FILE_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_REQUIRES = re.compile(r"-- requires extension: (\w+)")


class MigrationRefused(LeatError):
    """The database and the migration files do not belong together; a person must look."""


class Migration(NamedTuple):
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def extension(self) -> str | None:
        """Applied only where the server has this extension; looked at again at every start."""
        required = _REQUIRES.match(self.sql)
        return required and required.group(1)


def migrations() -> list[Migration]:
    """The SQL files that come with this code, in order."""
    names = sorted(file.name for file in files("infra.sql").iterdir() if _FILE_NAME.fullmatch(file.name))
    return [Migration(name, files("infra.sql").joinpath(name).read_text(encoding="utf-8")) for name in names]


async def migrate(dsn: str, wanted: list[Migration] | None = None) -> list[str]:
    """Apply what is missing, each file in a transaction of its own; returns the names applied now.

    Safe to call from many processes at once: one works, the others wait for it.

    Raises:
        MigrationRefused: a file was edited after it had been applied, or the database is newer than this code.
        Unavailable: the server does not answer.
    """
    with translated():
        connection = await asyncpg.connect(dsn, timeout=10.0)
        try:
            await connection.execute("select pg_advisory_lock($1)", _LOCK)
            return await _apply(connection, migrations() if wanted is None else wanted)
        finally:
            await connection.close()


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", wanted: list[Migration]) -> list[str]:
    await connection.execute(
        "create table if not exists schema_migrations"
        " (name text primary key, checksum text not null, applied_at timestamptz not null default now())"
    )
    applied = {row["name"]: row["checksum"] for row in await connection.fetch("select * from schema_migrations")}
    _check(applied, wanted)
    extensions = {row["name"] for row in await connection.fetch("select name from pg_available_extensions")}
    done = []
    for migration in wanted:
        if migration.name in applied or (migration.extension and migration.extension not in extensions):
            continue
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "insert into schema_migrations (name, checksum) values ($1, $2)", migration.name, migration.checksum
            )
        log.info("migration_applied", extra={"migration": migration.name})
        done.append(migration.name)
    return done


def _check(applied: dict[str, str], wanted: list[Migration]) -> None:
    known = {migration.name: migration.checksum for migration in wanted}
    for name, checksum in applied.items():
        if name not in known:
            raise MigrationRefused(
                f"the database has migration '{name}', which this version of Leat does not know: update"
            )
        if known[name] != checksum:
            raise MigrationRefused(
                f"migration '{name}' was changed after it had been applied to this database:"
                " restore the file, and put the change into a new one"
            )
