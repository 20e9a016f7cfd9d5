"""Cutting: exact offsets, nothing lost, the budget kept, and edits that stay local."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.pipeline import ChunkedPassage
from streams.chunk import chunk, content_hash, embedded_text
from streams.formats import Format
from streams.model import ParsedDocument
from streams.parse_text import parse_source
from tests.fakes.tokens import FakeTokenCounter

COUNTER = FakeTokenCounter()
WORDS = "log topic offset record leader replica broker fetch commit lag group segment index epoch".split()  # noqa: SIM905

lines = st.sampled_from(
    [
        *("# One", "## Two", "### Three", "", "", "- item one", "1. first", "| a | b |", "|---|---|", "```", "---"),
        *(
            "# no heading",
            "title: x",
            "releases:",
            '-   name: "1"',
            "    latest: 1.0",
            "Setext",
            "===",
            "> quote",
            "<Tab>",
        ),
        *("Tiếng Việt có dấu.", "¿Qué es?", "東京です。次の文。", "\u00a0", "\u2028", "👩‍👩‍👧 ﬁ e\u0301", "a\tb"),
        *("word " * 60, "x" * 300),
    ]
)
documents = st.builds(
    lambda parts, newline: newline.join(parts), st.lists(lines, max_size=60), st.sampled_from(["\n", "\r\n"])
)


def parse(text: str, format: Format = Format.MARKDOWN) -> ParsedDocument:
    return parse_source(text, format=format, content_type="text/markdown", document_id="a.md")


def cut(
    text: str, *, max_tokens: int = 254, overlap: int = 50, format: Format = Format.MARKDOWN
) -> list[ChunkedPassage]:
    return chunk(parse(text, format), max_tokens=max_tokens, overlap=overlap, counter=COUNTER)


def uncovered(text: str, passages: list[ChunkedPassage]) -> str:
    missing = list(text)
    for passage in passages:
        missing[passage.start : passage.end] = " " * (passage.end - passage.start)
    return "".join(missing).strip()


@settings(max_examples=300, deadline=None)
@given(documents | st.text(max_size=500), st.sampled_from(list(Format)[:3]), st.integers(8, 300))
def test_offsets_are_exact_nothing_is_lost_and_the_budget_is_kept(text: str, format: Format, max_tokens: int) -> None:
    passages = cut(text, max_tokens=max_tokens, overlap=max_tokens // 5, format=format)
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert COUNTER.count_exact(embedded_text(passage.heading_path, passage.text)) <= max_tokens
        assert passage.content_hash == content_hash(passage.heading_path, passage.text)
    assert [p.start for p in passages] == sorted(p.start for p in passages)
    # The fences of the front matter are marks, not text.
    assert not uncovered(text, passages).replace("-", "").strip()
    assert passages == cut(text, max_tokens=max_tokens, overlap=max_tokens // 5, format=format)


@settings(max_examples=50, deadline=None)
@given(documents, st.floats(0, 0.09))
def test_the_budget_is_kept_with_a_counter_that_estimates_too_low(text: str, error: float) -> None:
    passages = chunk(parse(text), max_tokens=40, overlap=10, counter=FakeTokenCounter(error=error))
    assert all(COUNTER.count_exact(embedded_text(p.heading_path, p.text)) <= 40 for p in passages)


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(8, 16))).capitalize() + "."


def paragraph(rng: random.Random) -> str:
    return " ".join(sentence(rng) for _ in range(rng.randint(2, 6)))


def a_long_document(seed: int) -> list[str]:
    """Paragraphs and headings of a document of at least 100 passages."""
    rng = random.Random(seed)
    blocks = ["# Handbook"]
    section = 0
    while len(blocks) < 360:
        section += 1
        blocks.append(f"## Section {section}")
        blocks += [paragraph(rng) for _ in range(rng.randint(1, 4))]
    return blocks


def hashes(blocks: list[str]) -> set[bytes]:
    return {passage.content_hash for passage in cut("\n\n".join(blocks))}


@pytest.mark.parametrize("seed", [1, 2])
def test_an_edited_paragraph_changes_at_most_two_passages_wherever_it_stands(seed: int) -> None:
    blocks = a_long_document(seed)
    known = hashes(blocks)
    assert len(known) >= 100
    rng = random.Random(seed)
    for at, block in enumerate(blocks):
        if block.startswith("#"):
            continue
        words = block.split()
        words[rng.randrange(len(words))] = "edited"
        edited = " ".join(words) if at % 2 else block + " One more sentence at its end."
        assert len(hashes([*blocks[:at], edited, *blocks[at + 1 :]]) - known) <= 2, at


def test_a_document_without_headings_stays_local_too() -> None:
    rng = random.Random(7)
    blocks = [paragraph(rng) for _ in range(300)]
    known = hashes(blocks)
    for at in range(len(blocks)):
        edited = blocks[at] + " One more sentence."
        assert len(hashes([*blocks[:at], edited, *blocks[at + 1 :]]) - known) <= 2, at


def test_insertion_and_deletion_are_local() -> None:
    rng = random.Random(3)
    blocks = a_long_document(3)
    known = hashes(blocks)
    costs = []
    for at in range(2, len(blocks), 3):
        costs.append(len(hashes([*blocks[:at], paragraph(rng), *blocks[at:]]) - known))
        if not blocks[at].startswith("#"):
            costs.append(len(hashes([*blocks[:at], *blocks[at + 1 :]]) - known))
    assert max(costs) <= 5
    assert sum(cost <= 2 for cost in costs) >= 0.85 * len(costs)


def test_a_heading_starts_a_passage_and_gives_its_path() -> None:
    body = " ".join(["word"] * 100)
    passages = cut(f"# Guide\n\n## Install\n\n{body}\n\n## Upgrade\n\n{body}\n")
    assert [p.heading_path for p in passages] == [("Guide", "Install"), ("Guide", "Upgrade")]
    assert passages[1].text.startswith("## Upgrade")


def test_small_sections_of_one_parent_share_a_passage_under_the_parent() -> None:
    (passage,) = cut("# Guide\n\n## A\n\none\n\n## B\n\ntwo\n")
    assert passage.heading_path == ("Guide",)


def test_a_passage_inside_a_paragraph_repeats_whole_sentences() -> None:
    rng = random.Random(5)
    text = " ".join(sentence(rng) for _ in range(120))
    passages = cut(text)
    overlaps = [before.end - after.start for before, after in pairwise(passages)]
    assert any(overlap > 0 for overlap in overlaps)
    assert all(
        COUNTER.count(text[p.start : p.start + max(o, 0)]) <= 51 for p, o in zip(passages[1:], overlaps, strict=True)
    )
    assert all(p.text.lstrip()[0].isupper() for p in passages)


def test_what_is_embedded_holds_the_headings_that_the_text_lacks() -> None:
    assert embedded_text(("Mattermost", "releases", "10.7"), 'releaseCycle: "10.7"') == (
        'Mattermost › releases\nreleaseCycle: "10.7"'
    )
    assert embedded_text((), "text") == "text"


@pytest.mark.parametrize("unit", ["x", "A1b2", "word ", "語", "Tiếng ", "a\n", "same line\n", "- item\n", "# h\n"])
def test_huge_and_repetitive_documents_are_cut_in_bounded_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    passages = cut(text)
    assert not uncovered(text, passages)


def test_pages_are_never_mixed() -> None:
    from streams.model import Block

    parsed = ParsedDocument("one\n\ntwo", (Block(0, 3, page=1), Block(5, 8, page=2)))
    assert [p.page for p in chunk(parsed, max_tokens=254, overlap=50, counter=COUNTER)] == [1, 2]
