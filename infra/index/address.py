"""Where the index process listens: a function of the settings, so that both sides agree without asking."""

import hashlib
import os
import tempfile
from pathlib import Path

from infra.settings import Settings
from streams.errors import Unavailable

# sun_path holds 108 bytes on Linux and 104 on macOS, the final zero included.
MAX_SOCKET_PATH_BYTES = 103


def index_folder(settings: Settings) -> Path:
    """Where the embedded index keeps its shards."""
    return settings.data_dir.resolve() / "index"


def index_socket(settings: Settings) -> Path:
    """The socket's path; when it is too long for a socket, a short one in the user's own folder for temporary files."""
    wanted = settings.index_socket.absolute() if settings.index_socket else index_folder(settings) / "index.sock"
    if len(os.fsencode(wanted)) <= MAX_SOCKET_PATH_BYTES:
        return wanted
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"leat-{os.getuid()}" / f"{digest}.sock"


def private_folder(path: Path) -> None:
    """Create a folder for sockets that only this user enters.

    Raises:
        Unavailable: someone else made it first, who could listen in our place.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.stat().st_uid != os.getuid():
        raise Unavailable("index", f"{path} belongs to another user; set LEAT_INDEX_SOCKET to a path of your own")
