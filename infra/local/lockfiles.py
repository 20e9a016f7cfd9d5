"""``make lock``: pins every dependency by hash, for every platform that Leat runs on.

Three files: uv alone, which installs the others; what Leat needs to run; what its tests need on top. No file names a
package index: the machine's own settings say where packages come from.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

_OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-annotate",
    "--custom-compile-command=make lock",
    "--upgrade",
    "--quiet",
)
_FIRST_LINES = "# Made by `make lock`. Do not edit.\n"


def compile_lock(*arguments: str, stdin: str | None = None) -> str:
    """What ``uv pip compile`` prints."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *_OPTIONS, *arguments]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True).stdout


def entries(lock: str) -> dict[str, str]:
    """Package name to its lines in a lock; a marker that only repeats the platforms of pyproject.toml is left out."""
    markers = Counter(re.findall(r" ; (.*) \\$", lock, flags=re.MULTILINE))
    if markers:
        lock = lock.replace(f" ; {markers.most_common(1)[0][0]} \\", " \\")
    found: dict[str, str] = {}
    for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE):
        if not entry.startswith("#"):
            name = re.split(r"[=\s;@\[]", entry, maxsplit=1)[0]
            # One package may have an entry per Python version.
            found[name] = found.get(name, "") + entry
    return found


def write(path: Path, packages: dict[str, str]) -> None:
    path.write_text(_FIRST_LINES + "".join(packages[name] for name in sorted(packages)), encoding="utf-8")


def main() -> None:
    """Write the three lock files into the working directory."""
    # Together first: the tests run with exactly the versions that Leat runs with.
    everything = compile_lock("pyproject.toml", "--extra=build", "--extra=dev")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(re.findall(r"^[a-z0-9].*(?= \\$)", everything, flags=re.MULTILINE)))
        constraints.flush()
        needed = entries(compile_lock("pyproject.toml", "--extra=build", f"--constraints={constraints.name}"))
    extra = {name: entry for name, entry in entries(everything).items() if name not in needed}
    write(Path("requirements.lock"), needed)
    write(Path("requirements-dev.lock"), extra)
    write(Path("requirements-uv.lock"), entries(compile_lock("-", stdin="uv>=0.8")))


if __name__ == "__main__":
    main()
