"""Run by ``make`` before anything is changed, by any Python 3 and without our packages: can the rest be had?

Prints one line with the cure and ends with 1 when it cannot. What can be fetched later is not asked for here.
"""

import os
import shutil
import sys


def missing() -> "str | None":
    """The first thing that is missing and cannot be fetched, with its cure."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this very question
        return "Python {}.{} is too old: install Python 3.11 or newer, or give one: make PYTHON=python3.12".format(
            *sys.version_info[:2]
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python has no venv: install it (Debian: apt-get install python3-venv)"
    if os.name != "posix":
        return "Leat runs on Linux and macOS: on Windows use WSL"
    installed = any(shutil.which(name) for name in ("redis-server", "valkey-server", "mvn"))
    if not (installed or os.environ.get("LEAT_REDIS_URL") or os.path.exists(os.path.join(".leat", "tools", "redis"))):
        return (
            "no redis-server or valkey-server, and no Maven to fetch one with: install Redis"
            " (Debian: apt-get install redis-server), or give LEAT_REDIS_URL"
        )
    return None


if __name__ == "__main__":
    problem = missing()
    if problem:
        sys.exit("leat: " + problem)
