"""What documents said before: read under the rights of now, and forgotten in time."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from infra.postgres.passages import BY_POINT, passage_of, scope_of
from infra.postgres.pool import Pool, Row
from schemas.access import Principal
from schemas.documents import DocumentKey
from schemas.positions import Position
from streams.model import ChangedPassages, HydratedPassage, PastPassage, Reach

# Rows per batch, and documents per batch: some megabytes of text.
BATCH = 2_000
DOCUMENTS_AT_ONCE = 100
# A document that changes every second would fill the disk with its past: so many revisions, then the oldest go.
MAX_REVISIONS = 1_000

# Past passages are in no index: their ids only tell them apart.
_NAMESPACE = UUID("8d0a5a4e-6a55-5a0c-9f57-7d1f5c7b6a10")

# Null where nothing is kept.
_BACK_TO = """
case when c.history_days > 0
     then greatest(c.history_since, clock_timestamp() - make_interval(days => c.history_days)) end
"""
_REACH = f"""
select {_BACK_TO} as back_to,
       (select count(*) from documents d
        where d.tenant = c.tenant and d.collection = c.collection and not d.deleted
          and d.history_since > $3) as incomplete
from collections c where c.tenant = $1 and c.collection = $2
"""  # noqa: S608 - made of constants
_ACCEPTED_AT = """
select coalesce(
    (select accepted_at from outcomes where (epoch, partition, record_offset) = ($2, $3, $4) and tenant = $1),
    (select m.accepted_at from manifests m join documents d using (document_key)
     where d.tenant = $1 and (m.epoch, m.partition, m.record_offset) = ($2, $3, $4) limit 1))
"""
# $1 tenant, $2 clearance, $3 groups, $4 every group, $5 collection.
_READABLE_NOW = """
d.tenant = $1 and d.collection = $5 and not d.deleted and d.access_level <= $2
and ($4 or d.allowed_groups = '{}' or d.allowed_groups && $3::text[])
"""
_PASSAGE = """
d.tenant, d.collection, d.document_id, d.document_key, d.access_level, r.revision as applied_revision, r.title, r.url,
r.metadata, r.current_from as accepted_at, n::integer - 1 as ordinal, listed.start_offset, listed.end_offset,
listed.page, t.content_hash, t.text, t.heading_path, t.tokens, true as embedded
"""
_LISTED = """
cross join lateral unnest(r.content_hashes, r.starts, r.ends, r.pages) with ordinality
    as listed (content_hash, start_offset, end_offset, page, n)
join past_texts t on t.document_key = r.document_key and t.content_hash = listed.content_hash
"""
# $6 at, $7 and $8 where to go on, $9 at most.
_PAST = f"""
select {_PASSAGE}
from past_revisions r join documents d using (document_key) {_LISTED}
where {_READABLE_NOW} and r.revision > d.invisible_upto and r.current_from <= $6 and r.current_until > $6
  and (r.document_key, n) > ($7, $8)
order by r.document_key, n limit $9
"""  # noqa: S608
# $6 document, $7 revision, $8 and $9 the range. A document that nothing serves is one of a collection that is being
# removed, whose name may be another collection's by now.
_EXCERPT = f"""
select {_PASSAGE}
from past_revisions r join documents d using (document_key) join collections c using (tenant, collection) {_LISTED}
where {_READABLE_NOW} and d.document_id = $6 and r.revision = $7 and r.revision > d.invisible_upto
  and r.current_until > {_BACK_TO}
  and exists (
    select from manifests m join generations g using (generation_id)
    where m.document_key = r.document_key and g.tenant = d.tenant and g.collection = d.collection
      and g.state = 'serving')
  and listed.start_offset < $9 and listed.end_offset > $8
order by n
"""  # noqa: S608
# $6 generation, $7 since.
_CHANGED = f"""
select d.document_key, d.document_id, m.accepted_at
from manifests m join documents d using (document_key)
where {_READABLE_NOW} and m.generation_id = $6 and m.accepted_at > $7 and m.applied_revision > d.invisible_upto
order by d.document_id
"""  # noqa: S608
# $6 generation, $7 since, $8 documents.
_GONE = f"""
select {_PASSAGE}
from past_revisions r join documents d using (document_key) {_LISTED}
where {_READABLE_NOW} and r.document_key = any($8::bigint[]) and r.revision > d.invisible_upto
  and r.current_from <= $7 and r.current_until > $7
  and not exists (
    select from passages p
    where p.generation_id = $6 and p.document_key = r.document_key and p.content_hash = listed.content_hash)
order by r.document_key, n
"""  # noqa: S608
_COME = f"""
select d.tenant, d.collection, d.document_id, d.document_key, d.access_level, m.applied_revision, m.title, m.url,
       m.metadata, m.accepted_at, p.point_id, p.ordinal, p.start_offset, p.end_offset, p.page, p.content_hash, p.text,
       p.heading_path, p.tokens, p.embedded
from passages p
join manifests m using (generation_id, document_key)
join documents d using (document_key)
where {_READABLE_NOW} and p.generation_id = $6 and p.document_key = any($8::bigint[])
  and m.applied_revision > d.invisible_upto
  and not exists (
    select from past_revisions r
    where r.document_key = p.document_key and r.current_from <= $7 and r.current_until > $7
      and p.content_hash = any(r.content_hashes))
