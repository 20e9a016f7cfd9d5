"""Manifests as the index should mirror them, slice by slice; and what the comparison found."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from infra.postgres.manifests import passage_of
from infra.postgres.pool import Pool, Row
from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from schemas.pipeline import DocumentAttributes
from streams.index import payload_of
from streams.model import Generation
from streams.reconcile import LivePassage, LivePoint

_LEVELS = list(AccessLevel)
_FIRST_ID = UUID(int=0)
_LAST_ID = UUID(int=2**128 - 1)

# A document whose newest change is still to be applied is judged when it has been: its points follow its access then.
_LIVE = """
select p.point_id, p.embedded, p.payload_digest, p.document_key,
       d.pending_since is not null or d.revision <> m.applied_revision as in_motion
from passages p
join documents d using (document_key)
join manifests m on m.generation_id = p.generation_id and m.document_key = p.document_key
where p.generation_id = $1 and p.point_id > $2 and p.point_id <= $3
"""
_DESCRIBED = """
select d.document_key, d.tenant, d.collection, d.document_id, d.access_level, d.allowed_groups, m.title, m.url,
       m.content_type, m.size_bytes, m.metadata
from documents d
join manifests m on m.generation_id = $1 and m.document_key = d.document_key
where d.document_key = any($2::bigint[])
"""
_REWRITTEN = """
with again as (
    update passages p set embedded = false, payload_digest = v.digest
    from unnest($2::uuid[], $3::bytea[]) as v (point_id, digest)
    where p.generation_id = $1 and p.point_id = v.point_id
    returning p.document_key, p.point_id
), counted as (
    select document_key,
           count(*) filter (where not p.embedded or p.point_id in (select point_id from again)) as unembedded
    from passages p
    where p.generation_id = $1 and document_key in (select document_key from again)
    group by document_key
)
update manifests m set unembedded = counted.unembedded, embedded_at = null
from counted where m.generation_id = $1 and m.document_key = counted.document_key
"""
_OVERDUE = """
select d.tenant, d.collection, d.document_id
from manifests m join documents d using (document_key)
where m.generation_id = $1 and m.unembedded > 0
  and m.searchable_at < clock_timestamp() - make_interval(secs => $2)
limit $3
"""
_REPORT = """
insert into drift_reports as r (kind, found, repaired, repaired_total, checked_at)
select kind, found, repaired, repaired, clock_timestamp()
from unnest($1::text[], $2::integer[], $3::integer[]) as v (kind, found, repaired)
on conflict (kind) do update set
    found = excluded.found, repaired = excluded.repaired, repaired_total = r.repaired_total + excluded.repaired,
    checked_at = excluded.checked_at
"""


class PostgresIndexAudit:
    """``IndexAudit``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def live_generations(self) -> list[int]:
        rows = await self._pool.fetch("select generation_id from generations where state <> 'retired' order by 1")
        return [row["generation_id"] for row in rows]

    async def live_points(
        self, generation: Generation, *, after: UUID | None, upto: UUID | None
    ) -> dict[UUID, LivePoint]:
        rows = await self._pool.fetch(_LIVE, generation.generation_id, after or _FIRST_ID, upto or _LAST_ID)
        settled = sorted({row["document_key"] for row in rows if not row["in_motion"]})
        digests = {
            key: payload_of(_key(row), _attributes(row), generation)[1]
            for key, row in (await self._described(generation, settled)).items()
        }
        return {
            row["point_id"]: LivePoint(
                row["embedded"], digests.get(row["document_key"], row["payload_digest"]) == row["payload_digest"]
            )
            for row in rows
        }

    async def garbage(self, point_ids: Sequence[UUID]) -> frozenset[UUID]:
        rows = await self._pool.fetch("select point_id from garbage where point_id = any($1::uuid[])", point_ids)
        return frozenset(row["point_id"] for row in rows)

    async def passages(self, generation: Generation, point_ids: Sequence[UUID]) -> list[LivePassage]:
        rows = await self._pool.fetch(
            "select * from passages where generation_id = $1 and point_id = any($2::uuid[])",
            generation.generation_id,
            point_ids,
        )
        described = await self._described(generation, sorted({row["document_key"] for row in rows}))
        return [
            LivePassage(_key(document), _attributes(document), passage_of(row))
            for row in rows
            if (document := described.get(row["document_key"])) is not None
        ]

    async def rewritten(self, generation: Generation, digests: Mapping[UUID, bytes]) -> None:
        await self._pool.execute(_REWRITTEN, generation.generation_id, list(digests), list(digests.values()))

    async def overdue_vectors(self, generation: Generation, *, older_than_s: float, limit: int) -> list[DocumentKey]:
        rows = await self._pool.fetch(_OVERDUE, generation.generation_id, older_than_s, limit)
        return [_key(row) for row in rows]

    async def report(self, drift: Mapping[str, int], repaired: Mapping[str, int]) -> None:
        kinds = sorted(drift)
        await self._pool.execute(_REPORT, kinds, [drift[kind] for kind in kinds], [repaired[kind] for kind in kinds])

    async def _described(self, generation: Generation, document_keys: Sequence[int]) -> dict[int, Row]:
        rows = await self._pool.fetch(_DESCRIBED, generation.generation_id, document_keys)
        return {row["document_key"]: row for row in rows}


def _key(row: Row) -> DocumentKey:
    return DocumentKey(row["tenant"], row["collection"], row["document_id"])


def _attributes(row: Row) -> DocumentAttributes:
    return DocumentAttributes(
        title=row["title"],
        url=row["url"],
        content_type=row["content_type"],
        size_bytes=row["size_bytes"],
        metadata=row["metadata"],
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
    )
