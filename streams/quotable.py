"""The pieces of a passage that can answer a question, each with the words that it answers with.

A sentence speaks for itself and, less, for its headings. A field of a record (``latest: "10.7.2"``) says almost nothing
by itself: what it is about stands in the record's first field, the headings and the title, so these count as its words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.answers import Passage
from streams.plain import is_no_text, plain
from streams.sentences import Sentence, sentences
from streams.terms import Question, fold, is_identifier, meaningful_stems, words

# What people call a field that files abbreviate. Read as if the words stood there.
_LONG_FORMS = {
    "eol": "end life",
    "eos": "end support",
    "eoas": "end active support until",
    "eoes": "end extended support until",
    "eossec": "end security support until",
    "lts": "long term support",
    "eola": "end life",
    "id": "identifier",
    "url": "link address",
    "qty": "quantity number",
    "desc": "description",
    "config": "configuration",
    "max": "maximum",
    "min": "minimum",
    "latest": "newest current",
}
# What a field is called when this is its whole name: what is latest of all in a record is its version.
_ALONE = {"latest": "version release última versión última versão phiên bản mới nhất"}
# What stands behind a field's name where its value follows on further lines, or says nothing.
_NO_VALUES = frozenset({"|", "|-", "|+", ">", ">-", ">+", "{}", "[]", "null", "~"})
_PROMPT = re.compile(r"^(?:[$%>]|PS>)\s+(?=\S)")
_CELL = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True)
class Quotable:
    """A piece of a passage, as it would be quoted."""

    citation: int
    ordinal: int
    """Place among the pieces of its passage."""
    sentence: Sentence
    own: frozenset[int]
    """Terms of the question in the piece itself (and in what a record's field is about)."""
    context: frozenset[int]
    """Terms of the question in title and headings."""
    subject: frozenset[int] = frozenset()
    """Terms of the question in a row's first cell: what the row is about."""
    foreign: int = 0
    """Identifiers and title words that the piece is about and the question is not: another version, another product."""
    quote: str = ""
    """Words of the passage that the answer rests on."""
    shown: str = ""
    """The piece as an answer shows it."""


def quotables(question: Question, passage: Passage, *, any_record: bool = False) -> list[Quotable]:
    """All pieces of a passage, in order. ``any_record``: the question is about whichever record it may be."""
    return list(_quotables(question, passage, any_record))


def _quotables(question: Question, passage: Passage, any_record: bool) -> Iterator[Quotable]:
    context = question.found_in(" ".join((passage.title, *passage.heading_path)))
    record: Sentence | None = None
    header: list[str] = []
    for ordinal, sentence in enumerate(sentences(passage.text)):
        if sentence.kind == "field":
            if not sentence.value or sentence.value in _NO_VALUES:
                continue
            if sentence.text.startswith("-"):
                record = sentence
            yield _field(question, passage, ordinal, sentence, record, context, any_record)
            continue
        if sentence.kind == "header":
            header = _cells(sentence.text)
            continue
        if sentence.kind == "row":
            cells = _cells(sentence.text)
            if len(cells) != len(header):
                header = [""] * len(cells)  # the table's head is in another passage
            yield _row(question, passage, ordinal, sentence, header, cells, context)
            continue
        header = []
        if sentence.kind in ("heading", "block") or is_no_text(sentence.text):
            continue
        own = question.found_in(sentence.text)
        shown = _command(sentence.text) if sentence.kind == "command" else plain(sentence.text)
        if shown:
            yield Quotable(passage.citation, ordinal, sentence, own, context, quote=sentence.text, shown=shown)


def _field(
    question: Question,
    passage: Passage,
    ordinal: int,
    sentence: Sentence,
    record: Sentence | None,
    context: frozenset[int],
    any_record: bool,
) -> Quotable:
    key = sentence.key or ""
    name = record.value if record is not None and record.value else ""
    headings = passage.heading_path
    about = " ".join((passage.title, *headings, name))
    spoken = " ".join((_spoken(key), about, sentence.value or "" if sentence is record else ""))
    # The name of the record decides: what was asked of 10.7 is not answered by the record of 10.6, nor by a mere name.
    foreign = 1 if sentence is record else 0
    foreign += 0 if any_record or _mentions(question, name or (headings[-1] if headings else "")) else 2
    foreign += len(meaningful_stems(passage.title).difference(question.terms))
    line = sentence.text.lstrip("- ").rstrip()
    head = record.text.lstrip("- ").rstrip() if record is not None and record is not sentence else ""
    shown = ", ".join(part for part in (passage.title, head, line) if part)
    return Quotable(
        passage.citation,
        ordinal,
        sentence,
        question.found_in(spoken),
        context,
        foreign=foreign,
        quote=sentence.text,
        shown=shown,
    )


def _row(
    question: Question,
    passage: Passage,
    ordinal: int,
    sentence: Sentence,
    header: list[str],
    cells: list[str],
    context: frozenset[int],
) -> Quotable:
    # A column's name speaks for a row that has something of the question itself.
    own = question.found_in(" ".join(cells))
    named_in = question.found_in(" ".join(header))
    own, context = (own | named_in, context) if own else (own, context | named_in)
    named = [(plain(name), plain(cell)) for name, cell in zip(header, cells, strict=True) if cell.strip()]
    # A column may be called "#", "…" or nothing at all.
    shown = "; ".join(f"{name}: {cell}" if words(name) else cell for name, cell in named)
    subject = question.found_in(cells[0])
    foreign = 0 if subject else 1
    return Quotable(passage.citation, ordinal, sentence, own, context, subject, foreign, sentence.text, shown)


def _mentions(question: Question, name: str) -> bool:
    """Whether the question has the whole name, not as part of a longer one. A name without digits may be missing."""
    if not is_identifier(name):
        return True
    return bool(re.search(rf"(?<![\w.]){re.escape(fold(name))}(?![\w+]|[.-]\w)", question.folded))


def _command(line: str) -> str:
    """Without the prompt in front, ready to be pasted. A comment is a sentence."""
    line = " ".join(line.split())
    if line.startswith("#"):
        return line.lstrip("# ")
    return f"`{_PROMPT.sub('', line)}`"


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in _CELL.split(row.strip().strip("|"))]


def _spoken(key: str) -> str:
    """The words of a field's name: ``latestReleaseDate`` is latest release date, ``eol`` is end of life."""
    parts = words(key.replace("_", " ").replace("-", " ").replace(".", " "))
    alone = _ALONE.get(key, "")
    return " ".join((*parts, alone, *(_LONG_FORMS[part] for part in parts if part in _LONG_FORMS)))
