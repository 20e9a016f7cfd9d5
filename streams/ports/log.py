"""The log: publishing changes and questions, reading single records back."""

from collections.abc import Sequence
from typing import Protocol

from schemas.answers import QuestionAsked
from schemas.documents import DocumentChanged, DocumentKey
from schemas.positions import Position
from streams.records import Record


class ChangeLog(Protocol):
    """Publishes document changes; a change is accepted when this returns."""

    async def publish(self, key: DocumentKey, change: DocumentChanged | None, *, bulk: bool = False) -> Position:
        """Append to the documents topic with ``acks=all``. None is a bare tombstone."""
        ...

    async def publish_many(
        self, changes: Sequence[tuple[DocumentKey, DocumentChanged]], *, bulk: bool = False
    ) -> list[Position]: ...


class LogReader(Protocol):
    """Reads single records back."""

    async def read(self, topic: str, partition: int, offset: int) -> Record | None:
        """The record at that position; None when retention or compaction has removed it."""
        ...


class QuestionLog(Protocol):
    async def ask(self, question: QuestionAsked) -> None: ...
