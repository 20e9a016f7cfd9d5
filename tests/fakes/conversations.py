"""Conversations and remembered answers in memory."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from schemas.access import Principal
from schemas.answers import Answer, QuestionAsked
from streams.follow_up import cited
from streams.model import CitedRevision, ConversationSummary, DeletedConversations, Turn
from tests.fakes.stores import InMemoryAnswerStore, World


@dataclass
class KeptConversation:
    title: str
    created_at: datetime
    updated_at: datetime
    turns: dict[str, tuple[Turn, list[CitedRevision]]] = field(default_factory=dict)
    deleted_at: datetime | None = None


class InMemoryConversationStore:
    def __init__(self, world: World, answers: InMemoryAnswerStore) -> None:
        self._world = world
        self._answers = answers
        self._conversations: dict[tuple[str, str, str], KeptConversation] = {}

    async def turns(self, principal: Principal, conversation_id: str, *, limit: int = 100) -> list[Turn]:
        kept = self._conversations.get((principal.tenant, principal.subject, conversation_id))
        if kept is None:
            return []
        newest = sorted(kept.turns.values(), key=lambda pair: (pair[0].asked_at, pair[0].question_id))[-limit:]
        return [
            turn if all(self._world.still_readable(principal, *one) for one in seen) else replace(turn, answer=None)
            for turn, seen in newest
        ]

    async def add(self, question: QuestionAsked, answer: Answer) -> None:
        if question.conversation_id is None:
            return
        place = (question.principal.tenant, question.principal.subject, question.conversation_id)
        kept = self._conversations.get(place)
        if kept is not None and kept.deleted_at is not None:
            if kept.deleted_at >= question.asked_at:
                return
            kept = None
        kept = kept or KeptConversation(question.query[:200], question.asked_at, question.asked_at)
        self._conversations[place] = kept
        kept.updated_at = max(kept.updated_at, question.asked_at)
        standalone = answer.standalone_query or question.query
        turn = Turn(question.question_id, question.query, standalone, answer.answer, answer.answered, question.asked_at)
        kept.turns.setdefault(question.question_id, (turn, cited(question, answer)))

    async def find(self, principal: Principal, conversation_id: str) -> ConversationSummary | None:
        found = await self.list_conversations(principal)
        return next((one for one in found if one.conversation_id == conversation_id), None)

    async def list_conversations(
        self, principal: Principal, *, before: ConversationSummary | None = None, limit: int = 100
    ) -> list[ConversationSummary]:
        mine = [
            ConversationSummary(name, kept.title, len(kept.turns), kept.created_at, kept.updated_at)
            for (tenant, subject, name), kept in self._conversations.items()
            if (tenant, subject) == (principal.tenant, principal.subject) and kept.deleted_at is None
        ]
        mine.sort(key=_by_use, reverse=True)
        return [one for one in mine if before is None or _by_use(one) < _by_use(before)][:limit]

    async def delete(self, principal: Principal, conversation_id: str | None) -> DeletedConversations:
        deleted, question_ids = 0, []
        for (tenant, subject, name), kept in self._conversations.items():
            mine = (tenant, subject) == (principal.tenant, principal.subject) and conversation_id in (None, name)
            if mine and kept.deleted_at is None:
                for question_id in kept.turns:
                    self._answers.forget(tenant, question_id)
                    question_ids.append(question_id)
                kept.turns.clear()
                kept.title, kept.deleted_at = "", datetime.now(UTC)
                deleted += 1
        return DeletedConversations(deleted, tuple(question_ids))


def _by_use(summary: ConversationSummary) -> tuple[datetime, str]:
    return summary.updated_at, summary.conversation_id


class InMemoryAnswerCache:
    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.found = 0

    async def get(self, key: str) -> Answer | None:
        self.found += key in self.answers
        return self.answers.get(key)

    async def put(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
