"""Documents that are to be forgotten altogether, and what the tables hold of them."""

from collections.abc import Mapping, Sequence

from infra.postgres.pool import Connection, Pool, Row, affected
from schemas.documents import DocumentKey
from streams.erasure import Erasure
from streams.model import Ordering

_REQUEST = """
insert into erasures as e (tenant, collection, document_id, requested_by, content_hashes)
select $1, $2, $3, $4, coalesce(array_agg(distinct held.content_hash), '{}')
from (
    select p.content_hash from documents d join passages p using (document_key)
    where d.tenant = $1 and d.collection = $2 and d.document_id = $3
    union all
    select t.content_hash from documents d join past_texts t using (document_key)
    where d.tenant = $1 and d.collection = $2 and d.document_id = $3
) held
on conflict (tenant, collection, document_id) do update set
    requested_by = excluded.requested_by, requested_at = excluded.requested_at, done_at = null, removed = '{}',
    epoch = null, partition = null, record_offset = null,
    content_hashes = (select array_agg(distinct h) from unnest(e.content_hashes || excluded.content_hashes) h)
returning *
"""
# The deletion has been folded in, and no generation holds a passage from before it any more.
_TAKEN_EFFECT = """
select exists (
    select from documents where tenant = $1 and collection = $2 and document_id = $3
      and (epoch, record_offset) >= ($4, $5)
) and not exists (
    select from documents d join manifests m using (document_key) join passages p using (generation_id, document_key)
    where d.tenant = $1 and d.collection = $2 and d.document_id = $3 and m.applied_revision <= d.invisible_upto
)
"""
_VECTORS = """
delete from vector_cache v
where v.tenant = $1 and v.content_hash = any($2::bytea[])
  and not exists (
    select from passages p join documents d using (document_key)
    where d.tenant = $1 and p.content_hash = v.content_hash)
  and not exists (
    select from past_texts t join documents d using (document_key)
    where d.tenant = $1 and t.content_hash = v.content_hash)
"""
_ANSWERS = """
delete from answers
where tenant = $1 and answer -> 'sources' @> jsonb_build_array(jsonb_build_object('collection', $2::text,
                                                                                 'document_id', $3::text))
returning question_id
"""
_TURNS = """
delete from conversation_turns
where tenant = $1 and cited @> jsonb_build_array(jsonb_build_object('collection', $2::text, 'document_id', $3::text))
returning question_id
"""
_PAST_REVISIONS = """
delete from past_revisions r using documents d
where r.document_key = d.document_key and d.tenant = $1 and d.collection = $2 and d.document_id = $3
"""
_PAST_TEXTS = """
delete from past_texts t using documents d
where t.document_key = d.document_key and d.tenant = $1 and d.collection = $2 and d.document_id = $3
"""


class PostgresErasures:
    """``ErasureDesk`` and ``ErasureStore``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def request(self, key: DocumentKey, *, by: str) -> Erasure:
        row = await self._pool.fetchrow(_REQUEST, *key, by)
        assert row is not None
        return _erasure_of(row)

    async def find(self, key: DocumentKey) -> Erasure | None:
        row = await self._pool.fetchrow(
            "select * from erasures where tenant = $1 and collection = $2 and document_id = $3", *key
        )
        return None if row is None else _erasure_of(row)

    async def open_erasures(self, *, limit: int) -> Sequence[Erasure]:
        rows = await self._pool.fetch(
            "select * from erasures where done_at is null order by requested_at limit $1", limit
        )
        return [_erasure_of(row) for row in rows]

    async def ordering_of(self, key: DocumentKey) -> tuple[Ordering, int]:
        row = await self._pool.fetchrow(
            "select c.ordering, d.revision from collections c left join documents d"
            " on d.tenant = c.tenant and d.collection = c.collection and d.document_id = $3"
            " where c.tenant = $1 and c.collection = $2",
            *key,
        )
        if row is None:
            return Ordering.LOG, -1
        return Ordering(row["ordering"]), -1 if row["revision"] is None else row["revision"]

    async def published(self, erasure: Erasure, *, epoch: int, partition: int, offset: int) -> None:
        await self._pool.execute(
            "update erasures set epoch = $5, partition = $6, record_offset = $7"
            " where tenant = $1 and collection = $2 and document_id = $3 and requested_at = $4",
            *erasure.key,
            erasure.requested_at,
            epoch,
            partition,
            offset,
        )

    async def has_taken_effect(self, erasure: Erasure) -> bool:
        if erasure.position is None:
            return False
        epoch, _, offset = erasure.position
        return bool(await self._pool.fetchval(_TAKEN_EFFECT, *erasure.key, epoch, offset))

    async def remove(self, erasure: Erasure) -> tuple[Mapping[str, int], Sequence[str]]:
        key = erasure.key
        async with self._pool.transaction() as connection:
            removed = {
                "past_revisions": await _delete(connection, _PAST_REVISIONS, key),
                "past_texts": await _delete(connection, _PAST_TEXTS, key),
                "vectors": affected(await connection.execute(_VECTORS, key.tenant, erasure.content_hashes)),
                "dead_letters": await _delete(
                    connection,
                    "delete from dead_letters where tenant = $1 and collection = $2 and document_id = $3",
                    key,
                ),
            }
            answered = await connection.fetch(_ANSWERS, *key)
            turns = await connection.fetch(_TURNS, *key)
            await connection.execute(
                "update outcomes set detail = null where tenant = $1 and collection = $2 and document_id = $3", *key
            )
        removed |= {"answers": len(answered), "conversation_turns": len(turns)}
        return removed, sorted({row["question_id"] for row in (*answered, *turns)})

    async def finish(self, erasure: Erasure, removed: Mapping[str, int]) -> None:
        """Unless it was asked for once more meanwhile."""
        await self._pool.execute(
            "update erasures set done_at = clock_timestamp(), removed = $5, content_hashes = '{}'"
            " where tenant = $1 and collection = $2 and document_id = $3 and requested_at = $4",
            *erasure.key,
            erasure.requested_at,
            dict(removed),
        )


async def _delete(connection: Connection, statement: str, key: DocumentKey) -> int:
    return affected(await connection.execute(statement, *key))


def _erasure_of(row: Row) -> Erasure:
    place = (row["epoch"], row["partition"], row["record_offset"])
    return Erasure(
        key=DocumentKey(row["tenant"], row["collection"], row["document_id"]),
        requested_by=row["requested_by"],
        requested_at=row["requested_at"],
        content_hashes=row["content_hashes"],
        position=None if row["record_offset"] is None else place,
        removed=row["removed"],
        done_at=row["done_at"],
    )
