"""What every event and API model has in common."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _to_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("needs a time zone, for example 2026-01-31T12:00:00Z")
    return value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_to_utc)]
"""An aware instant, kept in UTC."""


class Event(BaseModel):
    """A fact inside a Kafka record. Unknown fields are ignored, so an old consumer reads a newer producer's event."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")


class ApiModel(BaseModel):
    """A body of the HTTP API. Unknown fields are refused: a misspelt option must not be silently without effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")
