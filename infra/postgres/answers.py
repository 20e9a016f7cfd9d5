"""Finished answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.postgres.pool import Pool
from infra.postgres.still_readable import lost, reader
from schemas.access import Principal
from schemas.answers import Answer, Passage, QuestionAsked
from streams.withhold import without

_SAVE = """
insert into answers (question_id, tenant, subject, collection, query, state, attempt, answer, reason, detail, asked_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict do nothing
"""
_FIND = f"""
select a.subject, a.state, a.answer, a.reason, a.detail,
       array(select seen.citation {lost("a.answer -> 'sources'")}) as lost
from answers a
where a.question_id = $1 and a.tenant = $2
"""  # noqa: S608 - made of constants
_LOST = f"select seen.citation {lost('$1::jsonb')}"

_SEEN = {"citation", "collection", "document_id", "revision"}


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """``StoredAnswer``: how a question ended."""

    subject: str
    state: str
    answer: Answer | None
    reason: str | None
    detail: str | None
    complete: bool = True


class PostgresAnswerStore:
    """``AnswerStore``. The first ending of a question is the one that counts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def save(self, question: QuestionAsked, answer: Answer, attempt: int) -> None:
        await self._save(question, "done", attempt, answer.model_dump(mode="json"), None, None)

    async def save_failure(self, question: QuestionAsked, reason: str, detail: str, attempt: int) -> None:
        await self._save(question, "failed", attempt, None, reason, detail)

    async def find(self, principal: Principal, question_id: str) -> SavedAnswer | None:
        row = await self._pool.fetchrow(_FIND, question_id, *reader(principal))
        if row is None:
            return None
        answer = None if row["answer"] is None else without(Answer.model_validate(row["answer"]), row["lost"])
        return SavedAnswer(row["subject"], row["state"], answer, row["reason"], row["detail"], not row["lost"])

    async def lost(self, principal: Principal, sources: Sequence[Passage]) -> frozenset[int]:
        if not sources:
            return frozenset()
        seen = [passage.model_dump(mode="json", include=_SEEN) for passage in sources]
        rows = await self._pool.fetch(_LOST, seen, *reader(principal))
        return frozenset(row["citation"] for row in rows)

    async def _save(
        self,
        question: QuestionAsked,
        state: str,
        attempt: int,
        answer: dict[str, Any] | None,
        reason: str | None,
        detail: str | None,
    ) -> None:
        await self._pool.execute(
            _SAVE,
            question.question_id,
            question.principal.tenant,
            question.principal.subject,
            question.options.collection,
            question.query,
            state,
            attempt,
            answer,
            reason,
            detail,
            question.asked_at,
        )
