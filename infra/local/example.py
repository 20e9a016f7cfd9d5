"""A command to paste once everything serves: it asks something that the watched folder can answer."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

OWN_QUESTION = "When does a deleted document stop answering?"
"""Answered by this repository's guides."""

_TITLE = re.compile(r"""^(?:#[ \t]+|title:[ \t]*["']?)(?P<title>[^"'\n]{3,60}?)["']?[ \t]*#*$""", re.MULTILINE)
# What is looked at of a folder: enough to find a title, whatever the folder's size.
_MAX_FILES, _MAX_CHARS = 50, 4_000
# More make no sentence: "What is Answering: conversations, guardrails, the cache?"
_FEW_WORDS = 4


def example_command(docs: Path | None, data_dir: Path) -> str:
    """``leat ask …`` as it can be typed here: with the path of this program where it is not on the shell's path."""
    program = "leat" if shutil.which("leat") else _typed_path()
    data = "" if data_dir == Path(".leat/data").absolute() else f" --data {shlex.quote(str(data_dir))}"
    return f'{program} ask{data} "{example_question(docs)}"'


def example_question(docs: Path | None) -> str:
    """About the first document of the folder that has a title, one of few words if there is such a one."""
    own = Path(__file__).parents[2] / "docs"
    if docs is None or (own.is_dir() and docs.samefile(own)):
        return OWN_QUESTION
    found = list(_titles(docs))
    plain = [title for title in found if len(title.split()) <= _FEW_WORDS and not set(title) & set(",.:;")]
    title = next(iter(plain or found), None)
    return OWN_QUESTION if title is None else f"What is {title}?"


def _titles(docs: Path) -> Iterator[str]:
    for path in islice(sorted(docs.glob("*.md")) or docs.rglob("*.md"), _MAX_FILES):
        try:
            with path.open(encoding="utf-8") as file:
                found = _TITLE.search(file.read(_MAX_CHARS))
        except (OSError, UnicodeDecodeError):
            continue
        if found and not set(found["title"]) & set('"$`\\!'):
            yield found["title"].strip()


def _typed_path() -> str:
    """The program as it was called, relative to this folder where that is shorter."""
    called = Path(sys.argv[0])
    if called.name != "leat":
        called = Path(sys.executable).parent / "leat"
    try:
        return shlex.quote(str(called.absolute().relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(called.absolute()))
