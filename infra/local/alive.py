"""The file that a process of ours touches while it is alive, so that its supervisor notices when it hangs."""

import time
from pathlib import Path

# Nine looks of the process, and longer than any pause that a busy machine makes.
STALE_S = 45.0


def alive_file(data_dir: Path, name: str) -> Path:
    """Where the process of that name says that it is alive."""
    return data_dir / "processes" / f"{name}.alive"


def is_stale(file: Path, *, stale_s: float = STALE_S) -> bool:
    """Whether the file was touched, but not lately. A process that has no such file is not judged."""
    try:
        return time.time() - file.stat().st_mtime > stale_s
    except OSError:
        return False
