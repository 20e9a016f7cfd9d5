"""Which records of the log hold what a generation lacks."""

from collections.abc import Sequence

from infra.postgres.pool import Pool, Row
from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from streams.generations import BackfillItem, BuildProgress
from streams.model import Generation

_LEVELS = list(AccessLevel)

# The text that a generation should hold of a document: the newest one that could be read. Where the newest cannot be
# read, that is the one which the serving generation still shows.
# $1 tenant, $2 collection, $3 generation.
_TARGETS = """
select d.document_id, d.access_level, d.allowed_groups, d.invisible_upto, t.*,
       coalesce(c.applied_revision, -1) as applied, coalesce(c.unembedded, 0) as unembedded
from documents d
left join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests s on s.generation_id = g.generation_id and s.document_key = d.document_key
left join manifests c on c.generation_id = $3 and c.document_key = d.document_key
cross join lateral (
    select coalesce(d.failed_revision >= d.content_revision, false) as failed
) f
cross join lateral (
    select case when f.failed then s.applied_revision else d.content_revision end as wanted_revision,
           case when f.failed then s.epoch else d.content_epoch end as wanted_epoch,
           case when f.failed then s.partition else d.content_partition end as wanted_partition,
           case when f.failed then s.record_offset else d.content_offset end as wanted_offset
) t
where d.tenant = $1 and d.collection = $2 and not d.deleted and t.wanted_revision > d.invisible_upto
"""
_WANTED = f"""
select t.* from ({_TARGETS} and d.document_id = any($4::text[])) t
join unnest($4::text[], $5::integer[], $6::bigint[]) as at (document_id, partition, record_offset)
  on (at.document_id, at.partition, at.record_offset) = (t.document_id, t.wanted_partition, t.wanted_offset)
where t.wanted_epoch = $7 and ($8 or t.applied < t.wanted_revision)
"""  # noqa: S608 - made of constants
_BEHIND = f"""
select t.* from ({_TARGETS} and ($4::text is null or d.document_id > $4)) t
where t.wanted_epoch = $5
  and case when $6 then t.applied >= t.wanted_revision and t.unembedded > 0 else t.applied < t.wanted_revision end
order by t.document_id limit $7
"""  # noqa: S608
_PROGRESS = f"""
select count(*) as total, count(*) filter (where t.applied >= t.wanted_revision) as done,
       (select count(*) from passages where generation_id = $3) as passages,
       coalesce(sum(t.unembedded) filter (where t.applied >= t.wanted_revision), 0)::bigint as unembedded
from ({_TARGETS}) t
"""  # noqa: S608
_APPLIED = """
select d.document_id
from unnest($4::text[], $5::bigint[]) as sent (document_id, revision)
join documents d on d.tenant = $1 and d.collection = $2 and d.document_id = sent.document_id
left join manifests m on m.generation_id = $3 and m.document_key = d.document_key
where d.deleted or coalesce(m.applied_revision, -1) >= sent.revision
"""


class PostgresGenerationBuild:
    """``GenerationBuild``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def wanted(
        self, generation: Generation, at: Sequence[tuple[DocumentKey, int, int]], *, epoch: int, again: bool = False
    ) -> list[BackfillItem]:
        rows = await self._pool.fetch(
            _WANTED,
            *_of(generation),
            [key.document_id for key, _, _ in at],
            [partition for _, partition, _ in at],
            [offset for _, _, offset in at],
            epoch,
            again,
        )
        return [_item_of(row, generation) for row in rows]

    async def behind(
        self, generation: Generation, *, epoch: int, after: str | None, limit: int, without_vector: bool = False
    ) -> list[BackfillItem]:
        rows = await self._pool.fetch(_BEHIND, *_of(generation), after, epoch, without_vector, limit)
        return [_item_of(row, generation) for row in rows]

    async def applied(self, generation: Generation, items: Sequence[BackfillItem]) -> set[DocumentKey]:
        rows = await self._pool.fetch(
            _APPLIED, *_of(generation), [item.key.document_id for item in items], [item.revision for item in items]
        )
        return {DocumentKey(generation.tenant, generation.collection, row["document_id"]) for row in rows}

    async def progress(self, generation: Generation) -> BuildProgress:
        row = await self._pool.fetchrow(_PROGRESS, *_of(generation))
        assert row is not None
        return BuildProgress(row["total"], row["done"], row["passages"], row["unembedded"])


def _of(generation: Generation) -> tuple[str, str, int]:
    return generation.tenant, generation.collection, generation.generation_id


def _item_of(row: Row, generation: Generation) -> BackfillItem:
    return BackfillItem(
        key=DocumentKey(generation.tenant, generation.collection, row["document_id"]),
        revision=row["wanted_revision"],
        partition=row["wanted_partition"],
        offset=row["wanted_offset"],
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
    )
