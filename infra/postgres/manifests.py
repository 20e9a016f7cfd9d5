"""What each generation serves of each document, behind a fence."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from infra.postgres.flip import replace_passages
from infra.postgres.ledger import columns_of
from infra.postgres.pool import Connection, Pool, Row
from schemas.documents import Change, DocumentKey
from streams.model import Flip, Manifest, ManifestPassage

_READ = """
select n::integer - 1 as n, m.applied_revision, p.*
from unnest($2::text[], $3::text[], $4::text[]) with ordinality as wanted (tenant, collection, document_id, n)
join documents d using (tenant, collection, document_id)
join manifests m on m.generation_id = $1 and m.document_key = d.document_key
left join passages p on p.generation_id = $1 and p.document_key = d.document_key
order by n, p.ordinal
"""

# The fence, and what follows from passing it for the document: nothing is pending and nothing has failed up to this
# revision. Of a document that nobody admitted there is nothing to say: no row, which is a refusal.
#
# $1 number in the batch, $2 generation, $3-$5 key, $6 revision, $7 deleted, $8-$12 attributes, $13-$16 origin, $17
# chunked at.
_FENCE = """
with passed as (
    insert into manifests as m (
        generation_id, document_key, applied_revision, deleted, title, url, content_type, size_bytes, metadata,
        epoch, partition, record_offset, accepted_at, chunked_at, searchable_at)
    select $2::bigint, document_key, $6::bigint, $7::boolean, $8::text, $9::text, $10::text, $11::bigint, $12::jsonb,
           $13::integer, $14::integer, $15::bigint, $16::timestamptz, $17::timestamptz, clock_timestamp()
    from documents where tenant = $3 and collection = $4 and document_id = $5
      and exists (select from generations where generation_id = $2 and state <> 'retired')
    on conflict (generation_id, document_key) do update set
        applied_revision = $6, deleted = $7, title = $8, url = $9, content_type = $10, size_bytes = $11, metadata = $12,
        epoch = $13, partition = $14, record_offset = $15, accepted_at = $16, chunked_at = $17,
        searchable_at = clock_timestamp()
    where m.applied_revision < $6
    returning document_key
), settled as (
    update documents d set
        pending_since = case when $6 >= case when d.deleted then d.invisible_upto else d.revision end then null
                             when d.pending_since is not null then d.accepted_at end,
        failed_revision = case when d.failed_revision > $6 then d.failed_revision end,
        failure_reason = case when d.failed_revision > $6 then d.failure_reason end,
        failure_detail = case when d.failed_revision > $6 then d.failure_detail end
    from passed, generations g
    where d.document_key = passed.document_key and g.generation_id = $2 and g.state = 'serving'
      and (d.pending_since is not null or d.failed_revision is not null)
)
select $1::integer as n, document_key from passed
"""

_MISSING_VECTORS = """
select p.point_id, p.content_hash
from unnest($2::text[], $3::text[], $4::text[]) as wanted (tenant, collection, document_id)
join documents d using (tenant, collection, document_id)
join passages p on p.generation_id = $1 and p.document_key = d.document_key
where not p.embedded
"""

# In the order in which flips lock manifests.
_LOCK_MANIFESTS = """
select 1
from manifests m join documents d using (document_key)
where m.generation_id = $1
  and m.document_key in (select document_key from passages where generation_id = $1 and point_id = any($2::uuid[]))
order by d.tenant, d.collection, d.document_id
for update of m
"""
_MARK_EMBEDDED = """
with marked as (
    update passages set embedded = true
    where generation_id = $1 and point_id = any($2::uuid[]) and not embedded
    returning document_key
), per_document as (
    select document_key, count(*)::integer as n from marked group by document_key
)
update manifests m set
    unembedded = m.unembedded - n,
    embedded_at = case when m.unembedded = n then clock_timestamp() else m.embedded_at end
