"""The public outcome of a change: applied, superseded or failed. Every event has exactly one."""

import json
from datetime import datetime

from pydantic import ValidationError

from schemas.documents import Change, DocumentKey
from schemas.pipeline import BulkForwarded, DocumentChunked, DocumentEmbedded, IndexCommitted, Origin, Outcome
from schemas.positions import revision_of
from schemas.topics import BULK, CHUNKS, CHUNKS_BULK, DOCUMENTS, EMBEDDINGS, EMBEDDINGS_BULK
from streams.errors import PermanentError
from streams.records import Record
from streams.storable import storable_text


def applied_at_once(key: DocumentKey, change: Change, *, revision: int, origin: Origin, at: datetime) -> IndexCommitted:
    """The change took effect in the fold already; there is nothing to index."""
    return IndexCommitted(
        key=key,
        outcome=Outcome.APPLIED,
        change=change,
        revision=revision,
        event_id=origin.event_id,
        origin=origin,
        committed_at=at,
    )


def superseded(
    key: DocumentKey, change: Change, *, revision: int, origin: Origin, by: int, at: datetime
) -> IndexCommitted:
    """A newer change of the document is known; this one has no effect."""
    return IndexCommitted(
        key=key,
        outcome=Outcome.SUPERSEDED,
        change=change,
        revision=revision,
        event_id=origin.event_id,
        origin=origin,
        reason="newer-change-known",
        detail=f"revision {by} is newer",
        committed_at=at,
    )


def failed(
    record: Record, error: PermanentError, *, revision: int | None, epoch: int, at: datetime
) -> IndexCommitted | None:
    """The outcome of a record that goes to the dead letters; None when it does not say which document it is about."""
    subject = _subject(record, epoch)
    if subject is None:
        return None
    key, change, origin, found_revision, generation_id = subject
    return IndexCommitted(
        key=key,
        outcome=Outcome.FAILED,
        change=change,
        revision=found_revision if revision is None else revision,
        generation_id=generation_id,
        event_id=origin.event_id,
        origin=origin,
        reason=error.reason,
        detail=error.detail,
        committed_at=at,
    )


_EVENT_OF: dict[str, type[BulkForwarded] | type[DocumentChunked] | type[DocumentEmbedded]] = {
    BULK.name: BulkForwarded,
    CHUNKS.name: DocumentChunked,
    CHUNKS_BULK.name: DocumentChunked,
    EMBEDDINGS.name: DocumentEmbedded,
    EMBEDDINGS_BULK.name: DocumentEmbedded,
}


_Subject = tuple[DocumentKey, Change | None, Origin, int, int | None]
"""Key, change, origin, revision and, of what was derived for one generation, its id."""


def _subject(record: Record, epoch: int) -> _Subject | None:
    """Which document a record is about, as far as it can be read."""
    if record.topic == DOCUMENTS.name:
        return _document_subject(record, epoch)
    event_type = _EVENT_OF.get(record.topic)
    if event_type is None:
        return None
    try:
        event = event_type.model_validate_json(record.value or b"")
    except ValidationError:
        return None
    if isinstance(event, BulkForwarded) and event.generation_ids is not None:
        return None  # only a generation in the making lacks it; the change itself had its outcome long ago
    generation_id = None if isinstance(event, BulkForwarded) else event.generation_id
    return event.key, None, event.origin, event.revision, generation_id


def _document_subject(record: Record, epoch: int) -> _Subject | None:
    try:
        key = DocumentKey.parse(record.key or b"")
    except ValueError:
        return None
    origin = Origin(
        epoch=epoch,
        partition=record.partition,
        offset=record.offset,
        event_id=_event_id(record) or record.name,
        accepted_at=record.accepted_at,
    )
    return key, None, origin, revision_of(epoch, record.offset), None


def _event_id(record: Record) -> str | None:
    """The producer's event id in a record that may be anything."""
    if name := record.header("ce_id"):
        return storable_text(name)
    try:
        fields = json.loads((record.value or b"").lstrip(b"\x00"))
    except (ValueError, RecursionError):
        return None
    found = fields.get("event_id", fields.get("id")) if isinstance(fields, dict) else None
    return storable_text(found) if isinstance(found, str) and found else None
