"""Read a dead letter: which record it was, why it is there."""

from datetime import datetime

from schemas import headers
from schemas.pipeline import Lane
from schemas.topics import BULK
from streams.model import DeadLetter
from streams.records import Record


def letter_of(record: Record) -> DeadLetter:
    """A record of the dead-letter topic, as people look at it. Never fails: what is not there is shown as unknown."""
    revision = record.header(headers.DEAD_REVISION)
    topic = record.header(headers.DEAD_TOPIC) or "unknown"
    return DeadLetter(
        letter_id=f"{record.partition}-{record.offset}",
        key=record.key,
        reason=record.header(headers.DEAD_REASON) or "unknown",
        detail=record.header(headers.DEAD_DETAIL) or "",
        stage=record.header(headers.DEAD_STAGE) or "unknown",
        attempts=_integer(record.header(headers.DEAD_ATTEMPTS)),
        topic=topic,
        partition=_integer(record.header(headers.DEAD_PARTITION)),
        offset=_integer(record.header(headers.DEAD_OFFSET)),
        group=record.header(headers.DEAD_GROUP) or "unknown",
        died_at=_instant(record.header(headers.DEAD_AT), record.accepted_at),
        revision=None if revision is None else _integer(revision),
        event_id=record.header(headers.DEAD_EVENT_ID),
        lane=Lane.BULK if topic == BULK.name else Lane.INTERACTIVE,
        value=record.value,
    )


def _integer(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _instant(text: str | None, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return otherwise
