"""Markdown, MDX, front matter, plain text and code to blocks."""

from streams.formats import Format
from streams.model import ParsedDocument
from streams.parse_text import parse_source

RELEASES = """---
title: Mattermost
category: server-app
tags: [chat, go]
addedAt: 2023-05-01
# newest first
releases:
-   releaseCycle: "10.7"
    releaseDate: 2025-04-16
    latest: "10.7.4"

-   releaseCycle: "10.6"
    latest: "10.6.6"
---

> An open source chat.

## Upgrading

Read the notes.
"""


def parse(text: str, format: Format = Format.MARKDOWN, document_id: str = "docs/a.md") -> ParsedDocument:
    return parse_source(text, format=format, content_type="text/x", document_id=document_id)


def outline(text: str, format: Format = Format.MARKDOWN) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(b.kind, text[b.start : b.end], b.heading_path) for b in parse(text, format).blocks]


def test_each_record_of_the_front_matter_is_a_block_under_its_name() -> None:
    parsed = parse(RELEASES)
    records = [(b.heading_path, RELEASES[b.start : b.end]) for b in parsed.blocks if len(b.heading_path) == 3]
    assert [path for path, _ in records] == [("Mattermost", "releases", "10.7"), ("Mattermost", "releases", "10.6")]
    assert records[0][1].endswith('latest: "10.7.4"')
    assert parsed.title == "Mattermost"
    assert parsed.metadata == {
        "title": "Mattermost", "category": "server-app", "tags": ["chat", "go"], "addedAt": "2023-05-01",
    }  # fmt: skip
    assert parsed.blocks[-1].heading_path == ("Mattermost", "Upgrading")


def test_front_matter_that_is_not_yaml_is_text_all_the_same() -> None:
    text = "---\ntitle: [broken\nother: fine\n---\nbody\n"
    parsed = parse(text)
    assert parsed.metadata == {"other": "fine"}
    assert "title: [broken" in text[parsed.blocks[0].start : parsed.blocks[0].end]


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    assert [kind for kind, _, _ in outline("---\n\nJust text\n\n---\n")] == ["paragraph"] * 3


def test_hashes_in_fenced_code_are_no_headings() -> None:
    text = "# T\n```bash\n# comment\n~~~\n```\n\n~~~\n```\n# still code\n~~~\nafter"
    assert [(kind, path) for kind, _, path in outline(text)] == [
        ("heading", ("T",)), ("code", ("T",)), ("code", ("T",)), ("paragraph", ("T",)),
    ]  # fmt: skip


def test_an_unclosed_fence_reaches_to_the_end() -> None:
    assert outline("```\n# a\n\nb\n")[0][1] == "```\n# a\n\nb"


def test_setext_closed_and_decorated_headings() -> None:
    text = "Title\n=====\n\nSub *one*\n---\n\n### A [link](http://x) ### \n\n#hashtag\n"
    assert [path for kind, _, path in outline(text) if kind == "heading"] == [
        ("Title",), ("Title", "Sub one"), ("Title", "Sub one", "A link"),
    ]  # fmt: skip
    assert outline(text)[-1][:2] == ("paragraph", "#hashtag")


def test_lists_tables_and_quotes_are_blocks() -> None:
    text = "- one\n  more\n- two\n  1. nested\n\n| a | b |\n|---|---|\n| 1 | 2 |\n> quote\n"
    assert [(kind, part) for kind, part, _ in outline(text)] == [
        ("list-item", "- one\n  more"),
        ("list-item", "- two"),
        ("list-item", "  1. nested"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("paragraph", "> quote"),
    ]


def test_carriage_returns_change_nothing_but_offsets() -> None:
    def plain(text: str) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(kind, part.replace("\r", "").strip(), path) for kind, part, path in outline(text)]

    text = RELEASES + "\n\n# H\n\ntext\n```\n# c\n```\nSetext\n---\n- a\n- b\n"
    assert plain(text) == plain(text.replace("\n", "\r\n"))


def test_mdx_keeps_its_components_as_text() -> None:
    text = "import X from 'x'\n\n# Title\n\n<Tabs>\n  <Tab>Hi</Tab>\n</Tabs>\n"
    assert [kind for kind, _, _ in outline(text)] == ["paragraph", "heading", "paragraph"]


def test_a_document_without_a_title_is_called_by_its_file() -> None:
    assert parse("text", Format.TEXT, "notes/plan.txt").title == "plan.txt"


def test_code_is_cut_before_definitions_and_knows_their_names() -> None:
    text = "import os\n\nclass A:\n    x = 1\n\n    def m(self): ...\n\nasync def go():\n    pass\ndef two(): ...\n"
    assert [(part.split("\n")[0].strip(), path) for _, part, path in outline(text, Format.CODE)] == [
        ("import os", ()),
        ("class A:", ("A",)),
        ("def m(self): ...", ("A",)),
        ("async def go():", ("go",)),
        ("def two(): ...", ("two",)),
    ]
