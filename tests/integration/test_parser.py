"""The real parser: every format, every bad input, and a child process whose limits are enforced."""

import asyncio
import os
import signal
import sys
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import docx
import pytest
import pytest_asyncio

from infra.parsing import make_parser
from infra.parsing.parser import DocumentParser
from infra.parsing.parser_process import ParserProcess
from infra.settings import Settings
from streams.errors import UnreadableDocument
from streams.formats import Format
from streams.model import Content, ParsedDocument


@pytest_asyncio.fixture
async def parser() -> AsyncIterator[DocumentParser]:
    parser = make_parser(Settings(max_document_bytes=4 * 2**20))
    yield parser
    await parser.close()


def a_pdf(*pages: str, title: str = "", encrypt: bool = False) -> bytes:
    """A PDF of one line of text per page, written by hand."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, page in enumerate(pages):
        lines = " T* ".join(f"({line}) Tj" for line in page.split("\n"))
        stream = f"BT /F1 12 Tf 14 TL 72 720 Td {lines} ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) /Author (Ada) >>")
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R"
    if encrypt:
        key = "00" * 32
        objects.append(f"<< /Filter /Standard /V 1 /R 2 /O <{key}> /U <{key}> /P -4 >>")
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<{'11' * 16}> <{'11' * 16}>]"
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    return out + f"trailer << {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()


def a_docx() -> bytes:
    document = docx.Document()
    document.core_properties.title = "The plan"
    document.core_properties.author = "Ada"
    document.add_heading("Install", 1)
    document.add_paragraph("Run make up. Tiếng Việt.")
    document.add_heading("Linux", 2)
    document.add_paragraph("one", style="List Bullet")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "port", "8765"
    out = BytesIO()
    document.save(out)
    return out.getvalue()


def a_zip(members: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def parts(parsed: ParsedDocument) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(b.kind, parsed.text[b.start : b.end], b.heading_path) for b in parsed.blocks]


async def test_pdf_gives_pages_title_and_properties(parser: DocumentParser) -> None:
    data = a_pdf("Kafka keeps the log.\nNew line here.", "Page two speaks of offsets.", title="Manual")
    parsed = await parser.parse(Content(data, None, "m.pdf"))
    assert parsed.title == "Manual"
    assert parsed.metadata["pages"] == 2
    assert parsed.content_type == "application/pdf"
    assert [(b.page, parsed.text[b.start : b.end]) for b in parsed.blocks][-1] == (2, "Page two speaks of offsets.")


async def test_docx_gives_headings_lists_tables_and_properties(parser: DocumentParser) -> None:
    parsed = await parser.parse(Content(a_docx(), None, "plan.docx"))
    assert parsed.title == "The plan"
    assert parsed.metadata["author"] == "Ada"
    assert parts(parsed) == [
        ("heading", "Install", ("Install",)),
        ("paragraph", "Run make up. Tiếng Việt.", ("Install",)),
        ("heading", "Linux", ("Install", "Linux")),
        ("list-item", "one", ("Install", "Linux")),
        ("table-row", "port | 8765", ("Install", "Linux")),
    ]


HTML = """<!doctype html><html lang="en"><head><title> A  page </title><meta name="author" content="Ada">
<style>x{}</style></head>
<body><nav>Home</nav><h1>Top</h1><p>One <b>bold</b> word.<br>Next.</p><script>evil()</script><!-- no -->
<h2>List</h2><ul><li>a</li><li><p>b</p></li></ul><table><tr><th>k</th><td>v</td></tr></table><pre>x = 1
  y</pre>tail &amp; end</body></html>"""


async def test_html_gives_visible_text_with_structure(parser: DocumentParser) -> None:
    parsed = await parser.parse(Content(HTML.encode(), None, "p.html"))
    assert parsed.title == "A page"
    assert parsed.metadata == {"author": "Ada", "language": "en"}
    assert parts(parsed) == [
        ("paragraph", "Home", ()),
        ("heading", "Top", ("Top",)),
        ("paragraph", "One bold word. Next.", ("Top",)),
        ("heading", "List", ("Top", "List")),
        ("list-item", "a", ("Top", "List")),
        ("list-item", "b", ("Top", "List")),
        ("table-row", "k | v", ("Top", "List")),
        ("code", "x = 1\n  y", ("Top", "List")),
        ("paragraph", "tail & end", ("Top", "List")),
    ]


async def test_large_html_is_read_in_the_child(parser: DocumentParser) -> None:
    parsed = await parser.parse(Content(b"<h1>T</h1>" + b"<p>some text</p>" * 10_000, None, "large.html"))
    assert parser._process.pid is not None
    assert len(parsed.blocks) == 10_001


async def test_hostile_nesting_costs_no_more_than_the_timeout() -> None:
    parser = make_parser(Settings(parse_timeout_s=1.0))
    data = b"<div>" * 100_000 + b"deep" + b"</div>" * 100_000
    with pytest.raises(UnreadableDocument, match="parser-timeout"):
        await parser.parse(Content(data, None, "deep.html"))
    await parser.close()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("héllo".encode("utf-8-sig"), "héllo"),
        ("héllo".encode("utf-16"), "héllo"),
        ("La liaison était très étroite, à l'été, où ça brûle.".encode("cp1252"), "La liaison était très étroite"),
    ],
)
async def test_encodings_are_found(parser: DocumentParser, data: bytes, text: str) -> None:
    assert (await parser.parse(Content(data, None, "a.txt"))).text.startswith(text)


BOMB = {"[Content_Types].xml": b"<x/>", "word/document.xml": b"\0" * (40 * 2**20)}


@pytest.mark.parametrize(
    ("name", "data", "content_type", "reason"),
    [
        ("empty.md", b"", None, "empty-document"),
        ("blank.md", b" \n\t\r\n", None, "empty-document"),
        ("blank2.md", "\u00a0\n\u2003".encode(), None, "empty-document"),
        ("image.md", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, "binary-content"),
        ("late.txt", b"text " * 30_000 + b"\x00", None, "binary-content"),
        ("broken.md", b"abc \xff\xfe\xfd \x81\x8d\x8f\x90\x9d", None, "undecodable-text"),
        ("odd.txt", b"\xff\xfea", None, "undecodable-text"),
        ("locked.pdf", a_pdf("secret", encrypt=True), None, "password-protected"),
        ("cut.pdf", a_pdf("text")[:60], None, "corrupt-document"),
        ("junk.pdf", b"not a pdf at all", None, "corrupt-document"),
        ("scan.pdf", a_pdf(""), None, "no-text"),
        ("cut.docx", a_docx()[:-200], None, "corrupt-document"),
        ("zip.docx", a_zip({"a.txt": b"x"}), None, "corrupt-document"),
        ("bad.docx", a_zip({"[Content_Types].xml": b"<broken"}), None, "corrupt-document"),
        ("old.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, None, "password-protected"),
        ("bomb.docx", a_zip(BOMB), None, "document-too-large"),
        ("big.md", b"a " * (3 * 2**20), None, "document-too-large"),
        ("sheet.xlsx", b"PK\x03\x04", "application/vnd.ms-excel", "unsupported-format"),
        ("a.bin", b"x", "application/x-foo", "unsupported-format"),
    ],
)
async def test_bad_input_is_refused_with_a_reason_and_a_way_out(
    parser: DocumentParser, name: str, data: bytes, content_type: str | None, reason: str
) -> None:
    with pytest.raises(UnreadableDocument) as refusal:
        await parser.parse(Content(data, content_type, name))
    assert refusal.value.reason == reason
    assert len(refusal.value.detail) > 20


async def test_entities_in_a_docx_do_not_explode(parser: DocumentParser) -> None:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "lol"}">' for i in range(12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><x>&e11;</x>'.encode()
    members = {name: data for name, data in _members(a_docx()).items() if name != "word/document.xml"}
    with pytest.raises(UnreadableDocument):
        await parser.parse(Content(a_zip({**members, "word/document.xml": bomb}), None, "lol.docx"))


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# The child process: a module that misbehaves on request stands in for a parser with a bug.


@pytest.fixture
def bad_process() -> ParserProcess:
    return ParserProcess(memory_bytes=400 * 2**20, timeout_s=3.0, module="tests.fakes.bad_parser")


@pytest.mark.parametrize(
    ("misdeed", "reason"),
    [
        ("hang", "parser-timeout"),
        ("sleep", "parser-timeout"),
        ("allocate", "parser-out-of-memory"),
        ("segfault", "corrupt-document"),
        ("exit", "corrupt-document"),
    ],
)
async def test_a_child_that_misbehaves_fails_only_that_document(
    bad_process: ParserProcess, misdeed: str, reason: str
) -> None:
    assert (await bad_process.parse(b"fine", Format.HTML)).text == "fine"
    with pytest.raises(UnreadableDocument) as refusal:
        await bad_process.parse(misdeed.encode(), Format.HTML)
    assert refusal.value.reason == reason
    assert (await bad_process.parse(b"fine", Format.HTML)).text == "fine"
    pid = bad_process.pid
    await bad_process.close()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_what_a_library_prints_does_not_reach_the_frames(bad_process: ParserProcess) -> None:
    assert (await bad_process.parse(b"print", Format.HTML)).text == "print"
    await bad_process.close()


async def test_a_cancelled_call_leaves_a_working_parser(bad_process: ParserProcess) -> None:
    call = asyncio.ensure_future(bad_process.parse(b"sleep", Format.HTML))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await bad_process.parse(b"fine", Format.HTML)).text == "fine"
    await bad_process.close()


async def test_a_child_killed_while_idle_is_replaced(parser: DocumentParser) -> None:
    await parser.parse(Content(a_docx(), None, "a.docx"))
    pid = parser._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = asyncio.get_running_loop().time() + 60
    while parser._process._process is not None and parser._process._process.returncode is None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert (await parser.parse(Content(a_docx(), None, "a.docx"))).title == "The plan"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_the_child_sees_no_secret_of_the_environment(
    parser: DocumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAT_API_TOKEN", "do-not-leak")
    await parser.parse(Content(a_docx(), None, "a.docx"))
    environment = await asyncio.to_thread(Path(f"/proc/{parser._process.pid}/environ").read_bytes)
    assert b"do-not-leak" not in environment
