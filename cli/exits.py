"""Exit codes, and which error ends with which."""

import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from streams.errors import LeatError, TransientError, Unavailable

FINE = 0
NO = 1
USAGE = 2
UNREACHABLE = 3
BUG = 70


class Refused(Exception):
    """A command ends with this message on stderr and this exit code. The message names the thing and the way out."""

    def __init__(self, message: str, code: int = NO) -> None:
        super().__init__(message)
        self.code = code


def end_with(error: BaseException) -> int:
    """Say the error in one line on stderr; returns the exit code."""
    match error:
        case Refused():
            print(f"leat: {error}", file=sys.stderr)
            return error.code
        case Unavailable() | TransientError():
            print(f"leat: {error}", file=sys.stderr)
            return UNREACHABLE
        case LeatError():
            print(f"leat: {error}", file=sys.stderr)
            return NO
        case _:
            where = _keep_traceback(error)
            what = " ".join(str(error).split())[:300]
            print(f"leat: a bug of ours: {type(error).__name__}: {what} (traceback in {where})", file=sys.stderr)
            return BUG


def _keep_traceback(error: BaseException) -> Path:
    """Append the traceback to a file that only this user reads."""
    path = Path(tempfile.gettempdir()) / f"leat-errors-{_user()}.log"
    text = "".join(traceback.format_exception(error))
    with path.open("a", encoding="utf-8") as file:
        path.chmod(0o600)
        file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:3])}\n{text}\n")
    return path


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
