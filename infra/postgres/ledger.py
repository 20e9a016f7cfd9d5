"""The fold of the documents topic: the newest change of each document."""

from collections.abc import Sequence
from typing import Any

from infra.postgres.pool import Pool, Row
from schemas.access import AccessLevel
from schemas.documents import Change, DocumentKey
from schemas.pipeline import Lane, Origin
from streams.model import Admission, AdmissionRequest, Verdict

_LEVELS = list(AccessLevel)

# One change, folded in if it is newer than what is known, or if it is what is known, published again further on in the
# log: the winner behind a loser, or the text under the revision of an access change. Then the position moves on, for
# compaction will keep the later record only. Nothing is returned where nothing changes.
#
# The parameters: $1 number in the batch, $2-$4 key, $5 revision, $6 change, $7 level, $8 groups or null, $9 keep the
# level, $10-$15 origin, $16 source version, $17 content hash, $18 size, $19 moved from.
#
# pending_since of a document that is deleted stays as it is, unless text comes: there is nothing else left to apply.
_FOLD = """
with before as (select revision, change from documents where tenant = $2 and collection = $3 and document_id = $4)
insert into documents as d (
    tenant, collection, document_id, revision, change, deleted, invisible_upto, content_revision, content_epoch,
    content_partition, content_offset, access_level, allowed_groups, epoch, partition, record_offset, event_id,
    accepted_at, lane, pending_since, source_version, content_sha256, size_bytes, moved_from)
values (
    $2, $3, $4, $5::bigint, $6::text, $6 <> 'upsert',
    case when $6 = 'delete' then $5 else -1 end,
    case when $6 = 'upsert' then $5 end,
    case when $6 = 'upsert' then $10::integer end,
    case when $6 = 'upsert' then $11::integer end,
    case when $6 = 'upsert' then $12::bigint end,
    $7::smallint, coalesce($8::text[], '{}'), $10, $11, $12, $13, $14::timestamptz, $15,
    case when $6 = 'upsert' then $14 end,
    $16::bigint, $17::bytea, $18::bigint, $19::text)
on conflict (tenant, collection, document_id) do update set
    revision = $5,
    change = $6,
    deleted = case $6 when 'upsert' then false when 'delete' then true else d.deleted end,
    invisible_upto = case when $6 = 'delete' then greatest($5, d.invisible_upto) else d.invisible_upto end,
    content_revision = case when $6 = 'upsert' then $5 else d.content_revision end,
    content_epoch = case $6 when 'upsert' then $10 when 'access' then d.content_epoch end,
    content_partition = case $6 when 'upsert' then $11 when 'access' then d.content_partition end,
    content_offset = case $6 when 'upsert' then $12 when 'access' then d.content_offset end,
    access_level = case when $6 = 'delete' or $9::boolean then d.access_level else $7 end,
    allowed_groups = case when $6 = 'delete' then d.allowed_groups else coalesce($8, d.allowed_groups) end,
    epoch = $10, partition = $11, record_offset = $12,
    event_id = case when d.revision < $5 then $13 else d.event_id end,
    accepted_at = case when d.revision < $5 then $14 else d.accepted_at end,
    lane = case when d.revision < $5 then $15 else d.lane end,
    pending_since = case when d.revision = $5 or (d.deleted and $6 <> 'upsert') then d.pending_since
                         else coalesce(d.pending_since, $14) end,
    source_version = $16,
    content_sha256 = case when $6 = 'access' then d.content_sha256 else $17 end,
    size_bytes = case when $6 = 'access' then d.size_bytes else $18 end,
    moved_from = case when $6 = 'access' then d.moved_from else $19 end,
    failed_revision = case when $6 = 'access' or (d.revision = $5 and d.change = $6) then d.failed_revision end,
    failure_reason = case when $6 = 'access' or (d.revision = $5 and d.change = $6) then d.failure_reason end,
    failure_detail = case when $6 = 'access' or (d.revision = $5 and d.change = $6) then d.failure_detail end
where d.revision < $5
   or (d.revision = $5 and (d.epoch, d.record_offset) < ($10, $12)
       and (d.change = $6 or (d.change = 'access' and $6 = 'upsert' and not d.deleted)))
returning $1::integer as n, document_key, d.revision, content_epoch, content_partition, content_offset, access_level,
    allowed_groups, d.deleted, epoch, partition, record_offset, event_id, accepted_at, lane,
    (select before.revision = $5 and before.change = $6 from before) as known_before
"""

