"""A Kafka record as plain values: nothing in it is trusted to be well-formed."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Record:
    """Bytes from a topic and where they came from. Headers keep their order, repetitions and null values."""

    topic: str
    """Without the installation's prefix."""
    partition: int
    offset: int
    accepted_at: datetime
    """The broker's clock for topics with ``LogAppendTime``, else the producer's."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = field(default=())

    @property
    def name(self) -> str:
        """``topic/partition/offset``: the record's own idempotency key."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    def header(self, name: str) -> str | None:
        """The last header of that name (any case) as text; None when missing, null or not UTF-8."""
        wanted = name.lower()
        for header, value in reversed(self.headers):
            if header.lower() == wanted:
                try:
                    return None if value is None else value.decode()
                except UnicodeDecodeError:
                    return None
        return None
