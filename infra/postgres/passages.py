"""Texts of passages, handed out only after a re-check of manifest, access and deletion."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from infra.postgres.pool import Pool, Row
from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from schemas.positions import Position
from streams.model import CitedRevision, Freshness, HydratedPassage

_LEVELS = list(AccessLevel)

# How far the index is behind is shown with every answer; it need not be counted anew for each of a hundred a second.
FRESHNESS_CACHE_S = 0.1

_SHOWN = """
select p.point_id, d.tenant, d.collection, d.document_id, m.applied_revision, p.ordinal, m.title, m.url, p.text,
       p.heading_path, p.page, p.start_offset, p.end_offset, p.tokens, m.accepted_at, d.access_level, m.metadata,
       p.embedded
"""
# The one place that decides which text may be shown: $1 generation, $2 tenant, $3 clearance, $4 groups, $5 every group.
_MAY_BE_SHOWN = """
where p.generation_id = $1
  and d.tenant = $2
  and not d.deleted
  and m.applied_revision > d.invisible_upto
  and d.access_level <= $3
  and ($5 or d.allowed_groups = '{}' or d.allowed_groups && $4::text[])
"""
READABLE = f"""
{_SHOWN}
from passages p
join manifests m using (generation_id, document_key)
join documents d using (document_key)
{_MAY_BE_SHOWN}
"""
# Candidates first, then one look-up by primary key each (``offset 0`` keeps the planner from turning that round): on
# tables that were filled a moment ago it knows no sizes, and would walk through every document of the tenant instead.
BY_POINT = f"""
with p as materialized (select * from passages where point_id = any($6::uuid[]))
{_SHOWN}
from p
cross join lateral (
    select * from manifests
    where manifests.generation_id = p.generation_id and manifests.document_key = p.document_key offset 0
) m
cross join lateral (select * from documents where documents.document_key = p.document_key offset 0) d
{_MAY_BE_SHOWN}
"""  # noqa: S608 - made of constants
_BY_ORDINAL = (
    READABLE + " and d.collection = $6 and d.document_id = $7 and p.ordinal = any($8::integer[]) order by p.ordinal"
)

# One statement, so that all of it is true at one moment.
_UNCHANGED = """
select count(*)
from unnest($6::text[], $7::text[], $8::bigint[]) as seen (collection, document_id, revision)
join documents d on d.tenant = $2 and d.collection = seen.collection and d.document_id = seen.document_id
join manifests m on m.generation_id = $1 and m.document_key = d.document_key
where m.applied_revision = seen.revision
  and d.pending_since is null
  and not d.deleted
  and m.applied_revision > d.invisible_upto
  and d.access_level <= $3
  and ($5 or d.allowed_groups = '{}' or d.allowed_groups && $4::text[])
"""

_FRESHNESS = """
select newest.epoch, newest.partition, newest.record_offset,
       (select extract(epoch from clock_timestamp() - min(d.pending_since)) * 1000
        from documents d
        where d.tenant = $1 and d.collection = $2 and d.pending_since is not null)::double precision as behind_ms
from generations g
left join lateral (
    select m.epoch, m.partition, m.record_offset
    from manifests m
    where m.generation_id = g.generation_id
    order by m.accepted_at desc
    limit 1
) newest on true
where g.tenant = $1 and g.collection = $2 and g.state = 'serving'
"""


class PostgresPassageStore:
    """``PassageStore``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._freshness: dict[tuple[str, str], tuple[float, Freshness]] = {}

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        if not point_ids:
            return {}
        rows = await self._pool.fetch(BY_POINT, *scope_of(principal, generation_id), point_ids)
        return {row["point_id"]: passage_of(row) for row in rows}

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        if key.tenant != principal.tenant or not ordinals:
            return []
        rows = await self._pool.fetch(
            _BY_ORDINAL, *scope_of(principal, generation_id), key.collection, key.document_id, ordinals
        )
        return [passage_of(row) for row in rows]

    async def unchanged(self, principal: Principal, generation_id: int, seen: Sequence[CitedRevision]) -> bool:
        documents = set(seen)
        if any(key.tenant != principal.tenant for key, _ in documents):
            return False
        found = await self._pool.fetchval(
            _UNCHANGED,
            *scope_of(principal, generation_id),
            [key.collection for key, _ in documents],
            [key.document_id for key, _ in documents],
            [revision for _, revision in documents],
        )
        return bool(found == len(documents))

    async def freshness(self, tenant: str, collection: str) -> Freshness:
        """At most ``FRESHNESS_CACHE_S`` old."""
        read_at, freshness = self._freshness.get((tenant, collection), (-FRESHNESS_CACHE_S, None))
        if freshness is not None and time.monotonic() - read_at < FRESHNESS_CACHE_S:
            return freshness
        row = await self._pool.fetchrow(_FRESHNESS, tenant, collection)
        freshness = Freshness(None, 0.0) if row is None else _freshness_of(row)
        self._freshness[tenant, collection] = (time.monotonic(), freshness)
        return freshness


def scope_of(principal: Principal, generation_id: int) -> tuple[Any, ...]:
    """The first five parameters of ``READABLE``."""
    return generation_id, principal.tenant, principal.clearance.rank, principal.groups, principal.every_group


def passage_of(row: Row, point_id: UUID | None = None) -> HydratedPassage:
    return HydratedPassage(
        point_id=point_id or row["point_id"],
        key=DocumentKey(row["tenant"], row["collection"], row["document_id"]),
        revision=row["applied_revision"],
        ordinal=row["ordinal"],
        title=row["title"],
        url=row["url"],
        text=row["text"],
        heading_path=tuple(row["heading_path"]),
        page=row["page"],
        start=row["start_offset"],
        end=row["end_offset"],
        tokens=row["tokens"],
        updated_at=row["accepted_at"],
        access_level=_LEVELS[row["access_level"]],
        metadata=row["metadata"],
        embedded=row["embedded"],
    )


def _freshness_of(row: Row) -> Freshness:
    position = None if row["epoch"] is None else Position(row["epoch"], row["partition"], row["record_offset"]).encode()
    return Freshness(position, max(0.0, row["behind_ms"] or 0.0))
