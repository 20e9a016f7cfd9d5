"""Puts a text together from the blocks of a format whose source is not text."""

from collections.abc import Mapping
from typing import Any

from streams.model import Block, ParsedDocument

_SEPARATOR = "\n\n"
_MAX_HEADING_CHARS = 200


class Assembly:
    """Blocks in reading order, joined by blank lines; keeps the heading path."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._open: list[tuple[int, str]] = []
        self._first_heading: str | None = None

    def heading(self, text: str, level: int) -> None:
        name = " ".join(text.split())
        if not name:
            return
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, name[:_MAX_HEADING_CHARS]))
        self._first_heading = self._first_heading or name[:_MAX_HEADING_CHARS]
        self._append(name, "heading", None)

    def add(self, text: str, *, kind: str = "paragraph", page: int | None = None, keep_lines: bool = False) -> None:
        """A block; runs of white space become one space unless lines matter."""
        clean = text.strip("\r\n").rstrip() if keep_lines else " ".join(text.split())
        # NUL is not storable as PostgreSQL text; lone surrogates (from broken PDFs) are not encodable.
        clean = clean.replace("\x00", "").encode("utf-8", "replace").decode()
        if clean.strip():
            self._append(clean, kind, page)

    def document(self, *, title: str | None, metadata: Mapping[str, Any], content_type: str) -> ParsedDocument:
        return ParsedDocument(
            text=_SEPARATOR.join(self._pieces),
            blocks=tuple(self._blocks),
            title=title or self._first_heading,
            metadata=metadata,
            content_type=content_type,
        )

    def _append(self, text: str, kind: str, page: int | None) -> None:
        start = self._length + (len(_SEPARATOR) if self._pieces else 0)
        self._pieces.append(text)
        self._length = start + len(text)
        path = tuple(name for _, name in self._open)
        self._blocks.append(Block(start, self._length, path, page, kind))
