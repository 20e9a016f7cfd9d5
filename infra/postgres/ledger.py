"""The fold of the documents topic: the newest change of each document."""

from collections.abc import Sequence
from typing import Any

from infra.postgres.pool import Connection, Pool, Row
from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from schemas.pipeline import Lane, Origin
from streams.model import Admission, AdmissionRequest, Verdict

_LEVELS = list(AccessLevel)

# One change, folded in if it is newer than what is known. Nothing is returned where it is not.
#
# The parameters: $1 number in the batch, $2-$4 key, $5 revision, $6 change, $7 level, $8 groups or null, $9 keep the
# level, $10-$15 origin, $16 source version, $17 content hash, $18 size, $19 moved from.
#
# pending_since of a document that is deleted stays as it is, unless text comes: there is nothing else left to apply.
_FOLD = """
insert into documents as d (
    tenant, collection, document_id, revision, change, deleted, invisible_upto, content_revision, access_level,
    allowed_groups, epoch, partition, record_offset, event_id, accepted_at, lane, pending_since, source_version,
    content_sha256, size_bytes, moved_from)
values (
    $2, $3, $4, $5::bigint, $6::text, $6 <> 'upsert',
    case when $6 = 'delete' then $5 else -1 end,
    case when $6 = 'upsert' then $5 end,
    $7::smallint, coalesce($8::text[], '{}'), $10, $11, $12, $13, $14::timestamptz, $15,
    case when $6 = 'upsert' then $14 end,
    $16::bigint, $17::bytea, $18::bigint, $19::text)
on conflict (tenant, collection, document_id) do update set
    revision = $5,
    change = $6,
    deleted = case $6 when 'upsert' then false when 'delete' then true else d.deleted end,
    invisible_upto = case when $6 = 'delete' then greatest($5, d.invisible_upto) else d.invisible_upto end,
    content_revision = case when $6 = 'upsert' then $5 else d.content_revision end,
    access_level = case when $6 = 'delete' or $9::boolean then d.access_level else $7 end,
    allowed_groups = case when $6 = 'delete' then d.allowed_groups else coalesce($8, d.allowed_groups) end,
    epoch = $10, partition = $11, record_offset = $12, event_id = $13, accepted_at = $14, lane = $15,
    pending_since = case when d.deleted and $6 <> 'upsert' then d.pending_since
                         else coalesce(d.pending_since, $14) end,
    source_version = $16,
    content_sha256 = case when $6 = 'access' then d.content_sha256 else $17 end,
    size_bytes = case when $6 = 'access' then d.size_bytes else $18 end,
    moved_from = case when $6 = 'access' then d.moved_from else $19 end,
    failed_revision = case when $6 = 'access' then d.failed_revision end,
    failure_reason = case when $6 = 'access' then d.failure_reason end,
    failure_detail = case when $6 = 'access' then d.failure_detail end
where d.revision < $5
returning $1::integer as n, document_key, revision, access_level, allowed_groups
"""

_HEADS = """
select n::integer - 1 as n, d.*
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (tenant, collection, document_id, n)
join documents d using (tenant, collection, document_id)
"""


class PostgresDocumentLedger:
    """``DocumentLedger``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        """Fold changes in, one round trip for all of them; a second one when some are not news."""
        # By document, since rows are locked in that order everywhere; changes of one document stay in their order.
        in_order = sorted(range(len(requests)), key=lambda n: requests[n].key)
        admissions: dict[int, Admission] = {}
        async with self._pool.transaction() as connection:
            for row in await connection.fetchmany(_FOLD, [_arguments(n, requests[n]) for n in in_order]):
                admissions[row["n"]] = _accepted(row, requests[row["n"]])
            old_news = [n for n in in_order if n not in admissions]
            if old_news:
                admissions |= await _judge(connection, requests, old_news)
        return [admissions[n] for n in range(len(requests))]

    async def heads(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        rows = await self._pool.fetch(_HEADS, *_columns(keys))
        return {keys[row["n"]]: row["revision"] for row in rows}


async def _judge(
    connection: Connection, requests: Sequence[AdmissionRequest], numbers: Sequence[int]
) -> dict[int, Admission]:
    """Those that the fold did not take: the very change that is known already, or an older one."""
    rows = await connection.fetch(_HEADS, *_columns([requests[n].key for n in numbers]))
    return {(n := numbers[row["n"]]): _known(row, requests[n]) for row in rows}


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


def _accepted(row: Row, request: AdmissionRequest) -> Admission:
    return Admission(
        verdict=Verdict.ACCEPTED,
        document_key=row["document_key"],
        head_revision=row["revision"],
        head_origin=request.origin,
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
    )


def _known(row: Row, request: AdmissionRequest) -> Admission:
    return Admission(
        verdict=Verdict.ACCEPTED if row["revision"] == request.revision else Verdict.SUPERSEDED,
        document_key=row["document_key"],
        head_revision=row["revision"],
        head_origin=origin_of(row),
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
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


def _columns(keys: Sequence[DocumentKey]) -> tuple[list[str], list[str], list[str]]:
    return [key.tenant for key in keys], [key.collection for key in keys], [key.document_id for key in keys]
