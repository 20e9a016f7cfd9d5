"""What documents said before, for as long as their collection keeps it."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from schemas.access import Principal
from schemas.positions import Position
from streams.model import ChangedPassages, HydratedPassage, PastPassage, Reach


class History(Protocol):
    """Texts as they were, under the rights of now: nothing of a document that is deleted, or forbidden to the asker."""

    async def reach(self, tenant: str, collection: str, at: datetime) -> Reach | None:
        """How far back the collection can be looked at; None: there is no such collection."""
        ...

    async def accepted_at(self, tenant: str, position: Position) -> datetime | None:
        """When the change at a position was accepted; None where that is not known any more."""
        ...

    async def current_then(
        self, principal: Principal, generation_id: int, at: datetime, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        """Those live passages whose document has not changed since."""
        ...

    async def excerpt(
        self,
        principal: Principal,
        collection: str,
        document_id: str,
        revision: int,
        *,
        start: int,
        end: int,
        context: int,
    ) -> list[HydratedPassage]:
        """Passages of one superseded revision, as ``DocumentDirectory.excerpt`` gives those of the present one.

        None where the window does not reach that revision any more.
        """
        ...

    def past(self, principal: Principal, collection: str, at: datetime) -> AsyncIterator[list[PastPassage]]:
        """Passages of the revisions that were current then and are not any more, in batches."""
        ...

    def changed(
        self, principal: Principal, collection: str, generation_id: int, since: datetime
    ) -> AsyncIterator[ChangedPassages]:
        """Per document that has changed since: passages that it had then and has not now, and the other way round."""
        ...
