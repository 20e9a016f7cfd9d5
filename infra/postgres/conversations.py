"""Conversations of users: owned state, in PostgreSQL alone."""

from typing import Any

from infra.postgres.pool import Pool, Row
from infra.postgres.still_readable import lost, reader
from schemas.access import Principal
from schemas.answers import Answer, QuestionAsked
from streams.follow_up import cited
from streams.model import ConversationSummary, DeletedConversations, Turn

TITLE_CHARS = 200

# $1 subject, $2 to $5 the reader, $6 conversation, $7 limit.
_TURNS = f"""
select * from (
    select t.question_id, t.query, t.standalone, t.answer, t.answered, t.asked_at,
           not exists (select {lost("t.cited")}) as readable
    from conversation_turns t
    where t.tenant = $2 and t.subject = $1 and t.conversation_id = $6
    order by t.asked_at desc, t.question_id desc
    limit $7
) newest
order by asked_at, question_id
"""  # noqa: S608 - made of constants
_BEGIN = """
insert into conversations as c (tenant, subject, conversation_id, title, created_at, updated_at)
values ($1, $2, $3, $4, $5, $5)
on conflict (tenant, subject, conversation_id) do update
set title = case when c.deleted_at is null then c.title else excluded.title end,
    created_at = case when c.deleted_at is null then c.created_at else excluded.created_at end,
    updated_at = greatest(c.updated_at, excluded.updated_at),
    deleted_at = null
where c.deleted_at is null or c.deleted_at < excluded.created_at
returning true
"""
_ADD = """
insert into conversation_turns
    (tenant, subject, conversation_id, question_id, query, standalone, answer, answered, cited, asked_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict do nothing
"""
_LIST = """
select c.conversation_id, c.title, c.created_at, c.updated_at,
       (select count(*) from conversation_turns t
        where (t.tenant, t.subject, t.conversation_id) = (c.tenant, c.subject, c.conversation_id)) as turns
from conversations c
where c.tenant = $1 and c.subject = $2 and c.deleted_at is null
"""
_ONE = _LIST + " and c.conversation_id = $3"
_PAGE = (
    _LIST
    + """
  and ($3::timestamptz is null or (c.updated_at, c.conversation_id) < ($3, $4))
order by c.updated_at desc, c.conversation_id desc
limit $5
"""
)
# The stored answers hold the questions too.
_DELETE_ANSWERS = """
delete from answers a using conversation_turns t
where t.tenant = $1 and t.subject = $2 and ($3::text is null or t.conversation_id = $3)
  and a.question_id = t.question_id and a.tenant = t.tenant
"""
_DELETE_TURNS = """
delete from conversation_turns where tenant = $1 and subject = $2 and ($3::text is null or conversation_id = $3)
returning question_id
"""
_DELETE = """
update conversations set title = '', deleted_at = clock_timestamp()
where tenant = $1 and subject = $2 and ($3::text is null or conversation_id = $3) and deleted_at is null
returning true
"""


class PostgresConversationStore:
    """``ConversationStore``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def turns(self, principal: Principal, conversation_id: str, *, limit: int = 100) -> list[Turn]:
        rows = await self._pool.fetch(
            _TURNS,
            principal.subject,
            *reader(principal),
            conversation_id,
            limit,
        )
        return [_turn(row) for row in rows]

    async def add(self, question: QuestionAsked, answer: Answer) -> None:
        if question.conversation_id is None:
            return
        place = (question.principal.tenant, question.principal.subject, question.conversation_id)
        async with self._pool.transaction() as connection:
            if not await connection.fetchval(_BEGIN, *place, question.query[:TITLE_CHARS], question.asked_at):
                return
            await connection.execute(
                _ADD,
                *place,
                question.question_id,
                question.query,
                answer.standalone_query or question.query,
                answer.answer,
                answer.answered,
                [_seen(key.collection, key.document_id, revision) for key, revision in cited(question, answer)],
                question.asked_at,
            )

    async def find(self, principal: Principal, conversation_id: str) -> ConversationSummary | None:
        row = await self._pool.fetchrow(_ONE, principal.tenant, principal.subject, conversation_id)
        return None if row is None else _summary(row)

    async def list_conversations(
        self, principal: Principal, *, before: ConversationSummary | None = None, limit: int = 100
    ) -> list[ConversationSummary]:
        behind = (None, "") if before is None else (before.updated_at, before.conversation_id)
        rows = await self._pool.fetch(_PAGE, principal.tenant, principal.subject, *behind, limit)
        return [_summary(row) for row in rows]

    async def delete(self, principal: Principal, conversation_id: str | None) -> DeletedConversations:
        what = (principal.tenant, principal.subject, conversation_id)
        async with self._pool.transaction() as connection:
            # First: locks out a turn that is being added.
            deleted = await connection.fetch(_DELETE, *what)
            await connection.execute(_DELETE_ANSWERS, *what)
            turns = await connection.fetch(_DELETE_TURNS, *what)
        return DeletedConversations(len(deleted), tuple(row["question_id"] for row in turns))


def _seen(collection: str, document_id: str, revision: int) -> dict[str, Any]:
    return {"collection": collection, "document_id": document_id, "revision": revision}


def _turn(row: Row) -> Turn:
    return Turn(
        question_id=row["question_id"],
        query=row["query"],
        standalone=row["standalone"],
        answer=row["answer"] if row["readable"] else None,
        answered=row["answered"],
        asked_at=row["asked_at"],
    )


def _summary(row: Row) -> ConversationSummary:
    return ConversationSummary(
        conversation_id=row["conversation_id"],
        title=row["title"],
        turns=row["turns"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
