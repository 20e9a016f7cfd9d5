"""Whoever wrote a document record: it is read, or refused with a reason."""

import json
from datetime import UTC, datetime

import pytest

from schemas import headers
from schemas.documents import Change, DocumentKey
from schemas.pipeline import Lane
from streams.decode import decode, is_neutralised
from streams.errors import InvalidRecord
from streams.records import Record


def a_record(value: object = None, key: bytes | None = b"default/docs/a.md", **header: bytes | None) -> Record:
    body = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    named = tuple((name.replace("__", "-"), content) for name, content in header.items())
    return Record("leat.documents.v1", 2, 7, datetime(2026, 1, 1, tzinfo=UTC), key, body, named)


def test_smallest_event_is_an_upsert_with_the_records_name_as_event_id() -> None:
    incoming = decode(a_record({"text": "hello"}))
    assert incoming.key == DocumentKey("default", "docs", "a.md")
    assert (incoming.changed.change, incoming.changed.text) == (Change.UPSERT, "hello")
    assert incoming.event_id == "leat.documents.v1/2/7"
    assert not incoming.misnamed


def test_null_value_deletes() -> None:
    assert decode(a_record(None)).changed.change is Change.DELETE


def test_tombstone_that_clears_a_stray_copy_is_not_a_deletion() -> None:
    assert is_neutralised(a_record(None, leat__neutralised=b"1"))
    assert not is_neutralised(a_record(None))


def test_confluent_frame_is_looked_through() -> None:
    framed = b"\x00\x00\x00\x00\x2a" + json.dumps({"text": "framed"}).encode()
    assert decode(a_record(framed)).changed.text == "framed"


def test_cloud_event_in_structured_mode() -> None:
    event = {
        "specversion": "1.0", "id": "e-1", "source": "/wiki", "type": "leat.document.changed", "subject": "page/1",
        "collection": "wiki", "sourceversion": 12, "data": {"text": "from the wiki"},
    }  # fmt: skip
    incoming = decode(a_record(event, key=None))
    assert incoming.key == DocumentKey("default", "wiki", "page/1")
    assert (incoming.event_id, incoming.source_version, incoming.changed.text) == ("e-1", 12, "from the wiki")


def test_cloud_event_in_binary_mode_may_carry_the_document_itself() -> None:
    record = a_record(
        b"# Tea\n", key=None, ce_specversion=b"1.0", ce_id=b"e-2", ce_subject=b"tea.md", ce_type=b"doc.changed",
        content__type=b"text/markdown",
    )  # fmt: skip
    changed = decode(record).changed
    assert (changed.text, changed.content_type) == ("# Tea\n", "text/markdown")


def test_cloud_event_with_bytes_that_are_no_text_keeps_them() -> None:
    record = a_record(
        b"%PDF\xff\xfe", ce_specversion=b"1.0", ce_id=b"e", ce_type=b"t", content__type=b"application/pdf"
    )
    assert decode(record).changed.content_base64 == b"%PDF\xff\xfe"


def test_cloud_event_of_a_deletion_needs_no_data() -> None:
    event = {"specversion": "1.0", "id": "e-3", "type": "leat.document.deleted", "subject": "gone.md"}
    assert decode(a_record(event)).changed.change is Change.DELETE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{not json", "not-json"),
        (b"", "not-json"),
        ([1, 2], "schema-mismatch"),
        ({"text": "x", "version": 2}, "unknown-version"),
        ({"change": "upsert"}, "schema-mismatch"),
        ({"change": "rename", "text": "x"}, "schema-mismatch"),
        ({"text": "x", "access_level": "secret"}, "schema-mismatch"),
        ({"text": "x", "occurred_at": "2026-01-01T00:00:00"}, "schema-mismatch"),
        (b"[" * 100_000, "not-json"),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(value: object, reason: str) -> None:
    with pytest.raises(InvalidRecord) as refused:
        decode(a_record(value))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "key", [None, b"", b"docs", b"default/docs", b"default/docs/", b"Default/docs/x", b"a/b/c\x00d"]
)
def test_record_that_names_no_document_is_refused(key: bytes | None) -> None:
    with pytest.raises(InvalidRecord) as refused:
        decode(a_record({"text": "x"}, key=key))
    assert refused.value.reason == "invalid-key"


def test_key_that_is_not_utf8_is_percent_encoded_and_misnamed() -> None:
    incoming = decode(a_record({"text": "x"}, key=b"default/docs/caf\xe9.md"))
    assert incoming.key.document_id == "caf%E9.md"
    assert incoming.misnamed


def test_decomposed_key_is_the_same_document_as_the_composed_one() -> None:
    decomposed = decode(a_record({"text": "x"}, key="default/docs/cafe\u0301".encode()))
    assert decomposed.key == DocumentKey("default", "docs", "caf\u00e9")
    assert decomposed.misnamed


def test_broken_headers_do_not_matter() -> None:
    record = a_record({"text": "x"}, traceparent=None, other=b"\xff\xfe", leat__lane=b"\xff")
    assert decode(record).lane is Lane.INTERACTIVE


def test_only_upserts_wait_in_the_bulk_lane() -> None:
    assert decode(a_record({"text": "x"}, leat__lane=b"bulk")).lane is Lane.BULK
    assert decode(a_record(None, leat__lane=b"bulk")).lane is Lane.INTERACTIVE
    assert headers.LANE == "leat-lane"


@pytest.mark.parametrize(
    "value",
    [
        b'{"text": "half a pair \\ud800"}',
        b'{"text": "x", "title": "a\\u0000b"}',
        b'{"text": "x", "metadata": {"deep": [{"er": "\\u0000"}]}}',
        b'{"text": "x", "metadata": {"\\ud800": 1}}',
        b'{"text": "x", "event_id": "e\\u0000"}',
        b'{"text": "x", "allowed_groups": ["g\\u0000"]}',
    ],
)
def test_characters_that_no_store_takes_are_refused_before_they_reach_one(value: bytes) -> None:
    with pytest.raises(InvalidRecord) as refused:
        decode(a_record(value))
    assert refused.value.reason == "schema-mismatch"
    refused.value.detail.encode()


def test_parsed_text_with_such_characters_keeps_its_offsets() -> None:
    from streams.model import Block, ParsedDocument
    from streams.storable import storable_document

    parsed = ParsedDocument("a\x00b \ud800 c", (Block(0, 7, ("h\x00",)),), "t\x00", {"k": ["\x00"]})
    clean = storable_document(parsed)
    assert (len(clean.text), clean.title, clean.metadata) == (7, "t\ufffd", {"k": ["\ufffd"]})
    assert clean.blocks[0].heading_path == ("h\ufffd",)
    clean.text.encode()
