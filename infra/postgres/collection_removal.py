"""What the tables hold of a collection, for whoever removes it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from infra.postgres.catalog import GENERATION, generation_of
from infra.postgres.pool import Pool
from schemas.documents import DocumentKey
from streams.collection_removal import LoggedDocument
from streams.model import Generation, Ordering

DOCUMENTS_AT_ONCE = 1_000

_DOCUMENTS = """
select d.document_id, d.partition, d.revision, c.ordering
from documents d join collections c using (tenant, collection)
where d.tenant = $1 and d.collection = $2 and not d.deleted and ($3::text is null or d.document_id > $3)
order by d.document_id limit $4
"""
# Twice is once. What was created after the removal was asked for is another collection of that name.
_END = """
insert into collection_ends as e (tenant, collection, partition, epoch, ends_at)
select $1, $2, partition, $3, ends_at from unnest($4::integer[], $5::bigint[]) as at (partition, ends_at)
on conflict (tenant, collection, partition) do update set
    epoch = excluded.epoch, ends_at = excluded.ends_at, ended_at = excluded.ended_at
where (e.epoch, e.ends_at) < (excluded.epoch, excluded.ends_at)
"""
_RETIRE = """
update generations set state = 'retired', retired_at = clock_timestamp(),
    served_until = case when state = 'serving' then clock_timestamp() else served_until end
where tenant = $1 and collection = $2 and created_at <= $3 and state <> 'retired'
"""
_REMOVE_COLLECTION = "delete from collections where tenant = $1 and collection = $2 and created_at <= $3"

# Documents whose newest record stands before the end; a newer one makes it a document of another collection.
_REMOVE_DOCUMENTS = """
delete from documents where document_key in (
    select d.document_key
    from documents d join collection_ends e using (tenant, collection, partition)
    where d.tenant = $1 and d.collection = $2 and (d.epoch, d.record_offset) < (e.epoch, e.ends_at)
      and not exists (select from manifests m where m.document_key = d.document_key)
    limit $3)
"""
_REMOVE_OUTCOMES = """
delete from outcomes o using collection_ends e
where o.tenant = $1 and o.collection = $2 and (e.tenant, e.collection, e.partition) = ($1, $2, o.partition)
  and (o.epoch, o.record_offset) < (e.epoch, e.ends_at)
"""
_ENDED_AT = "(select max(ended_at) from collection_ends where tenant = $1 and collection = $2)"
_OF_IT = "collection = $2"
_REMOVED = {
    "dead_letters": f"{_OF_IT} and died_at <= {_ENDED_AT}",
    "answers": f"{_OF_IT} and asked_at <= {_ENDED_AT}",
    "conversation_turns": f"cited @> jsonb_build_array(jsonb_build_object('collection', $2::text))"
    f" and asked_at <= {_ENDED_AT}",
    # Whoever watches a folder for it publishes all of it again when the watcher starts.
    "watched_files": _OF_IT,
    "withheld_deletions": _OF_IT,
    "unreadable_files": _OF_IT,
}
_REMOVE_JOBS = "delete from jobs where tenant = $1 and collection = $2 and created_at < $3 and finished_at is not null"


class PostgresCollectionRemoval:
    """``CollectionRemoval``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def documents(self, tenant: str, collection: str, *, after: str | None) -> Sequence[LoggedDocument]:
        rows = await self._pool.fetch(_DOCUMENTS, tenant, collection, after, DOCUMENTS_AT_ONCE)
        return [
            LoggedDocument(
                DocumentKey(tenant, collection, row["document_id"]),
                row["partition"],
                row["revision"],
                Ordering(row["ordering"]),
            )
            for row in rows
        ]

    async def end(
        self, tenant: str, collection: str, *, asked_at: datetime, epoch: int, ends: Mapping[int, int]
    ) -> None:
        async with self._pool.transaction() as connection:
            await connection.execute(_END, tenant, collection, epoch, list(ends), list(ends.values()))
            await connection.execute(_RETIRE, tenant, collection, asked_at)
            await connection.execute(_REMOVE_COLLECTION, tenant, collection, asked_at)

    async def generations(self, tenant: str, collection: str, *, asked_at: datetime) -> Sequence[Generation]:
        rows = await self._pool.fetch(
            f"{GENERATION} where g.tenant = $1 and g.collection = $2 and g.created_at <= $3 order by g.number",
            tenant,
            collection,
            asked_at,
        )
        return [generation_of(row) for row in rows]

    async def remove(self, tenant: str, collection: str, *, asked_at: datetime) -> Mapping[str, int]:
        removed = {"documents": 0}
        while gone := await self._pool.execute(_REMOVE_DOCUMENTS, tenant, collection, DOCUMENTS_AT_ONCE):
            removed["documents"] += gone
        removed["outcomes"] = await self._pool.execute(_REMOVE_OUTCOMES, tenant, collection)
        for table, condition in _REMOVED.items():
            statement = f"delete from {table} where tenant = $1 and {condition}"  # noqa: S608 - made of constants
            removed[table] = await self._pool.execute(statement, tenant, collection)
        removed["jobs"] = await self._pool.execute(_REMOVE_JOBS, tenant, collection, asked_at)
        return removed
