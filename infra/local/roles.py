"""Our own processes, as children of the launcher."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.local.alive import alive_file, is_stale
from infra.local.process import Child, stop_leftover

# The processes of one machine, in the order of their start: name to the roles that it runs.
PROCESSES: dict[str, tuple[str, ...]] = {
    "index": ("index",),
    "pipeline": ("chunker", "embedder", "indexer", "recorder", "jobs"),
    "answerer": ("answerer",),
    "api": ("api",),
}

# Who is asked goes first: a load that takes all there is must not make questions late. The log, the stores and the
# roles that answer keep their priority.
_NICE = 5
_ANSWERING = frozenset({"index", "answerer", "api"})

_STOP_TIMEOUT_S = {"index": 3.0}
_DEFAULT_STOP_TIMEOUT_S = 6.0
_MAX_LOG_BYTES = 20 * 1024 * 1024


class RoleProcess:
    """``leat run ROLE…`` as a unit of supervision."""

    def __init__(
        self, name: str, roles: Sequence[str], *, arguments: Sequence[str], env: Mapping[str, str], data_dir: Path
    ) -> None:
        self.name = name
        self.child: Child | None = None
        self._command = [sys.executable, "-m", "cli.main", "run", *roles, *arguments]
        self._env = env
        self._log_file = data_dir / "logs" / f"{name}.log"
        self._pid_file = data_dir / "processes" / f"{name}.json"
        self._alive_file = alive_file(data_dir, name)
        self._nice = 0 if _ANSWERING & set(roles) else _NICE
        self._stop_timeout_s = _STOP_TIMEOUT_S.get(name, _DEFAULT_STOP_TIMEOUT_S)

    async def start(self) -> None:
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(stop_leftover, self._pid_file)
        _rotate(self._log_file)
        self._alive_file.unlink(missing_ok=True)
        self.child = await Child.spawn(
            self.name,
            self._command,
            log_file=self._log_file,
            env=self._env,
            pid_file=self._pid_file,
            stop_signal=signal.SIGTERM,
            nice=self._nice,
        )

    def hangs(self) -> bool:
        """Whether it runs, but has not said for too long that it is alive."""
        return is_stale(self._alive_file)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(self._stop_timeout_s)


def role_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Our environment with ``given`` settings, and fewer of the allocator's arenas: each costs tens of MB."""
    return {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1", **given}


def plan(replicas: Mapping[str, int]) -> list[tuple[str, tuple[str, ...]]]:
    """Names and roles of the processes to start. A replicated consumer leaves the pipeline for processes of its own.

    Raises:
        ValueError: a role that does not exist, or that cannot be replicated.
    """
    known = {role for roles in PROCESSES.values() for role in roles}
    for role, count in replicas.items():
        if role not in known | {"pipeline"}:
            raise ValueError(f"unknown role '{role}'; there are {', '.join(sorted(known))}")
        if role == "index" and count != 1:
            raise ValueError("the index process owns its folder, so there is one; for more give LEAT_QDRANT_URL")
        if count < 1:
            raise ValueError(f"want at least one {role}")
    planned: list[tuple[str, tuple[str, ...]]] = []
    for name, roles in PROCESSES.items():
        together = tuple(role for role in roles if role not in replicas or role == name)
        if together:
            planned += _numbered(name, together, replicas.get(name, 1))
        for role in roles:
            if role != name and role in replicas:
                planned += _numbered(role, (role,), replicas[role])
    return planned


def _numbered(name: str, roles: tuple[str, ...], count: int) -> list[tuple[str, tuple[str, ...]]]:
    return [(name if number == 1 else f"{name}-{number}", roles) for number in range(1, count + 1)]


def _rotate(path: Path) -> None:
    """Keep one older log; a process that restarts for ever must not fill the disk."""
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
