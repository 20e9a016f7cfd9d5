"""What a revision changes in the index."""

import hashlib
from datetime import UTC, datetime

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentKey
from schemas.pipeline import ChunkedPassage, DocumentAttributes, DocumentChunked, Origin
from streams.assemble import Assembler
from streams.index import plan
from streams.model import EmbeddingModel, Generation, GenerationState, Manifest, SparseVector

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = DocumentKey("default", "docs", "a.md")
GENERATION = Generation(
    7, "default", "docs", 1, GenerationState.SERVING, EmbeddingModel("hash", "hash-1", 384, 254), 254, 50
)


def a_passage(text: str, start: int = 0) -> ChunkedPassage:
    digest = hashlib.sha256(text.encode()).digest()
    return ChunkedPassage(content_hash=digest, text=text, start=start, end=start + len(text), tokens=len(text.split()))


def chunked(
    *texts: str, revision: int = 1, level: AccessLevel = AccessLevel.PUBLIC, change: Change = Change.UPSERT
) -> DocumentChunked:
    attributes = DocumentAttributes(title="A", content_type="text/markdown", size_bytes=1, access_level=level)
    return DocumentChunked(
        key=KEY,
        generation_id=7,
        revision=revision,
        change=change,
        origin=Origin(epoch=0, partition=0, offset=revision, event_id=f"e{revision}", accepted_at=NOW),
        attributes=None if change is Change.DELETE else attributes,
        passages=tuple(a_passage(text) for text in texts),
        chunked_at=NOW,
    )


def manifest_after(event: DocumentChunked, before: Manifest | None = None) -> Manifest:
    planned = plan(event, before, generation=GENERATION)
    return Manifest(7, KEY, event.revision, planned.flip.passages)


def test_unchanged_passages_keep_their_points() -> None:
    before = manifest_after(chunked("one", "two", "three"))
    after = plan(chunked("one", "TWO", "three", revision=2), before, generation=GENERATION)
    assert [passage.text for passage in after.born] == ["TWO"]
    assert after.kept == 2
    assert after.flip.removed == (before.passages[1].point_id,)


def test_repeated_text_has_one_point_per_occurrence() -> None:
    planned = plan(chunked("same", "same", "same"), None, generation=GENERATION)
    assert len({passage.point_id for passage in planned.flip.passages}) == 3


def test_same_revision_yields_the_same_points() -> None:
    one, other = (plan(chunked("a", "b"), None, generation=GENERATION) for _ in range(2))
    assert one.flip.passages == other.flip.passages


def test_restored_text_gets_a_new_point_so_that_a_late_sweep_cannot_hit_it() -> None:
    first = manifest_after(chunked("old"))
    second = manifest_after(chunked("new", revision=2), first)
    third = manifest_after(chunked("old", revision=3), second)
    assert third.passages[0].content_hash == first.passages[0].content_hash
    assert third.passages[0].point_id != first.passages[0].point_id


def test_changed_access_gives_every_passage_a_new_point() -> None:
    before = manifest_after(chunked("a", "b"))
    after = plan(chunked("a", "b", revision=2, level=AccessLevel.INTERNAL), before, generation=GENERATION)
    assert len(after.born) == 2
    assert set(after.flip.removed) == {passage.point_id for passage in before.passages}


def test_deletion_removes_every_passage() -> None:
    before = manifest_after(chunked("a", "b"))
    after = plan(chunked(revision=2, change=Change.DELETE), before, generation=GENERATION)
    assert (after.flip.passages, len(after.flip.removed)) == ((), 2)


def test_points_are_born_without_a_dense_vector() -> None:
    planned = plan(chunked("a", "b"), None, generation=GENERATION)
    points = [planned.point(passage, SparseVector([1], [1.0])) for passage in planned.born]
    assert [point.dense for point in points] == [None, None]


def a_part(number: int, of: int, digest: bytes = b"d", revision: int = 1) -> DocumentChunked:
    event = chunked(f"text {number}", revision=revision)
    return event.model_copy(update={"part": number, "parts": of, "digest": digest})


def test_parts_become_whole_once_and_hold_back_the_commit_until_then() -> None:
    assembler = Assembler()
    assert assembler.add(a_part(1, 3), partition=4, offset=10) is None
    assert assembler.add(a_part(2, 3), partition=4, offset=11) is None
    assert assembler.holding() == {4: 10}
    whole = assembler.add(a_part(3, 3), partition=4, offset=12)
    assert whole is not None
    assert [passage.text for passage in whole.passages] == ["text 1", "text 2", "text 3"]
    assert assembler.holding() == {}


def test_parts_of_another_attempt_are_never_mixed_in() -> None:
    assembler = Assembler()
    assembler.add(a_part(1, 2, b"old"), partition=0, offset=1)
    assert assembler.add(a_part(2, 2, b"new"), partition=0, offset=2) is None
    assert assembler.holding() == {0: 2}


def test_redelivered_parts_of_a_reassigned_partition_start_afresh() -> None:
    assembler = Assembler()
    assembler.add(a_part(1, 2), partition=0, offset=1)
    assembler.add(a_part(1, 2), partition=1, offset=5)
    assembler.forget(frozenset({1}))
    assert assembler.holding() in ({0: 1}, {})