_FIRST_OFFSET = """
insert into sent_home as s (sent_home_from, record_offset) values ($1, $2)
on conflict (sent_home_from) do update set record_offset = least(s.record_offset, excluded.record_offset)
returning record_offset
"""

_HEADS = """
select n::integer - 1 as n, d.*
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (tenant, collection, document_id, n)
join documents d using (tenant, collection, document_id)
"""

_IN_FORCE = """
select n::integer - 1 as n, greatest(d.invisible_upto, m.applied_revision) as revision
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (tenant, collection, document_id, n)
join documents d using (tenant, collection, document_id)
left join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests m on m.generation_id = g.generation_id and m.document_key = d.document_key
"""


class PostgresDocumentLedger:
    """``DocumentLedger``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        """Fold changes in: one round trip for all of them; a second one when some of them are old news."""
        if not requests:
            return []
        # By document, since rows are locked in that order everywhere; changes of one document stay in their order.
        in_order = sorted(range(len(requests)), key=lambda n: requests[n].key)
        admissions: dict[int, Admission] = {}
        async with self._pool.transaction() as connection:
            for row in await connection.fetchmany(_FOLD, [_arguments(n, requests[n]) for n in in_order]):
                verdict = Verdict.KNOWN if row["known_before"] else Verdict.ACCEPTED
                admissions[row["n"]] = _admission(verdict, row, requests[row["n"]])
            old_news = [n for n in in_order if n not in admissions]
            if old_news:
                for row in await connection.fetch(_HEADS, *columns_of([requests[n].key for n in old_news])):
                    request = requests[old_news[row["n"]]]
                    admissions[old_news[row["n"]]] = _admission(_judge(row, request), row, request)
        return [admissions[n] for n in range(len(requests))]

    async def first_offset(self, sent_home_from: str, offset: int) -> int:
        return int(await self._pool.fetchval(_FIRST_OFFSET, sent_home_from, offset))

    async def heads(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        rows = await self._pool.fetch(_HEADS, *columns_of(keys))
        # A newest revision that could not be read replaces nothing: the text before it still counts.
        return {keys[row["n"]]: row["revision"] for row in rows if row["failed_revision"] != row["revision"]}

    async def in_force(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        rows = await self._pool.fetch(_IN_FORCE, *columns_of(keys))
        return {keys[row["n"]]: row["revision"] for row in rows}


def _judge(row: Row, request: AdmissionRequest) -> Verdict:
    """What a change is that the fold did not take.

    An earlier copy of the newest change is accepted: it may be a redelivery of work that was never finished. Not so an
    access change whose text has already come back under its revision: nothing is left to be done for it.
    """
    if row["revision"] > request.revision:
        return Verdict.SUPERSEDED
    if row["change"] == request.change.value:
        return Verdict.ACCEPTED
    return Verdict.KNOWN if request.change is Change.ACCESS else Verdict.SUPERSEDED


def _admission(verdict: Verdict, row: Row, request: AdmissionRequest) -> Admission:
    has_content = row["content_offset"] is not None and row["content_epoch"] == request.origin.epoch
    return Admission(
        verdict=verdict,
        document_key=row["document_key"],
        head_revision=row["revision"],
        head_origin=origin_of(row),
        content_at=(row["content_partition"], row["content_offset"]) if has_content else None,
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
        deleted=row["deleted"],
    )


def _arguments(n: int, request: AdmissionRequest) -> tuple[Any, ...]:
    origin = request.origin
    return (
        n,
        *request.key,
        request.revision,
        request.change.value,
        request.access_level.rank,
        request.allowed_groups,
        request.keep_level,
        origin.epoch,
        origin.partition,
        origin.offset,
        origin.event_id,
        origin.accepted_at,
        origin.lane.value,
        request.source_version,
        request.content_sha256,
        request.size_bytes,
        request.moved_from,
    )


def origin_of(row: Row) -> Origin:
    """The document record that a row of ``documents`` says is the newest."""
    return Origin(
        epoch=row["epoch"],
        partition=row["partition"],
        offset=row["record_offset"],
        event_id=row["event_id"],
        accepted_at=row["accepted_at"],
        lane=Lane(row["lane"]),
    )


def columns_of(keys: Sequence[DocumentKey]) -> tuple[list[str], list[str], list[str]]:
    """Tenants, collections and document ids: arrays for ``unnest``."""
    return [key.tenant for key in keys], [key.collection for key in keys], [key.document_id for key in keys]
