"""Packing passages into records."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from schemas.documents import Change, DocumentKey
from schemas.pipeline import ChunkedPassage, DocumentChunked, Origin
from streams.parts import MAX_PART_BYTES, json_size, parts_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
HEAD = DocumentChunked(
    key=DocumentKey("default", "docs", "a.md"),
    generation_id=1,
    revision=1,
    change=Change.UPSERT,
    origin=Origin(epoch=0, partition=0, offset=0, event_id="e", accepted_at=AT),
    chunked_at=AT,
)


def a_passage(text: str, *heading_path: str) -> ChunkedPassage:
    return ChunkedPassage(
        content_hash=text.encode()[:32], text=text, heading_path=heading_path, start=0, end=len(text), tokens=1
    )


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.lists(st.text(max_size=20), max_size=3))
def test_estimate_is_never_below_the_real_size(text: str, path: list[str]) -> None:
    path = [heading.encode(errors="ignore").decode() for heading in path]
    passage = a_passage(text, *path)
    assert json_size(passage) >= len(passage.model_dump_json().encode())


def test_small_revision_is_one_part_and_an_empty_one_too() -> None:
    assert [(part.part, part.parts) for part in parts_of(HEAD, [a_passage("x")])] == [(1, 1)]
    assert [(part.part, part.parts) for part in parts_of(HEAD, [])] == [(1, 1)]


def test_large_revision_is_packed_in_order_under_one_digest() -> None:
    passages = [a_passage(f"{number} " + "y" * 200_000) for number in range(7)]
    parts = parts_of(HEAD, passages)
    assert [part.part for part in parts] == list(range(1, len(parts) + 1))
    assert {part.parts for part in parts} == {len(parts)}
    assert len({part.digest for part in parts}) == 1
    assert [passage for part in parts for passage in part.passages] == passages
    assert all(len(part.model_dump_json()) < 2 * MAX_PART_BYTES for part in parts)


def test_other_passages_have_another_digest() -> None:
    one, other = parts_of(HEAD, [a_passage("a")]), parts_of(HEAD, [a_passage("b")])
    assert one[0].digest != other[0].digest
