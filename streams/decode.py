"""Read a record of ``leat.documents.v1``, whoever wrote it and in whichever of the accepted shapes.

Shapes: the event as JSON; the same behind Confluent's five-byte frame; CloudEvents 1.0 in structured and binary mode;
a null value, which deletes the document.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas import headers
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.pipeline import Lane
from streams.errors import InvalidRecord
from streams.records import Record
from streams.storable import storable_text, unstorable

# Magic byte 0 and a 32-bit schema id in front of the JSON: what Confluent's JSON serializers write.
_CONFLUENT_FRAME_BYTES = 5
_DELETED_SUFFIXES = (".deleted", ".delete", ".removed")
_DEFAULT_NAME = "default"


@dataclass(frozen=True, slots=True)
class IncomingChange:
    """A decoded document record."""

    key: DocumentKey
    changed: DocumentChanged
    event_id: str
    lane: Lane
    source_version: int | None
    """Of the event, or of the CloudEvents extension ``sourceversion``."""
    misnamed: bool
    """The record's key is not the document's canonical key: compaction would keep it apart."""


def is_neutralised(record: Record) -> bool:
    """Whether the record only clears a misrouted copy from its partition."""
    return record.value is None and record.header(headers.NEUTRALISED) is not None


def decode(record: Record) -> IncomingChange:
    """Read a document record.

    Raises:
        InvalidRecord: with reason ``invalid-key``, ``not-json``, ``unknown-version`` or ``schema-mismatch``.
            Retrying cannot help.
    """
    attributes, body = _unwrap(record)
    key = _key(record, attributes)
    changed = DocumentChanged(change=Change.DELETE) if body is None else _event(body)
    version = changed.source_version
    if version is None and "sourceversion" in attributes:
        version = _integer(attributes["sourceversion"])
    return IncomingChange(
        key=key,
        changed=changed,
        # A record that was sent home answers under the position at which its producer knows it.
        event_id=changed.event_id or attributes.get("id") or record.header(headers.ORIGIN) or record.name,
        # A deletion or a change of access never waits behind a load.
        lane=Lane.BULK
        if record.header(headers.LANE) == Lane.BULK and changed.change is Change.UPSERT
        else Lane.INTERACTIVE,
        source_version=version,
        misnamed=record.key != key.encode(),
    )


def _key(record: Record, attributes: dict[str, str]) -> DocumentKey:
    try:
        if record.key:
            return DocumentKey.parse(record.key)
        if subject := attributes.get("subject"):
            tenant = attributes.get("tenant", _DEFAULT_NAME)
            return DocumentKey.of(tenant, attributes.get("collection", _DEFAULT_NAME), subject)
    except ValueError as error:
        raise InvalidRecord("invalid-key", str(error)) from error
    raise InvalidRecord("invalid-key", "the record has no key: want tenant/collection/document_id")


def _unwrap(record: Record) -> tuple[dict[str, str], dict[str, Any] | None]:
    """CloudEvents attributes (empty for plain events) and the event's fields (None: a deletion)."""
    attributes = _binary_mode_attributes(record)
    if record.value is None:
        return attributes, None
    if attributes and not _is_json(record.header(headers.CONTENT_TYPE)):
        return attributes, _from_cloud_event(attributes, record.value, record.header(headers.CONTENT_TYPE))
    fields = _json_object(record.value)
    if "specversion" in fields:
        attributes = {
            storable_text(name): storable_text(str(value))
            for name, value in fields.items()
            if name not in ("data", "data_base64")
        }
        data = fields.get("data_base64", fields.get("data"))
        media_type = attributes.get("datacontenttype")
        return attributes, _from_cloud_event(attributes, data, media_type, encoded="data_base64" in fields)
    if attributes:
        return attributes, _from_cloud_event(attributes, fields, None)
    return attributes, fields


def _binary_mode_attributes(record: Record) -> dict[str, str]:
    found = {}
    for name, value in record.headers:
        if name.lower().startswith("ce_") and value is not None:
            found[name[3:].lower()] = storable_text(value.decode(errors="replace"))
    return found if "specversion" in found else {}


def _from_cloud_event(
    attributes: dict[str, str], data: Any, media_type: str | None, *, encoded: bool = False
) -> dict[str, Any] | None:
    """The fields of a ``DocumentChanged``: ``data`` is one already, or it is the document's content itself."""
    if attributes.get("type", "").lower().endswith(_DELETED_SUFFIXES):
        return None
    if isinstance(data, dict):
        return data
    if data is None:
        raise InvalidRecord(
            "schema-mismatch", "a CloudEvent without data; for a deletion use a type ending in .deleted"
        )
    content: dict[str, Any] = {"content_type": media_type}
    if encoded:
        return content | {"content_base64": data}
    if isinstance(data, bytes):
        try:
            return content | {"text": data.decode()}
        except UnicodeDecodeError:
            return content | {"content_base64": base64.b64encode(data)}
    return content | {"text": data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}


def _is_json(media_type: str | None) -> bool:
    kind = (media_type or "application/json").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _json_object(value: bytes) -> dict[str, Any]:
    if value[:1] == b"\x00" and len(value) > _CONFLUENT_FRAME_BYTES:
        value = value[_CONFLUENT_FRAME_BYTES:]
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError) as error:
        detail = f"the value is not JSON ({error}); want a DocumentChanged, see `leat schema events`"
        raise InvalidRecord("not-json", detail) from error
    if not isinstance(fields, dict):
        raise InvalidRecord("schema-mismatch", f"the value is a JSON {type(fields).__name__}, want an object")
    return fields


def _event(fields: dict[str, Any]) -> DocumentChanged:
    version = fields.get("version", 1)
    if version != 1:
        detail = f"version {version!r} of DocumentChanged; this installation reads version 1: upgrade it first"
        raise InvalidRecord("unknown-version", detail)
    for where in unstorable(fields):
        # The parser answers for a text with NUL: it is no text.
        if where != "text" or "\x00" not in fields["text"]:
            raise InvalidRecord("schema-mismatch", f"{storable_text(where)}: NUL or half a surrogate pair is no text")
    try:
        return DocumentChanged.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the event"
        raise InvalidRecord("schema-mismatch", f"{where}: {first['msg']}") from error


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidRecord("schema-mismatch", f"sourceversion {text!r} is not a whole number") from error
