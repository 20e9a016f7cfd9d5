"""Which format a document has: by its content type, else by the ending of its id."""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from posixpath import basename, splitext

from streams.errors import UnreadableDocument
from streams.model import Content


class Format(StrEnum):
    """How a document is read. ``binary`` formats need a parser library and run in the child process."""

    MARKDOWN = "markdown"
    TEXT = "text"
    CODE = "code"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"

    @property
    def is_text(self) -> bool:
        """Offsets are code points into the decoded source itself."""
        return self in (Format.MARKDOWN, Format.TEXT, Format.CODE)


PDF_TYPE = "application/pdf"
DOCX_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

_BY_TYPE: dict[str, Format] = {
    "text/markdown": Format.MARKDOWN,
    "text/x-markdown": Format.MARKDOWN,
    "text/mdx": Format.MARKDOWN,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    PDF_TYPE: Format.PDF,
    DOCX_TYPE: Format.DOCX,
    "text/x-source": Format.CODE,
    "text/javascript": Format.CODE,
    "application/javascript": Format.CODE,
    "application/typescript": Format.CODE,
    "application/json": Format.TEXT,
    "application/x-ndjson": Format.TEXT,
    "application/yaml": Format.TEXT,
    "application/x-yaml": Format.TEXT,
    "application/toml": Format.TEXT,
    "application/xml": Format.TEXT,
}

_ENDINGS: dict[str, str] = {
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdown": "text/markdown",
    ".mkd": "text/markdown",
    ".qmd": "text/markdown",
    ".mdx": "text/mdx",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".pdf": PDF_TYPE,
    ".docx": DOCX_TYPE,
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".xml": "application/xml",
}
_PLAIN_TEXT_ENDINGS = """
    .txt .text .rst .adoc .asciidoc .org .tex .log .ini .cfg .conf .srt
""".split()  # noqa: SIM905
_SOURCE_ENDINGS = """
    .py .pyi .js .mjs .cjs .jsx .ts .tsx .java .kt .kts .scala .go .rs .c .h .cc .cpp .cxx .hpp .cs .swift .rb
    .php .pl .lua .r .jl .sh .bash .zsh .ps1 .sql .proto .graphql .tf .hs .ml .ex .exs .erl .clj .dart .vue
    .svelte .css .scss .gradle .cmake .zig .nim .m .mm
""".split()  # noqa: SIM905
_ENDINGS |= dict.fromkeys(_PLAIN_TEXT_ENDINGS, "text/plain") | dict.fromkeys(_SOURCE_ENDINGS, "text/x-source")

# Formats that people try and that we do not read: refused by name rather than indexed as noise.
_REFUSED_ENDINGS = {
    ".doc": "save it as DOCX or PDF",
    ".odt": "save it as DOCX or PDF",
    ".rtf": "save it as DOCX or PDF",
    ".xls": "export it as CSV",
    ".xlsx": "export it as CSV",
    ".ods": "export it as CSV",
    ".ppt": "export it as PDF",
    ".pptx": "export it as PDF",
    ".epub": "convert it to HTML or PDF",
}

_GENERIC_TYPES = {"application/octet-stream", "binary/octet-stream", "application/x-download"}


def content_type_of(declared: str | None, document_id: str, head: bytes) -> str:
    """The declared type, else the one of the id's ending, else the one that the first bytes show.

    Content that shows itself to be PDF wins over a text type: people rename files.
    """
    named = (declared or "").split(";", 1)[0].strip().lower()
    if named and named not in _GENERIC_TYPES and named != "text/plain":
        return named
    by_ending = _ENDINGS.get(splitext(document_id)[1].lower())
    if by_ending and (by_ending != "text/plain" or not named):
        return by_ending
    if named == "text/plain":
        return named
    return _sniffed(head)


def format_of(content_type: str, document_id: str) -> Format:
    """How to read a content type.

    Raises:
        UnreadableDocument: ``unsupported-format``.
    """
    known = _BY_TYPE.get(content_type)
    if known:
        return known
    if content_type.startswith("text/"):
        return Format.TEXT
    ending = splitext(document_id)[1].lower()
    cure = _REFUSED_ENDINGS.get(ending, "send Markdown, text, HTML, PDF, DOCX or source code")
    raise UnreadableDocument(
        "unsupported-format", f"{basename(document_id)!r} is of type {content_type}, which Leat does not read: {cure}."
    )


def _sniffed(head: bytes) -> str:
    if head.startswith(b"%PDF-"):
        return PDF_TYPE
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    if head.startswith(b"PK\x03\x04"):
        return DOCX_TYPE if b"word/" in head else "application/zip"
    if start.startswith(b"---\n") or start.startswith(b"# "):
        return "text/markdown"
    return "text/plain"


_TYPES: dict[Format, str] = {
    Format.MARKDOWN: "text/markdown",
    Format.TEXT: "text/x-plain",  # plain text of which nobody says that its ending knows better
    Format.CODE: "text/x-source",
    Format.HTML: "text/html",
    Format.PDF: PDF_TYPE,
    Format.DOCX: DOCX_TYPE,
}


def read_as(content: Content, parsers: Iterable[tuple[str, str]]) -> Content:
    """The content as a collection wants it read: under another content type where an ending, or its own type, is named.

    The longest ending wins, endings before types.
    """
    told = dict(parsers)
    name = content.document_id.lower()
    endings = sorted((ending for ending in told if ending.startswith(".") and name.endswith(ending)), key=len)
    own_type = (content.content_type or "").partition(";")[0].strip().lower()
    wanted = told[endings[-1]] if endings else told.get(own_type)
    return content if wanted is None else replace(content, content_type=_TYPES[Format(wanted)])
