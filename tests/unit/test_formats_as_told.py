"""A collection may have documents read otherwise than their type or ending says."""

import pytest

from streams.formats import Format, content_type_of, format_of, read_as
from streams.model import Content


def read(document_id: str, content_type: str | None, parsers: dict[str, str]) -> Format:
    content = read_as(Content(b"# Hi", content_type, document_id), parsers.items())
    return format_of(content_type_of(content.content_type, document_id, content.data), document_id)


@pytest.mark.parametrize("wanted", list(Format))
def test_ending_is_read_as_it_is_told(wanted: Format) -> None:
    assert read("notes/a.MD", None, {".md": wanted.value}) is wanted


def test_longest_ending_wins_and_endings_win_over_types() -> None:
    parsers = {".md": "text", ".draft.md": "code", "text/markdown": "html"}
    assert read("a.draft.md", "text/markdown", parsers) is Format.CODE
    assert read("a.md", "text/markdown; charset=utf-8", parsers) is Format.TEXT
    assert read("a.other", "text/markdown; charset=utf-8", parsers) is Format.HTML


def test_others_are_read_as_they_say() -> None:
    assert read("a.html", None, {".md": "text"}) is Format.HTML
    assert read("a.md", None, {}) is Format.MARKDOWN
