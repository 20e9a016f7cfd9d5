"""The headers of a dead letter: where the record came from and why it is there."""

import base64
import json
from datetime import datetime

from schemas import headers
from streams.records import Record

# Kafka counts headers into a record's size; a longer detail is cut so that the letter always fits.
_MAX_DETAIL_CHARS = 2000
_MAX_ORIGINAL_HEADERS_CHARS = 32_000


def dead_letter_headers(
    record: Record,
    *,
    reason: str,
    detail: str,
    stage: str,
    group: str,
    attempts: int,
    died_at: datetime,
    revision: int | None = None,
    event_id: str | None = None,
) -> dict[str, str]:
    """Headers under the names of ``schemas.headers``, as text; the original headers are kept byte for byte."""
    original = json.dumps(
        [[name, None if value is None else base64.b64encode(value).decode()] for name, value in record.headers]
    )
    found = {
        headers.DEAD_REASON: reason,
        headers.DEAD_DETAIL: detail[:_MAX_DETAIL_CHARS],
        headers.DEAD_STAGE: stage,
        headers.DEAD_ATTEMPTS: str(attempts),
        headers.DEAD_TOPIC: record.topic,
        headers.DEAD_PARTITION: str(record.partition),
        headers.DEAD_OFFSET: str(record.offset),
        headers.DEAD_GROUP: group,
        headers.DEAD_AT: died_at.isoformat(),
        headers.DEAD_ORIGINAL_HEADERS: original if len(original) <= _MAX_ORIGINAL_HEADERS_CHARS else "[]",
    }
    if revision is not None:
        found[headers.DEAD_REVISION] = str(revision)
    found[headers.DEAD_EVENT_ID] = event_id or record.name
    return found