from per_document where m.generation_id = $1 and m.document_key = per_document.document_key
"""


class PostgresManifestStore:
    """``ManifestStore``. Rows are locked in the order of the documents' keys: no two batches can deadlock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[DocumentKey, Manifest]:
        rows = await self._pool.fetch(_READ, generation_id, *columns_of(keys))
        of_document: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            of_document[row["n"]].append(row)
        return {keys[n]: _manifest_of(generation_id, keys[n], found) for n, found in of_document.items()}

    async def flip(self, flips: Sequence[Flip]) -> list[bool]:
        """Let manifests take effect, all in one transaction; False where the fence refused.

        Flips of one document in one call take effect one after the other, in the order given.

        Raises:
            TransientError: a flip was planned on a manifest that has been replaced since: it carries on a passage that
                is not live any more. Nothing has changed; read the manifest again and plan anew.
        """
        accepted = [False] * len(flips)
        async with self._pool.transaction() as connection:
            for round_ in _rounds(flips):
                passed = await _pass_fence(connection, flips, round_)
                await replace_passages(connection, [(flips[n], document_key) for n, document_key in passed.items()])
                for n in passed:
                    accepted[n] = True
        return accepted

    async def missing_vectors(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[UUID, bytes]:
        rows = await self._pool.fetch(_MISSING_VECTORS, generation_id, *columns_of(keys))
        return {row["point_id"]: row["content_hash"] for row in rows}

    async def mark_embedded(self, generation_id: int, point_ids: Sequence[UUID]) -> None:
        if not point_ids:
            return
        async with self._pool.transaction() as connection:
            await connection.execute(_LOCK_MANIFESTS, generation_id, point_ids)
            await connection.execute(_MARK_EMBEDDED, generation_id, point_ids)

    async def discard(self, space: str, point_ids: Sequence[UUID]) -> None:
        await self._pool.execute(
            """
            insert into garbage (point_id, space)
            select point_id, $1 from unnest($2::uuid[]) as written (point_id)
            where not exists (select from passages where passages.point_id = written.point_id)
            on conflict do nothing
            """,
            space,
            point_ids,
        )

    async def take_garbage(self, *, older_than_s: float, limit: int) -> list[tuple[str, UUID]]:
        """Dead points (space, id), oldest first. They stay in the table until ``forget_garbage``."""
        rows = await self._pool.fetch(
            """
            select space, point_id from garbage
            where died_at <= clock_timestamp() - make_interval(secs => $1)
              and not exists (select from passages where passages.point_id = garbage.point_id)
            order by died_at limit $2
            """,
            older_than_s,
            limit,
        )
        return [(row["space"], row["point_id"]) for row in rows]

    async def forget_garbage(self, point_ids: Sequence[UUID]) -> None:
        await self._pool.execute("delete from garbage where point_id = any($1::uuid[])", point_ids)


async def _pass_fence(connection: Connection, flips: Sequence[Flip], numbers: Sequence[int]) -> dict[int, int]:
    """Number to document key, for the flips that are newer than what is applied."""
    rows = await connection.fetchmany(_FENCE, [_fence_arguments(n, flips[n]) for n in numbers])
    return {row["n"]: row["document_key"] for row in rows}


def _rounds(flips: Sequence[Flip]) -> Iterator[list[int]]:
    """Numbers of the flips, in the order of locking; no round has a document twice."""
    rounds: list[list[int]] = []
    seen: defaultdict[tuple[DocumentKey, int], int] = defaultdict(int)
    for n in sorted(range(len(flips)), key=lambda n: (flips[n].key, flips[n].generation_id)):
        flip = flips[n]
        turn = seen[flip.key, flip.generation_id]
        seen[flip.key, flip.generation_id] += 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(n)
    return iter(rounds)


def _fence_arguments(n: int, flip: Flip) -> tuple[Any, ...]:
    attributes = flip.attributes
    return (
        n,
        flip.generation_id,
        *flip.key,
        flip.revision,
        flip.change is not Change.UPSERT,
        attributes.title if attributes else "",
        attributes.url if attributes else None,
        attributes.content_type if attributes else "",
        attributes.size_bytes if attributes else 0,
        attributes.metadata if attributes else {},
        flip.origin.epoch,
        flip.origin.partition,
        flip.origin.offset,
        flip.origin.accepted_at,
        flip.chunked_at,
    )


def _manifest_of(generation_id: int, key: DocumentKey, rows: Sequence[Row]) -> Manifest:
    """From the rows of one document; the one row of a document without passages has nulls in their place."""
    passages = tuple(passage_of(row) for row in rows if row["point_id"] is not None)
    return Manifest(generation_id, key, rows[0]["applied_revision"], passages)


def passage_of(row: Row) -> ManifestPassage:
    """A live passage from its row of ``passages``."""
    return ManifestPassage(
        point_id=row["point_id"],
        content_hash=row["content_hash"],
        birth_revision=row["birth_revision"],
        payload_digest=row["payload_digest"],
        embedded=row["embedded"],
        ordinal=row["ordinal"],
        text=row["text"],
        heading_path=tuple(row["heading_path"]),
        page=row["page"],
        start=row["start_offset"],
        end=row["end_offset"],
        tokens=row["tokens"],
    )
