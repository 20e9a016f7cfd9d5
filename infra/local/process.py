"""Child processes with their own group, a pid file that outlives us, and an end that is orderly or certain."""

import asyncio
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

# prctl(2) and capabilities(7).
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
# `nobody` is the one unprivileged user that every Linux has.
_NOBODY = 65534


class Child:
    """A process that we started. ``stop_signal`` asks it to end; its whole group is killed if it does not."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, pid_file: Path | None, stop_signal: int) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._pid_file = pid_file
        self._stop_signal = stop_signal

    @classmethod
    async def spawn(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log_file: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pid_file: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        unprivileged: bool = False,
        nice: int = 0,
    ) -> "Child":
        """Start ``command`` with output appended to ``log_file``.

        ``unprivileged``: as root, run as ``nobody`` that may still open root's files (PostgreSQL refuses to be root).
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *map(str, command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if env is None else dict(env),
                cwd=cwd,
                process_group=0,
                preexec_fn=_before_exec(stop_signal, unprivileged=unprivileged and os.geteuid() == 0, nice=nice),
            )
        if pid_file is not None:
            _write_pid_file(pid_file, process.pid)
        return cls(name, process, pid_file, stop_signal)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return await self._process.wait()

    async def stop(self, timeout_s: float) -> None:
        """Ask it to end, wait, then kill what is left of its group. Does nothing if it has ended."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, self._stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), timeout_s)
        kill_group(self.pid)
        await self._process.wait()
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)


def kill_group(group: int) -> None:
    """SIGKILL whoever is left in the process group of a child, which is named after the child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def stop_leftover(pid_file: Path, timeout_s: float = 5.0, stop_signal: signal.Signals = signal.SIGTERM) -> bool:
    """End a process that an earlier, killed launcher left behind. True if there was one.

    A pid alone proves nothing, since the kernel gives numbers out again: the start time must match too.
    """
    process = running(pid_file)
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(stop_signal)
            try:
                process.wait(timeout_s)
            except psutil.TimeoutExpired:
                kill_group(process.pid)
                process.kill()
                process.wait(timeout_s)
        kill_group(process.pid)
    pid_file.unlink(missing_ok=True)
    return process is not None


def running(pid_file: Path) -> psutil.Process | None:
    """The process of a pid file, if it is still the same one."""
    try:
        noted = json.loads(pid_file.read_text())
        process = psutil.Process(int(noted["pid"]))
        same = abs(process.create_time() - float(noted["created_at_s"])) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def _write_pid_file(path: Path, pid: int) -> None:
    try:
        created_at_s = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        created_at_s = time.time()
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"pid": pid, "created_at_s": created_at_s}))
    temporary.replace(path)


def _before_exec(parent_death_signal: int, *, unprivileged: bool, nice: int) -> Callable[[], None] | None:
    """What the child does between fork and exec. Everything is looked up here, before the fork."""
    if not sys.platform.startswith("linux"):
        return (lambda: os.nice(nice) and None) if nice else None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    bit = 1 << _CAP_DAC_OVERRIDE
    capabilities = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)

    def prepare() -> None:
        if nice:
            os.nice(nice)
        if unprivileged:
            # Without the capability every folder above the data directory and the virtual environment would have to be
            # opened to everybody.
            libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            libc.capset(header, capabilities)
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
        # After the change of user, which clears it. Nothing of ours outlives a launcher that was killed.
        libc.prctl(_PR_SET_PDEATHSIG, parent_death_signal, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
