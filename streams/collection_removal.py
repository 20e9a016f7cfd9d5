"""Remove a collection so that nothing brings it back: neither a replay, nor what is still on its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from schemas.documents import DocumentKey
from streams.model import Generation, Ordering


@dataclass(frozen=True, slots=True)
class LoggedDocument:
    """A document that the log holds, and what a deletion of it must say."""

    key: DocumentKey
    partition: int
    revision: int
    ordering: Ordering


class CollectionRemoval(Protocol):
    """What the tables hold of a collection. ``asked_at``: what was created later is another one of that name."""

    async def documents(self, tenant: str, collection: str, *, after: str | None) -> Sequence[LoggedDocument]:
        """Those that are not deleted, by id, behind ``after``; none: that was all."""
        ...

    async def end(
        self, tenant: str, collection: str, *, asked_at: datetime, epoch: int, ends: Mapping[int, int]
    ) -> None:
        """From now on the collection is gone, and so is what the log says of it before these offsets. Twice is once."""
        ...

    async def generations(self, tenant: str, collection: str, *, asked_at: datetime) -> Sequence[Generation]: ...

    async def remove(self, tenant: str, collection: str, *, asked_at: datetime) -> Mapping[str, int]:
        """Remove its documents and all that was noted about them; how much of what."""
        ...
