"""Markdown and MDX to blocks: one compiled pattern per block, no syntax tree, so tens of megabytes a second."""

import re

from streams.front_matter import FrontMatter, read_front_matter
from streams.model import Block, ParsedDocument

# Where a paragraph or list item ends although no blank line follows. Every alternative is anchored and linear.
_STOP = (
    r"(?:[ \t\r]*$"  # a blank line
    r"|[ \t]*(?:```|~~~)"  # a fence
    r"|[ ]{0,3}\#{1,6}(?:[ \t]|\r?$)"  # a heading
    r"|[ ]{0,3}(?:=+|-{2,})[ \t\r]*$"  # a setext underline or a rule
    r"|[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S)"  # a list item
)
_BLOCK = re.compile(
    rf"""
      (?P<blank>\s*\n)
    | (?P<fence>[ \t]*(?:>[ \t]?)*(?P<mark>`{{3,}}(?=[^`\n]*$)|~{{3,}})[^\n]*)
    | (?P<heading>[ ]{{0,3}}(?P<level>\#{{1,6}})(?:[ \t]+(?P<name>[^\n]*)|\r?$))
    | (?P<table>[ \t]*\|[^\n]*(?:\n[ \t]*\|[^\n]*)*)
    | (?P<item>[ \t]*(?:[-*+]|\d{{1,9}}[.)])[ \t]+\S[^\n]*(?:\n(?!{_STOP})[^\n]+)*)
    | (?P<paragraph>[^\n]+(?:\n(?!{_STOP})[^\n]+)*)(?P<underline>\n[ ]{{0,3}}(?:=+|-{{2,}})[ \t\r]*$)?
    """,
    re.VERBOSE | re.MULTILINE,
)
_CLOSING = {char: re.compile(rf"^[ \t]*(?:>[ \t]?)*({char}{{3,}})[ \t\r]*$", re.MULTILINE) for char in "`~"}
_KINDS = {"table": "table", "item": "list-item", "paragraph": "paragraph"}

_LINK = re.compile(r"!?\[([^\]\n]*)\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_HEADING_NOISE = re.compile(r"[ \t]+\#+[ \t]*$|[ \t]*\{[^{}\n]*\}[ \t]*$|<[^<>\n]*>|[`*]+|\r")
_MAX_HEADING_CHARS = 200
"""A path is repeated in front of every passage below it; a whole paragraph marked as a heading must not fill them."""


def parse_markdown(text: str, *, content_type: str = "text/markdown") -> ParsedDocument:
    """Blocks of Markdown or MDX in reading order, with heading paths. ``text`` is kept as it is.

    The title is that of the front matter, else the first top-level heading. A front matter title is the root of every
    heading path, so that a section called "Upgrading" still says of what.
    """
    front = read_front_matter(text)
    outline = _Outline(front)
    blocks = list(front.blocks) if front else []
    _scan(text, front.end if front else 0, outline, blocks)
    return ParsedDocument(
        text=text,
        blocks=tuple(blocks),
        title=(front.title if front else None) or outline.first_top_heading,
        metadata=front.metadata if front else {},
        content_type=content_type,
    )


def _scan(text: str, pos: int, outline: "_Outline", blocks: list[Block]) -> None:
    size = len(text)
    match_at = _BLOCK.match
    append = blocks.append
    path = outline.path
    while pos < size:
        match = match_at(text, pos)
        if match is None:  # only blanks without a newline are left
            break
        start, end = match.span()
        kind = match.lastgroup
        if kind == "blank":
            pos = end
            continue
        if match["fence"] is not None:
            end = _end_of_fence(text, end, match["mark"])
            append(Block(start, end, path, kind="code"))
        elif match["heading"] is not None:
            path = outline.enter(len(match["level"]), match["name"] or "")
            append(Block(start, end, path, kind="heading"))
        elif match["underline"] is not None:
            path = outline.enter(1 if "=" in match["underline"] else 2, match["paragraph"])
            append(Block(start, end, path, kind="heading"))
        elif not text[start:end].isspace():
            append(Block(start, end, path, kind=_KINDS[kind or "paragraph"]))
        pos = end + 1


def _end_of_fence(text: str, pos: int, mark: str) -> int:
    """End of the line that closes the fence; without one the code goes on to the end of the document."""
    for closing in _CLOSING[mark[0]].finditer(text, pos):
        if len(closing[1]) >= len(mark):
            return closing.end()
    return len(text.rstrip())


class _Outline:
    """The headings above the point that the scan has reached."""

    def __init__(self, front: FrontMatter | None) -> None:
        self._root = (front.title,) if front and front.title else ()
        self._open: list[tuple[int, str]] = []
        self.first_top_heading: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        names = tuple(name for _, name in self._open)
        return names if names[:1] == self._root else self._root + names

    def enter(self, level: int, source: str) -> tuple[str, ...]:
        """A heading: closes those of its level and below. Returns the new path."""
        name = plain_heading(source)
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        if name:
            self._open.append((level, name))
        if level == 1 and self.first_top_heading is None:
            self.first_top_heading = name or None
        return self.path


def plain_heading(source: str) -> str:
    """A heading as people read it: links to their text, no emphasis marks, no attributes, one line."""
    name = _HEADING_NOISE.sub("", _LINK.sub(r"\1", source.strip()))
    return " ".join(name.split())[:_MAX_HEADING_CHARS]
