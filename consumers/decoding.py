"""Read events of our own topics out of a batch; a record that is none is a failure of that record alone."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError

from consumers.delivery import Failure
from schemas.base import Event
from streams.errors import InvalidRecord
from streams.records import Record

EventT = TypeVar("EventT", bound=Event)


def decoded(records: Sequence[Record], event_type: type[EventT]) -> tuple[list[tuple[Record, EventT]], list[Failure]]:
    """The events of a batch with their records, and the records that hold none."""
    events: list[tuple[Record, EventT]] = []
    failures: list[Failure] = []
    for record in records:
        try:
            events.append((record, event_type.model_validate_json(record.value or b"")))
        except ValidationError as error:
            failures.append(Failure(record, InvalidRecord("schema-mismatch", str(error))))
    return events, failures
