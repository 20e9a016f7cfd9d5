"""Follow a retry pointer to the record that is to be processed again."""

import base64
import json

from pydantic import Field, ValidationError

from schemas import headers
from schemas.base import Event
from schemas.pipeline import BulkForwarded, DocumentChunked, DocumentEmbedded
from schemas.topics import BULK, DEAD_LETTERS, DOCUMENTS
from streams.errors import InvalidRecord
from streams.ports import LogReader
from streams.records import Record


class RetryRequested(Event):
    """The value of a record in ``leat.retries.v1``: which dead letter to try again."""

    version: int = 1
    letter_partition: int = Field(ge=0)
    letter_offset: int = Field(ge=0)


async def original_record(pointer: Record, *, log_reader: LogReader) -> Record:
    """The record behind a pointer, with its original position, key, value and headers.

    A letter from a later stage leads back to the document record: what was derived from it is derived again.

    Raises:
        InvalidRecord: ``not-a-pointer``, ``dead-letter-expired`` or ``record-expired``. Retrying cannot help.
    """
    try:
        wanted = RetryRequested.model_validate_json(pointer.value or b"")
    except ValidationError as error:
        raise InvalidRecord("not-a-pointer", f"want letter_partition and letter_offset: {error}") from error
    letter = await log_reader.read(DEAD_LETTERS.name, wanted.letter_partition, wanted.letter_offset)
    if letter is None:
        raise InvalidRecord("dead-letter-expired", "retention has removed the dead letter: publish the document again")
    original = original_of(letter)
    if original.topic in (DOCUMENTS.name, BULK.name):
        return original
    return await _document_record(original, log_reader)


def original_of(letter: Record) -> Record:
    """The record as it was before it became a dead letter.

    Raises:
        InvalidRecord: ``not-a-dead-letter``, the headers that say where it came from are missing.
    """
    try:
        return Record(
            topic=letter.header(headers.DEAD_TOPIC) or "",
            partition=int(letter.header(headers.DEAD_PARTITION) or ""),
            offset=int(letter.header(headers.DEAD_OFFSET) or ""),
            accepted_at=letter.accepted_at,
            key=letter.key,
            value=letter.value,
            headers=_original_headers(letter.header(headers.DEAD_ORIGINAL_HEADERS) or "[]"),
        )
    except ValueError as error:
        raise InvalidRecord("not-a-dead-letter", f"its headers do not say where it came from: {error}") from error


def _original_headers(encoded: str) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, None if value is None else base64.b64decode(value)) for name, value in json.loads(encoded))


async def _document_record(derived: Record, log_reader: LogReader) -> Record:
    for event_type in (DocumentChunked, DocumentEmbedded, BulkForwarded):
        try:
            origin = event_type.model_validate_json(derived.value or b"").origin
        except ValidationError:
            continue
        found = await log_reader.read(DOCUMENTS.name, origin.partition, origin.offset)
        if found is not None:
            return found
        raise InvalidRecord("record-expired", "compaction has removed the document record: a newer change replaced it")
    raise InvalidRecord("not-a-pointer", f"a dead letter of {derived.topic} that names no document record")