order by p.document_key, p.ordinal
"""  # noqa: S608

_FORGET = """
delete from past_revisions where (document_key, revision) in (
    select r.document_key, r.revision
    from past_revisions r join documents d using (document_key) left join collections c using (tenant, collection)
    where d.deleted or r.revision <= d.invisible_upto
       or r.current_until < clock_timestamp() - make_interval(days => coalesce(c.history_days, 0))
    limit $1)
returning document_key
"""
_CROWDED = """
select document_key from past_revisions group by document_key having count(*) > $1 limit 100
"""
_THIN = """
with oldest as (
    select revision, current_until from past_revisions where document_key = $1 order by revision desc offset $2
), gone as (
    delete from past_revisions r using oldest where r.document_key = $1 and r.revision = oldest.revision
)
update documents set history_since = (select max(current_until) from oldest)
where document_key = $1 and exists (select from oldest)
"""
_FORGET_TEXTS = """
delete from past_texts t
where t.document_key = any($1::bigint[]) and not exists (
    select from past_revisions r where r.document_key = t.document_key and t.content_hash = any(r.content_hashes))
"""


class PostgresHistory:
    """``History``, and what keeps it bounded. It is written by a trigger: see ``0012_history.sql``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reach(self, tenant: str, collection: str, at: datetime) -> Reach | None:
        row = await self._pool.fetchrow(_REACH, tenant, collection, at)
        return None if row is None else Reach(row["back_to"], row["incomplete"])

    async def accepted_at(self, tenant: str, position: Position) -> datetime | None:
        found: datetime | None = await self._pool.fetchval(
            _ACCEPTED_AT, tenant, position.epoch, position.partition, position.offset
        )
        return found

    async def current_then(
        self, principal: Principal, generation_id: int, at: datetime, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        if not point_ids:
            return {}
        rows = await self._pool.fetch(
            f"{BY_POINT} and m.accepted_at <= $7", *scope_of(principal, generation_id), point_ids, at
        )
        return {row["point_id"]: passage_of(row) for row in rows}

    async def excerpt(
        self,
        principal: Principal,
        collection: str,
        document_id: str,
        revision: int,
        *,
        start: int,
        end: int,
        context: int,
    ) -> list[HydratedPassage]:
        given = (*_rights(principal, collection), document_id, revision, start - context, end + context)
        return [_past_passage(row).passage for row in await self._pool.fetch(_EXCERPT, *given)]

    async def past(self, principal: Principal, collection: str, at: datetime) -> AsyncIterator[list[PastPassage]]:
        behind = (-1, 0)
        while True:
            rows = await self._pool.fetch(_PAST, *_rights(principal, collection), at, *behind, BATCH)
            if rows:
                yield [_past_passage(row) for row in rows]
            if len(rows) < BATCH:
                return
            behind = (rows[-1]["document_key"], rows[-1]["ordinal"] + 1)

    async def changed(
        self, principal: Principal, collection: str, generation_id: int, since: datetime
    ) -> AsyncIterator[ChangedPassages]:
        given = (*_rights(principal, collection), generation_id, since)
        documents = await self._pool.fetch(_CHANGED, *given)
        for begin in range(0, len(documents), DOCUMENTS_AT_ONCE):
            batch = documents[begin : begin + DOCUMENTS_AT_ONCE]
            keys = [row["document_key"] for row in batch]
            gone = _by_document(await self._pool.fetch(_GONE, *given, keys))
            come = _by_document(await self._pool.fetch(_COME, *given, keys))
            for row in batch:
                of_it = row["document_key"]
                if gone[of_it] or come[of_it]:
                    key = DocumentKey(principal.tenant, collection, row["document_id"])
                    yield ChangedPassages(key, row["accepted_at"], tuple(gone[of_it]), tuple(come[of_it]))

    async def forget_old(self, *, limit: int = 5_000) -> int:
        """What no window reaches any more, what is deleted, and what is too much of one document; returns how many."""
        touched = {row["document_key"] for row in await self._pool.fetch(_FORGET, limit)}
        for row in await self._pool.fetch(_CROWDED, MAX_REVISIONS):
            await self._pool.execute(_THIN, row["document_key"], MAX_REVISIONS)
            touched.add(row["document_key"])
        if touched:
            await self._pool.execute(_FORGET_TEXTS, sorted(touched))
        return len(touched)


def _rights(principal: Principal, collection: str) -> tuple[Any, ...]:
    return principal.tenant, principal.clearance.rank, principal.groups, principal.every_group, collection


def _by_document(rows: Sequence[Row]) -> defaultdict[int, list[PastPassage]]:
    found: defaultdict[int, list[PastPassage]] = defaultdict(list)
    for row in rows:
        found[row["document_key"]].append(_past_passage(row))
    return found


def _past_passage(row: Row) -> PastPassage:
    point_id = row.get("point_id") or uuid5(
        _NAMESPACE, f"{row['document_key']}/{row['applied_revision']}/{row['ordinal']}"
    )
    return PastPassage(passage_of(row, point_id), row["content_hash"])
