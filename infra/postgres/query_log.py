"""The query log: a projection of the questions and answers topics, for analytics."""

from collections.abc import Sequence
from typing import Any

from infra.postgres.pool import Pool
from schemas.answers import AnswerCompleted, AnswerFailed, QuestionAsked

# As long as the topics keep what it is made from.
KEPT_DAYS = 90

# Whichever comes second joins the two. A second time changes nothing.
_ASKED = """
with asked as (
    insert into questions_asked (question_id, tenant, subject, collection, query, asked_at)
    values ($1, $2, $3, $4, $5, $6)
    on conflict do nothing
)
update query_log set collection = $4, query = $5, asked_at = $6 where question_id = $1 and asked_at is null
"""
_ENDED = """
insert into query_log (question_id, finished_at, tenant, subject, outcome, reason, took_ms, confidence, generation,
                       behind_ms, sources, degraded, collection, query, asked_at)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, q.collection, q.query, q.asked_at
from (select) nothing left join questions_asked q on q.question_id = $1
where not exists (select from query_log where question_id = $1)
on conflict do nothing
"""


class PostgresQueryLog:
    """``QueryLog``. Every write is idempotent: the first ending of a question is the one that counts."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def log_questions(self, questions: Sequence[QuestionAsked]) -> None:
        await self._pool.executemany(_ASKED, [_question_row(question) for question in questions])

    async def log_endings(self, endings: Sequence[AnswerCompleted | AnswerFailed]) -> None:
        await self._pool.executemany(_ENDED, [_ending_row(ending) for ending in endings])

    async def clear(self) -> int:
        """Drop all of it, to be rebuilt; returns how many rows there were."""
        async with self._pool.transaction() as connection:
            count = await connection.fetchval("select count(*) from query_log")
            await connection.execute("truncate query_log, questions_asked")
        return int(count)

    async def forget_old(self) -> None:
        """What the topics do not hold any more either."""
        for table, column in (("query_log", "finished_at"), ("questions_asked", "asked_at")):
            statement = f"delete from {table} where {column} < clock_timestamp() - make_interval(days => $1)"  # noqa: S608
            await self._pool.execute(statement, KEPT_DAYS)


def _question_row(question: QuestionAsked) -> tuple[Any, ...]:
    return (
        question.question_id,
        question.principal.tenant,
        question.principal.subject,
        question.options.collection,
        question.query,
        question.asked_at,
    )


def _ending_row(ending: AnswerCompleted | AnswerFailed) -> tuple[Any, ...]:
    who = (ending.principal.tenant, ending.principal.subject)
    if isinstance(ending, AnswerFailed):
        nothing_known = (None, None, None, None, 0, False)
        return (ending.question_id, ending.failed_at, *who, "failed", ending.reason, *nothing_known)
    answer = ending.answer
    return (
        ending.question_id,
        ending.completed_at,
        *who,
        "answered" if answer.answered else "unanswered",
        answer.degraded_reason,
        answer.took_ms,
        answer.confidence,
        answer.generation,
        answer.behind_ms,
        len(answer.sources),
        answer.degraded,
    )
