"""Opaque positions: where in the log a change was accepted."""

import base64
import json
from typing import NamedTuple, Self

from schemas.documents import DocumentKey

# A revision is ``epoch << 48 | offset``: 2**48 records per partition and 2**15 restarts of the log fit a signed
# 64-bit number.
_OFFSET_BITS = 48


def revision_of(epoch: int, offset: int) -> int:
    """The revision of a record in a collection with ordering ``log``; grows per document, also over a recreated
    topic.
    """
    return epoch << _OFFSET_BITS | offset


class Position(NamedTuple):
    """Where a document's change stands in the log. Opaque to clients: they only hand it back."""

    epoch: int
    partition: int
    offset: int
    key: DocumentKey | None = None

    def encode(self) -> str:
        """URL-safe text without padding."""
        raw = json.dumps([self.epoch, self.partition, self.offset, self.key and str(self.key)], separators=(",", ":"))
        return base64.urlsafe_b64encode(raw.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what ``encode`` wrote. Raises ``ValueError`` on anything else."""
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            epoch, partition, offset, key = json.loads(raw)
            if not all(isinstance(n, int) and 0 <= n < 2**48 for n in (epoch, partition, offset)):
                raise ValueError("a number is out of range")
            return cls(epoch, partition, offset, None if key is None else DocumentKey.parse(key.encode()))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a position of this log: {text[:100]!r}") from error

    @property
    def revision(self) -> int:
        """The revision of the change in a collection with ordering ``log``."""
        return revision_of(self.epoch, self.offset)
