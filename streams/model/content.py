"""Content of a document before it is cut: raw, then parsed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of parsed text that reads as one: a heading, a paragraph, a list item, a table row, a code block."""

    start: int
    end: int
    """Code points into ``ParsedDocument.text``."""
    heading_path: tuple[str, ...] = ()
    """Headings above and including this block's own, outermost first."""
    page: int | None = None
    kind: str = "paragraph"
    """``heading``, ``paragraph``, ``list-item``, ``table``, ``table-row``, ``code``, ``front-matter`` (alone)."""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Text with its structure. For text formats ``text`` is the decoded source itself, so offsets fit the file."""

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Front matter or the format's own properties, plain JSON values."""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class Content:
    """Raw content of a document on its way to a parser."""

    data: bytes
    content_type: str | None
    document_id: str
