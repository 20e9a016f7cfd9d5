"""Which records of the log fill a generation, and as what they go down the bulk lane."""

import json
from datetime import UTC, datetime

from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from schemas.pipeline import Lane
from schemas.topics import BULK
from streams.backfill import forwarded, places
from streams.errors import UnreadableDocument
from streams.generations import BackfillItem
from streams.outcomes import failed
from streams.records import Record

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = DocumentKey("default", "notes", "a/b.md")


def a_record(key: bytes | None = KEY.encode(), value: bytes | None = b'{"text": "x"}', offset: int = 7) -> Record:
    return Record("leat.documents.v1", 2, offset, NOW, key, value)


def an_item(**changes: object) -> BackfillItem:
    given = {
        "key": KEY,
        "revision": 7,
        "partition": 2,
        "offset": 7,
        "access_level": AccessLevel.RESTRICTED,
        "allowed_groups": ("board",),
    }
    return BackfillItem(**{**given, **changes})  # type: ignore[arg-type]


def test_only_records_with_content_of_the_collection_are_looked_at() -> None:
    records = [
        a_record(),
        a_record(key=b"default/notes2/a.md"),
        a_record(key=b"other/notes/a.md"),
        a_record(value=None),
        a_record(key=None),
        a_record(key=b"default/notes/"),
    ]
    assert places(records, tenant="default", collection="notes") == [(KEY, 2, 7)]


def test_records_under_another_spelling_of_the_key_are_passed_over() -> None:
    decomposed = "default/notes/cafe\u0301.md".encode()
    assert places([a_record(key=decomposed)], tenant="default", collection="notes") == []


def test_a_forwarded_record_has_the_access_in_force_and_goes_to_the_generation_alone() -> None:
    event = forwarded(a_record(), an_item(), epoch=3, generation_ids=(9,))
    assert event is not None
    assert (event.changed.access_level, event.changed.allowed_groups) == (AccessLevel.RESTRICTED, ("board",))
    assert (event.generation_ids, event.revision, event.origin.epoch) == ((9,), 7, 3)
    assert event.origin.lane is Lane.BULK


def test_a_record_without_text_is_not_forwarded() -> None:
    for value in (b'{"change": "delete"}', b"{broken", b'{"change": "access", "access_level": "public"}'):
        assert forwarded(a_record(value=value), an_item(), epoch=0, generation_ids=None) is None


def test_failure_while_a_generation_is_filled_is_no_outcome_of_the_change() -> None:
    error = UnreadableDocument("empty-document", "there is nothing in it")
    for generation_ids, has_outcome in (((9,), False), (None, True)):
        event = forwarded(a_record(), an_item(), epoch=0, generation_ids=generation_ids)
        assert event is not None
        value = json.dumps(event.model_dump(mode="json", exclude_none=True)).encode()
        record = Record(BULK.name, 2, 0, NOW, KEY.encode(), value)
        assert (failed(record, error, revision=7, epoch=0, at=NOW) is not None) == has_outcome
