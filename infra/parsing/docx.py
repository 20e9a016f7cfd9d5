"""DOCX to text by python-docx: paragraphs, headings, lists and tables in reading order."""

import re
import zipfile
from io import BytesIO

import docx
from docx.document import Document
from docx.table import Table
from docx.text.paragraph import Paragraph

from infra.parsing.assembly import Assembly
from streams.errors import UnreadableDocument
from streams.formats import DOCX_TYPE
from streams.model import ParsedDocument

# Real documents unpack to ten times their size, text-heavy ones to thirty; a bomb to a thousand and more.
_MAX_UNPACKED_BYTES = 256 * 1024 * 1024
_MAX_RATIO = 200
_RATIO_COUNTS_ABOVE_BYTES = 16 * 1024 * 1024
_MAX_MEMBERS = 10_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEADING_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)


def parse_docx(data: bytes) -> ParsedDocument:
    """Text with heading paths from the heading styles.

    Raises:
        UnreadableDocument: ``password-protected``, ``corrupt-document``, ``document-too-large`` or ``no-text``.
    """
    if data.startswith(_OLE):
        # Word keeps an encrypted DOCX in an OLE container; an old .doc looks the same and cannot be read either.
        raise UnreadableDocument(
            "password-protected",
            "the document is locked with a password, or an old .doc file: save it as a plain DOCX.",
        )
    _check_archive(data)
    try:
        document = docx.Document(BytesIO(data))
        return _read(document)
    except UnreadableDocument:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, OSError, zipfile.BadZipFile) as error:
        # SyntaxError is what lxml's XML errors are; python-docx has no error type of its own for broken parts.
        raise UnreadableDocument(
            "corrupt-document", "the DOCX is damaged: open it in Word and save it again."
        ) from error


def _check_archive(data: bytes) -> None:
    """Refuse a zip bomb by its directory, before anything is unpacked."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UnreadableDocument("corrupt-document", "the DOCX is not a whole zip archive: send it again.") from error
    if not any(member.filename == "[Content_Types].xml" for member in members):
        raise UnreadableDocument("corrupt-document", "the file is a zip archive but not a DOCX.")
    unpacked = sum(member.file_size for member in members)
    bomb = unpacked > max(_RATIO_COUNTS_ABOVE_BYTES, len(data) * _MAX_RATIO)
    if unpacked > _MAX_UNPACKED_BYTES or bomb or len(members) > _MAX_MEMBERS:
        raise UnreadableDocument(
            "document-too-large", f"the DOCX unpacks to {unpacked // 2**20} MiB, which no real document does: split it."
        )


def _read(document: Document) -> ParsedDocument:
    assembly = Assembly()
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            _add_table(assembly, item)
        else:
            _add_paragraph(assembly, item)
    properties = document.core_properties
    metadata: dict[str, str] = {}
    for name in ("author", "subject", "keywords", "category"):
        if value := getattr(properties, name):
            metadata[name] = value
    for name in ("created", "modified"):
        if (at := getattr(properties, name)) is not None:
            metadata[name] = at.isoformat()
    parsed = assembly.document(title=properties.title.strip() or None, metadata=metadata, content_type=DOCX_TYPE)
    if not parsed.blocks:
        raise UnreadableDocument("no-text", "the DOCX holds no text, only pictures or nothing.")
    return parsed


def _add_paragraph(assembly: Assembly, paragraph: Paragraph) -> None:
    style = (paragraph.style.name if paragraph.style is not None else None) or ""
    if style == "Title":
        assembly.heading(paragraph.text, 1)
    elif heading := _HEADING_STYLE.fullmatch(style):
        assembly.heading(paragraph.text, int(heading[1]))
    else:
        assembly.add(paragraph.text, kind="list-item" if style.startswith("List") else "paragraph")


def _add_table(assembly: Assembly, table: Table) -> None:
    for row in table.rows:
        cells: list[str] = []
        for cell in row.cells:
            text = " ".join(cell.text.split())
            if not cells or cells[-1] != text:  # a merged cell comes once per column that it spans
                cells.append(text)
        assembly.add(" | ".join(cells), kind="table-row")
