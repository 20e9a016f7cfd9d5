"""PDF to text by pypdfium2. Not thread-safe, and C++ that reads hostile bytes: only ever in the child process."""

import re

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

from infra.parsing.assembly import Assembly
from streams.errors import UnreadableDocument
from streams.formats import PDF_TYPE
from streams.model import ParsedDocument

_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_HYPHENATED = re.compile(r"(?<=\w)(?:\ufffe|\u00ad|\x02)\s*\n?")
# A line that ends like this, followed by a capital, ends a paragraph: PDF itself knows only lines.
_PARAGRAPH_END = re.compile(r"(?<=[.!?:])\n(?=[A-ZÀ-ÖØ-Þ0-9•–-])")
_PROPERTIES = {"Author": "author", "Subject": "subject", "Keywords": "keywords", "CreationDate": "created"}


def parse_pdf(data: bytes) -> ParsedDocument:
    """Text page by page; pages count from 1.

    Raises:
        UnreadableDocument: ``password-protected``, ``corrupt-document`` or ``no-text``.
    """
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise _refusal(error) from error
    try:
        return _read(pdf)
    except pypdfium2.PdfiumError as error:
        raise _refusal(error) from error
    finally:
        pdf.close()


def _read(pdf: pypdfium2.PdfDocument) -> ParsedDocument:
    assembly = Assembly()
    pages = len(pdf)
    for number in range(pages):
        page = pdf[number]
        textpage = page.get_textpage()
        _add_page(assembly, textpage.get_text_bounded(), number + 1)
        textpage.close()
        page.close()
    properties = pdf.get_metadata_dict(skip_empty=True)
    title = " ".join(properties.get("Title", "").split()) or None
    metadata = {ours: properties[theirs] for theirs, ours in _PROPERTIES.items() if theirs in properties}
    parsed = assembly.document(title=title, metadata={**metadata, "pages": pages}, content_type=PDF_TYPE)
    if not parsed.blocks:
        raise UnreadableDocument(
            "no-text",
            f"the PDF has {pages} page(s) of pictures and no text: run OCR on it (for example ocrmypdf) first.",
        )
    return parsed


def _add_page(assembly: Assembly, text: str, page: int) -> None:
    lines = _HYPHENATED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    for stretch in _BLANK_LINE.split(lines):
        for paragraph in _PARAGRAPH_END.split(stretch):
            assembly.add(paragraph, page=page)


def _refusal(error: pypdfium2.PdfiumError) -> UnreadableDocument:
    if getattr(error, "err_code", None) == FPDF_ERR_PASSWORD or "password" in str(error).lower():
        return UnreadableDocument("password-protected", "the PDF is locked with a password: save it without one.")
    return UnreadableDocument("corrupt-document", "the PDF is damaged or incomplete: open it and save it again.")
