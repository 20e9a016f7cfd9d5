"""The fold of the log, compared with what is served."""

import json
from datetime import UTC, datetime
from uuid import UUID

from schemas import headers
from schemas.documents import DocumentKey
from schemas.positions import revision_of
from schemas.topics import DOCUMENTS
from streams.model import Ordering
from streams.records import Record
from streams.verify import (
    Drift,
    Fold,
    LoggedDocument,
    ServedDocument,
    compare_documents,
    compare_points,
    in_step,
    lasting,
)

KEY = DocumentKey("default", "default", "a.md")
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def a_record(
    offset: int, value: object, *, key: bytes = KEY.encode(), more: tuple[tuple[str, bytes], ...] = ()
) -> Record:
    encoded = None if value is None else json.dumps(value).encode()
    return Record(DOCUMENTS.name, 0, offset, datetime(2026, 1, 1, tzinfo=UTC), key, encoded, more)


def folded(*records: Record, ordering: Ordering = Ordering.LOG) -> Fold:
    fold = Fold(orderings={("default", "default"): ordering}, epoch=0)
    for record in records:
        fold.add(record, home=0)
    return fold


def served(**changes: int | bool) -> ServedDocument:
    values = {
        "deleted": False, "applied_revision": 1, "failed_revision": -1, "visible_passages": 2, "manifest_passages": 2,
        "repeated_passages": 0,
    }  # fmt: skip
    return ServedDocument(**{**values, **changes})  # type: ignore[arg-type]


def kinds(logged: LoggedDocument, found: ServedDocument | None) -> list[str]:
    return [drift.kind for drift in compare_documents({KEY: logged}, {} if found is None else {KEY: found})]


def test_the_last_record_of_a_document_wins() -> None:
    fold = folded(a_record(1, {"text": "one"}), a_record(5, {"text": "two"}))
    assert fold.documents[KEY].upserted == revision_of(0, 5)
    assert fold.documents[KEY].is_live


def test_a_deletion_and_a_new_creation_are_folded_in_order() -> None:
    assert not folded(a_record(1, {"text": "one"}), a_record(2, None)).documents[KEY].is_live
    assert folded(a_record(1, None), a_record(2, {"text": "one"})).documents[KEY].is_live


def test_in_source_order_the_highest_version_wins_whatever_the_arrival() -> None:
    fold = folded(
        a_record(1, {"text": "new", "source_version": 9}),
        a_record(2, {"change": "delete", "source_version": 8}),
        ordering=Ordering.SOURCE,
    )
    assert fold.documents[KEY].upserted == 9
    assert fold.documents[KEY].is_live


def test_records_that_the_pipeline_passes_over_change_nothing() -> None:
    fold = folded(
        a_record(1, {"text": "one"}),
        a_record(2, None, more=((headers.NEUTRALISED, b"1"),)),
        a_record(3, {"text": 7}),
        a_record(4, {"text": "x"}, key=b"no-slashes"),
    )
    fold.add(a_record(5, None), home=1)
    assert fold.documents == {KEY: LoggedDocument(upserted=1)}


def test_a_document_served_at_the_revision_of_the_log_is_no_drift() -> None:
    assert kinds(LoggedDocument(upserted=1), served()) == []
    assert kinds(LoggedDocument(upserted=1, deleted=3), served(visible_passages=0)) == []
    assert kinds(LoggedDocument(deleted=3), None) == []


def test_every_way_to_differ_has_a_name() -> None:
    assert kinds(LoggedDocument(upserted=1), None) == ["not-received"]
    assert kinds(LoggedDocument(upserted=2), served()) == ["not-applied"]
    assert kinds(LoggedDocument(upserted=1), served(deleted=True)) == ["not-applied"]
    assert kinds(LoggedDocument(upserted=1, deleted=2), served()) == ["deleted-but-visible"]
    assert kinds(LoggedDocument(upserted=1), served(visible_passages=1)) == ["torn-manifest"]
    assert kinds(LoggedDocument(upserted=1), served(repeated_passages=1)) == ["repeated-passage"]
    assert [drift.kind for drift in compare_documents({}, {KEY: served()})] == ["not-in-log"]


def test_a_listed_failure_is_no_drift() -> None:
    assert kinds(LoggedDocument(upserted=2), served(failed_revision=2)) == []
    assert in_step({KEY: LoggedDocument(upserted=2)}, {KEY: served(failed_revision=2)}) == (1, 0, 1)


def test_points_are_compared_both_ways() -> None:
    found = compare_points({ONE: True, TWO: False}, {TWO: False, THREE: True})
    assert [(drift.kind, drift.subject) for drift in found] == [
        ("missing-point", str(ONE)),
        ("orphan-point", str(THREE)),
    ]
    assert list(compare_points({}, {THREE: True}, garbage={THREE})) == []
    assert [drift.kind for drift in compare_points({ONE: True}, {ONE: False})] == ["missing-vector"]


def test_what_differs_once_only_was_on_its_way() -> None:
    passing, staying = Drift("not-applied", "a", "…"), Drift("orphan-point", "b", "…")
    assert lasting([[passing, staying], [staying], [passing, staying]]) == [staying]
