"""Looking at what is there: documents, status, dead letters, as people may see them."""

from collections.abc import Mapping
from typing import Any, Protocol

from schemas.access import Principal
from schemas.positions import Position
from streams.model import DeadLetter, DocumentRecord, DocumentStage, HydratedPassage, WaitState


class DocumentDirectory(Protocol):
    """Documents as their readers may know them: state, paging, waiting for a change."""

    async def get(self, principal: Principal, collection: str, document_id: str) -> DocumentRecord | None:
        """None also when the principal may not read the document."""
        ...

    async def list_documents(
        self,
        principal: Principal,
        collection: str,
        *,
        after: str | None = None,
        limit: int = 100,
        stage: DocumentStage | None = None,
        newest_first: bool = False,
    ) -> list[DocumentRecord]:
        """Documents by id behind ``after``; or the newest changes, ``after`` ignored.

        Deleted ones only if asked for.
        """
        ...

    async def wait_state(self, position: Position) -> WaitState:
        """What has become of the change at a position, looked at once."""
        ...

    async def excerpt(
        self, principal: Principal, collection: str, document_id: str, *, start: int, end: int, context: int
    ) -> list[HydratedPassage]:
        """Live passages of a document that touch the range widened by ``context`` code points, in reading order."""
        ...


class StatusBoard(Protocol):
    async def status(self, tenant: str) -> Mapping[str, Any]:
        """As ``leat status --json``."""
        ...


class DeadLetterDesk(Protocol):
    """Dead letters for people: listed, looked at, sent back."""

    async def list_dead_letters(
        self,
        *,
        include_resolved: bool = False,
        reason: str | None = None,
        tenant: str | None = None,
        collection: str | None = None,
        before: DeadLetter | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Newest first, without their values."""
        ...

    async def get(self, letter_id: str) -> DeadLetter | None: ...

    async def value(self, letter_id: str) -> bytes | None:
        """The original bytes.

        Raises:
            NotFound: retention has removed the letter.
        """
        ...

    async def replay(self, letter_id: str) -> None:
        """Ask the pipeline to process the record again, under its old revision.

        Raises:
            NotFound: retention has removed the letter.
        """
        ...
