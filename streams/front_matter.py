"""Front matter: the YAML block at the top of a Markdown file, as metadata and as searchable text.

Many files hold their facts here, in lists of records. Each record becomes a block of its own that is never torn.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import yaml

from streams.model import Block

_FENCED = re.compile(r"---[ \t]*\r?\n(?:(?P<body>.*?)\r?\n)??(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
# A top-level entry: an unindented key, and every line below it that is indented, blank, a comment or a list item.
_ENTRY = re.compile(
    r"^(?P<key>[^\s#:\-\[\]{}][^:\n]*|\"[^\"\n]*\"|'[^'\n]*')[ \t]*:(?=[ \t\r\n]|\Z)(?P<inline>[^\n]*)"
    r"(?P<rest>(?:\n(?:[ \t][^\n]*|-[ \t][^\n]*|-?[ \t\r]*$))*)",
    re.MULTILINE,
)
_ITEM = re.compile(r"^(?P<indent>[ \t]*)-(?:[ \t]+[^\n]*|\r?$)", re.MULTILINE)
_RECORD = re.compile(r"[ \t]*-[ \t]+[^\s:#\"'\[{][^:\n]*:[ \t]+(?P<name>\"[^\"\n]*\"|'[^'\n]*'|[^\n#]*)")

_MAX_BYTES = 1024 * 1024
_MAX_NAME_CHARS = 80
_MAX_LIST_ITEMS = 1000

# libyaml where the wheel has it: ten times as fast as the pure Python loader.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class FrontMatter:
    end: int
    """Offset behind the closing fence."""
    title: str | None
    metadata: Mapping[str, Any]
    """Scalars and lists of scalars as plain JSON values, which filters can match. Nested records are text only."""
    blocks: tuple[Block, ...]


def read_front_matter(text: str) -> FrontMatter | None:
    """The front matter of a document, or None. A part that is not valid YAML is text all the same."""
    match = _FENCED.match(text)
    if match is None or match.start("body") < 0 or len(match["body"]) > _MAX_BYTES:
        return None
    start, end = match.span("body")
    entries = list(_ENTRY.finditer(text, start, end))
    if not entries:
        return None
    metadata: dict[str, Any] = {}
    for entry in entries:
        metadata |= _values(entry)
    title = metadata.get("title")
    title = title.strip() if isinstance(title, str) else None
    root = (title,) if title else ()
    blocks = list(_blocks(text, start, end, entries, root))
    return FrontMatter(match.end(), title or None, metadata, tuple(blocks))


def _values(entry: re.Match[str]) -> dict[str, Any]:
    """The entry's value if it is a scalar or a list of scalars."""
    if len(entry["rest"]) > 65536 or ((first := _ITEM.search(entry["rest"])) and _RECORD.match(first[0])):
        return {}
    try:
        loaded = yaml.load(entry[0], _Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    if not isinstance(loaded, dict):
        return {}
    return {str(key): value for key, raw in loaded.items() if (value := _plain(raw)) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        scalars = [scalar for raw in value[:_MAX_LIST_ITEMS] if (scalar := _scalar(raw)) is not None]
        return scalars or None
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, str | bool | int | float):
        return value
    return None


def _blocks(text: str, start: int, end: int, entries: list[re.Match[str]], root: tuple[str, ...]) -> Iterator[Block]:
    """Records one by one; what stands between them in runs of whole entries."""
    pending = start
    for entry in entries:
        items = list(_items(text, entry))
        if not items:
            continue
        if block := _block(text, pending, items[0][0], root):
            yield block
        key = entry["key"].strip("\"' \t")
        for item_start, item_end, name in items:
            if block := _block(text, item_start, item_end, (*root, key, *((name,) if name else ()))):
                yield block
        pending = items[-1][1]
    if block := _block(text, pending, end, root):
        yield block


def _items(text: str, entry: re.Match[str]) -> Iterator[tuple[int, int, str]]:
    """(start, end, name) of each record in an entry's list; nothing unless they are records of several lines."""
    start, end = entry.span("rest")
    first = _ITEM.search(text, start, end)
    if (
        first is None
        or entry["inline"].split("#")[0].strip()
        or text[start : first.start()].strip()
        or not _RECORD.match(first[0])
    ):
        return
    starts = [item for item in _ITEM.finditer(text, start, end) if len(item["indent"]) <= len(first["indent"])]
    if text[first.start() : end].rstrip().count("\n") < len(starts):
        return  # a line each: read better together
    for item, following in zip(starts, [*starts[1:], None], strict=True):
        named = _RECORD.match(item[0])
        name = named["name"].strip().strip("\"'").strip()[:_MAX_NAME_CHARS] if named else ""
        yield item.start(), following.start() if following else end, name


def _block(text: str, start: int, end: int, path: tuple[str, ...], kind: str = "front-matter") -> Block | None:
    source = text[start:end]
    stripped = source.strip()
    if not stripped:
        return None
    first = start + source.index(stripped[0])
    return Block(first, first + len(stripped), path, kind=kind)
