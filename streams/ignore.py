"""Which entries of a folder are not documents: ``.gitignore`` and ``.leatignore`` at each level, and defaults."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from typing import Self

from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".leatignore")
"""Read in this order; the later one wins within a directory, a deeper directory wins over a higher one."""

# Never documents, and no pattern brings them back: tools' own state, where half-written files are normal.
NEVER = (".git", ".hg", ".svn", ".bzr", ".jj", ".leat", *IGNORE_FILES)

# Names that a pattern such as ``!.env`` in .leatignore can bring back.
DEFAULTS = (
    # what tools build or fetch
    "node_modules", "__pycache__", ".venv", ".tox", ".nox", ".idea", ".vscode", ".cache", ".*_cache",
    ".ipynb_checkpoints",
    # editors' and downloaders' temporaries, which become a document by a rename
    "*~", ".*.sw?", ".*.sw??", "4913", ".#*", "#*#", "~$*", ".~lock.*", "*___jb_tmp___", "*___jb_old___",
    ".goutputstream-*", "*.tmp", "*.temp", ".tmp*", "*.part", "*.crdownload", "*.kate-swp", ".fuse_hidden*", ".nfs*",
    # desktops' droppings
    ".ds_store", "._*", "thumbs.db", "desktop.ini", ".directory", ".trash-*",
    # secrets have no business in an index
    ".env", ".env.*", ".netrc", "id_rsa", "id_ed25519", "*.pem", "*.key", "*.p12",
)  # fmt: skip

# Formats without text: a folder of documents is full of pictures, and each would be a listed failure.
_MEDIA_ENDINGS = (
    "png|jpe?g|gif|webp|avif|heic|bmp|tiff?|ico|icns|svgz?|psd|mp[34]|m4[av]|wav|ogg|flac|mov|avi|mkv|webm|woff2?|ttf|otf|"
    "eot|zip|gz|tgz|bz2|xz|zst|7z|rar|tar|jar|whl|iso|dmg|exe|dll|so|dylib|o|a|class|py[co]|sqlite3?|db|parquet|onnx|"
    "safetensors"
)

# One expression for all names: 10,000 files times 100 patterns, one by one, would take a second.
_DEFAULT = re.compile(
    "|".join([*(translate(pattern) for pattern in DEFAULTS), rf".*\.(?:{_MEDIA_ENDINGS})\Z"]), re.IGNORECASE
)


class IgnoreRules:
    """The rules that hold in one directory: its own, those of the directories above it, and the defaults."""

    def __init__(self, specs: Sequence[tuple[str, GitIgnoreSpec]] = ()) -> None:
        self._specs = tuple(specs)

    def inside(self, directory: str, patterns: Iterable[str]) -> Self:
        """The rules in ``directory`` (relative to the root, ``""``: the root) whose ignore files say ``patterns``.

        A pattern that is none is skipped, as Git does.
        """
        valid = [line for line in patterns if _is_pattern(line)]
        if not valid:
            return self
        prefix = f"{directory}/" if directory else ""
        return type(self)((*self._specs, (prefix, GitIgnoreSpec.from_lines(valid))))

    def ignore(self, path: str, *, is_directory: bool) -> bool:
        """Whether an entry (path relative to the root) is left out; of a directory with everything in it."""
        name = path.rpartition("/")[2]
        if name in NEVER:
            return True
        for prefix, spec in reversed(self._specs):
            verdict: bool | None = spec.check_file(path[len(prefix) :] + ("/" if is_directory else "")).include
            if verdict is not None:
                return verdict
        return _DEFAULT.match(name) is not None


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return bool(line.strip()) and not line.startswith("#")
