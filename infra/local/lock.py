"""One launcher per data directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streams.errors import LeatError


class AlreadyRunning(LeatError):
    """Another launcher owns the data directory."""

    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(
            f"Leat is running already on {directory} (process {pid or 'unknown'}): stop it with"
            f" `leat down --data {directory}`, or take another directory with --data"
        )


@contextmanager
def data_lock(directory: Path) -> Iterator[None]:
    """Own the directory; the kernel lets go when we die, however we die.

    Raises:
        AlreadyRunning: another launcher has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(directory, owner(directory)) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


def owner(directory: Path) -> str:
    """The launcher's process id, as text; empty when nobody has the directory."""
    try:
        return (directory / "lock").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def is_locked(directory: Path) -> bool:
    """Whether a launcher owns the directory now."""
    try:
        with (directory / "lock").open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
