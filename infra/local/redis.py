"""A real Redis as a child process, on loopback, with a password."""

import asyncio
import signal
from pathlib import Path

from infra.local.ports import deadline, free_ports
from infra.local.process import Child, stop_leftover
from infra.local.progress import Progress
from infra.local.secrets import secret
from infra.local.tools import fetched, redis_server
from streams.errors import Unavailable

# On a machine that is busy with something else as well.
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 3.0

# `noeviction`: an evicted stream is a lost answer. The password is in this file and not among the arguments, which
# everybody on the machine can read.
_CONFIGURATION = """
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
appendonly yes
appendfsync everysec
save 900 1 300 10 60 10000
maxmemory-policy noeviction
daemonize no
databases 16
"""


class LocalRedis:
    """A server at an address that is fixed from the beginning."""

    name = "redis"

    def __init__(self, directory: Path, tools_dir: Path, *, log_dir: Path, progress: Progress) -> None:
        self._directory = directory
        self._tools_dir = tools_dir
        self._log_file = log_dir / "redis.log"
        self._progress = progress
        [self._port] = free_ports(1)
        self._password = secret(directory / "password")
        self.child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    async def start(self) -> None:
        """Start, and return when it serves.

        Raises:
            MissingPart: no server here, and no way to get one.
            Unavailable: it ended or did not serve in time.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        pid_file = self._directory / "process.json"
        await asyncio.to_thread(stop_leftover, pid_file)
        binary = await fetched(redis_server, self._tools_dir, self._progress)
        configuration = self._directory / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            _CONFIGURATION.format(port=self._port, password=self._password, directory=f'"{self._directory.resolve()}"')
        )
        self.child = await Child.spawn(
            self.name, [binary, configuration], log_file=self._log_file, pid_file=pid_file, stop_signal=signal.SIGTERM
        )
        await self._wait_until_serving()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(_STOP_TIMEOUT_S)

    async def _wait_until_serving(self) -> None:
        assert self.child is not None
        end = deadline(_START_TIMEOUT_S)
        while not await self._pings():
            if self.child.exit_code is not None:
                raise Unavailable("Redis", f"it ended with {self.child.exit_code}, see {self._log_file}")
            if deadline(0) > end:
                await self.stop()
                raise Unavailable("Redis", f"not up after {_START_TIMEOUT_S:.0f} s, see {self._log_file}")
            await asyncio.sleep(0.02)

    async def _pings(self) -> bool:
        """Whether it has loaded its data and answers; the three lines of protocol need no client library."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            answers = [await asyncio.wait_for(reader.readline(), 1.0) for _ in range(2)]
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
        return answers == [b"+OK\r\n", b"+PONG\r\n"]
