"""Answers: finished ones, those on their way to readers, and the conversations they belong to."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.access import Principal
from schemas.answers import Answer, Passage, QuestionAsked
from streams.model import ConversationSummary, DeletedConversations, Turn


class AnswerStore(Protocol):
    """Finished answers by question id, and who may read them."""

    async def save(self, question: QuestionAsked, answer: Answer, attempt: int) -> None:
        """Store the answer unless one is stored already."""
        ...

    async def save_failure(self, question: QuestionAsked, reason: str, detail: str, attempt: int) -> None: ...

    async def find(self, principal: Principal, question_id: str) -> "StoredAnswer | None":
        """How a question of the principal's tenant ended, without what the principal may no longer read.

        Who asked it is for the caller to compare.
        """
        ...

    async def lost(self, principal: Principal, sources: Sequence[Passage]) -> frozenset[int]:
        """The citation numbers of passages whose document has been deleted since, or may no longer be read."""
        ...


class StoredAnswer(Protocol):
    @property
    def subject(self) -> str: ...
    @property
    def state(self) -> str:
        """``done`` or ``failed``."""
        ...

    @property
    def answer(self) -> Answer | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def detail(self) -> str | None: ...
    @property
    def complete(self) -> bool:
        """False: something is left out of the answer, since it may no longer be read."""
        ...


class ConversationStore(Protocol):
    """Conversations of users: owned state. A user's conversations are visible to that user alone."""

    async def turns(self, principal: Principal, conversation_id: str, *, limit: int = 100) -> list[Turn]:
        """The newest ``limit`` turns, in the order in which they were asked."""
        ...

    async def add(self, question: QuestionAsked, answer: Answer) -> None:
        """Keep a turn. Begins the conversation with its first turn; not if it was deleted after the question."""
        ...

    async def find(self, principal: Principal, conversation_id: str) -> ConversationSummary | None: ...

    async def list_conversations(
        self, principal: Principal, *, before: ConversationSummary | None = None, limit: int = 100
    ) -> list[ConversationSummary]:
        """The most recently used first."""
        ...

    async def delete(self, principal: Principal, conversation_id: str | None) -> DeletedConversations:
        """Delete one conversation, or all of the user's, and the stored answers in them."""
        ...


class AnswerCache(Protocol):
    """Answers by everything that decides them, for a few minutes."""

    async def get(self, key: str) -> Answer | None: ...

    async def put(self, key: str, answer: Answer) -> None: ...


class Asker(NamedTuple):
    """Who asked a question that may still be unanswered."""

    tenant: str
    subject: str
    deadline_at: datetime


class AnswerStream(Protocol):
    """The tokens of an answer on their way to readers, in a Redis Stream per question.

    Entries have the id ``attempt-seq``; the stream refuses ids that do not grow, so a worker whose question was taken
    over can no longer write. The same id is the SSE ``id``, so ``Last-Event-ID`` resumes at it.
    """

    async def begin(self, question_id: str, owner: str) -> int:
        """Start a new attempt: 1, 2, …"""
        ...

    async def append(self, question_id: str, attempt: int, seq: int, events: Sequence[tuple[str, str]]) -> None:
        """Append (event name, JSON data) pairs under ``attempt-seq``, ``attempt-(seq+1)`` …

        Raises:
            StaleAttempt: a newer attempt has written.
        """
        ...

    def read(self, question_id: str, *, after: str | None) -> AsyncGenerator[tuple[str, str, str], None]:
        """(id, event name, JSON data) behind ``after``, live, until a terminal event. None: from the beginning.

        A reader counts as present (see ``attended``) while the iterator is open.

        Raises:
            StreamLost: what follows ``after`` is no longer in the buffer.
            Unavailable: the buffer has not answered for some seconds.
            ValueError: ``after`` is not an id of a stream.
        """
        ...

    async def announce(self, question: QuestionAsked) -> None:
        """Remember who asks, so that others may not read along before there is a stored answer."""
        ...

    async def asker(self, question_id: str) -> "Asker | None":
        """Who asked; None when the question is not known, or was forgotten."""
        ...

    async def exists(self, question_id: str) -> bool: ...

    async def forget(self, question_ids: Sequence[str]) -> None:
        """Drop streams, and who asked."""
        ...

    async def stop(self, question_id: str) -> None:
        """Ask the worker to stop generating."""
        ...

    async def stop_requested(self, question_id: str) -> bool: ...

    async def attended(self, question_id: str) -> bool:
        """Whether any reader, in any process, has the stream open now."""
        ...
