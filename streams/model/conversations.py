"""Conversations, turn by turn."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from schemas.documents import DocumentKey


class CitedRevision(NamedTuple):
    """A document as an answer has seen it."""

    key: DocumentKey
    revision: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation, and what was answered."""

    question_id: str
    query: str
    standalone: str
    """The question as it was understood with the earlier turns."""
    answer: str | None
    """None: it cites documents that are deleted by now, or that the asker may no longer read."""
    answered: bool
    asked_at: datetime


class DeletedConversations(NamedTuple):
    conversations: int
    question_ids: tuple[str, ...]
    """The questions that were in them."""


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    conversation_id: str
    title: str
    turns: int
    created_at: datetime
    updated_at: datetime
