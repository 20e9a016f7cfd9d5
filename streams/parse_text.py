"""Plain text, data files and source code to blocks; and the choice between the pure text parsers."""

import re
from posixpath import basename

from streams.formats import Format
from streams.model import Block, ParsedDocument
from streams.parse_markdown import parse_markdown

_PARAGRAPH = re.compile(r"[^\n]*\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")

# A definition at the left margin, in any of the languages that people index: what stands below it belongs to it.
_DEFINITION = re.compile(
    r"^(?:(?:export|default|pub(?:\([a-z]+\))?|public|private|protected|internal|static|final|abstract|async|unsafe|extern|"
    r"open|sealed|data|inline|const|override)[ \t]+)*"
    r"(?:def|class|func|fn|fun|function\*?|interface|struct|enum|impl|trait|type|module|namespace|object|record|message|service)"
    r"[ \t]+(?:\([^()\n]*\)[ \t]*)?(?:<[^<>\n]*>[ \t]*)?(?P<name>[A-Za-z_$][\w$]*(?:(?:\.|::)[\w$]+)*)",
    re.MULTILINE,
)


def parse_source(text: str, *, format: Format, content_type: str, document_id: str) -> ParsedDocument:
    """Structure of a document whose text is its source: Markdown, plain text, data or code."""
    if format is Format.MARKDOWN:
        parsed = parse_markdown(text, content_type=content_type)
    elif format is Format.CODE:
        parsed = ParsedDocument(text, tuple(_code_blocks(text)), content_type=content_type)
    else:
        blocks = tuple(Block(*paragraph.span()) for paragraph in _PARAGRAPH.finditer(text))
        parsed = ParsedDocument(text, blocks, content_type=content_type)
    return with_title(parsed, document_id)


def with_title(parsed: ParsedDocument, document_id: str) -> ParsedDocument:
    """Give a document without a title of its own the name of its file."""
    if parsed.title:
        return parsed
    return ParsedDocument(
        text=parsed.text,
        blocks=parsed.blocks,
        title=basename(document_id.rstrip("/")) or document_id,
        metadata=parsed.metadata,
        content_type=parsed.content_type,
    )


def _code_blocks(text: str) -> list[Block]:
    """Stretches of code between blank lines, cut before every definition at the margin."""
    blocks: list[Block] = []
    path: tuple[str, ...] = ()
    for stretch in _PARAGRAPH.finditer(text):
        start, end = stretch.span()
        at = start
        for definition in _DEFINITION.finditer(text, start, end):
            if definition.start() > at:
                blocks.append(Block(at, definition.start() - 1, path, kind="code"))
            path = (definition["name"],)
            at = definition.start()
        blocks.append(Block(at, end, path, kind="code"))
    return blocks
