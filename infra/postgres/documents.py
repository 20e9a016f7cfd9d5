"""Documents as people ask about them: pages, stages, waits, excerpts."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from infra.postgres.passages import READABLE, passage_of, scope_of
from infra.postgres.pool import Pool, Row
from infra.postgres.status import read_status
from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from schemas.pipeline import Outcome
from schemas.positions import Position
from streams.model import (
    DocumentRecord,
    DocumentStage,
    HydratedPassage,
    Ordering,
    Unapplied,
    WaitState,
    WaitVerdict,
)

_LEVELS = list(AccessLevel)
_FIRST_ID = UUID(int=0)

# $1 tenant, $2 clearance, $3 groups, $4 every group, $5 collection.
_KNOWABLE = """
select * from document_states
where tenant = $1 and access_level <= $2 and ($4 or allowed_groups = '{}' or allowed_groups && $3::text[])
  and collection = $5
"""
_ONE = f"{_KNOWABLE} and document_id = $6"
_OF_STAGE = " and (stage = $6::text or ($6 is null and stage <> 'deleted'))"
_BY_ID = f"{_KNOWABLE} {_OF_STAGE} and ($8::text is null or document_id > $8) order by document_id limit $7"
_NEWEST = f"{_KNOWABLE} {_OF_STAGE} order by accepted_at desc, document_id limit $7"

_WAIT = """
select s.*, c.ordering, o.outcome, o.revision as outcome_revision, o.reason as outcome_reason
from collections c
left join document_states s on s.tenant = c.tenant and s.collection = c.collection and s.document_id = $3
left join outcomes o on o.epoch = $4 and o.partition = $5 and o.record_offset = $6
where c.tenant = $1 and c.collection = $2
"""

_EXCERPT = (
    READABLE
    + " and d.collection = $6 and d.document_id = $7 and p.start_offset < $9 and p.end_offset > $8 order by p.ordinal"
)

# A record of an earlier epoch is not in the log any more: the place where it stood belongs to another one.
_UNAPPLIED = """
select tenant, collection, document_id, revision, partition, record_offset, accepted_at
from documents
where pending_since < clock_timestamp() - make_interval(secs => $1)
  and epoch = coalesce((select max(epoch) from log_epochs), epoch)
order by pending_since
limit $2
"""

_UNEMBEDDED = """
select distinct d.tenant, d.collection, d.document_id, d.revision, d.partition, d.record_offset, d.accepted_at
from manifests m
join generations g on g.generation_id = m.generation_id and g.state <> 'retired'
join documents d using (document_key)
where m.unembedded > 0 and not d.deleted and m.applied_revision = d.revision
  and m.searchable_at < clock_timestamp() - make_interval(secs => $1)
  and d.epoch = coalesce((select max(epoch) from log_epochs), d.epoch)
limit $2
"""


class PostgresDocumentDirectory:
    """``DocumentDirectory`` and ``StatusBoard``, and lists for those who repair."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, principal: Principal, collection: str, document_id: str) -> DocumentRecord | None:
        row = await self._pool.fetchrow(_ONE, *_rights(principal), collection, document_id)
        return None if row is None else _record_of(row)

    async def list_documents(
        self,
        principal: Principal,
        collection: str,
        *,
        after: str | None = None,
        limit: int = 100,
        stage: DocumentStage | None = None,
        newest_first: bool = False,
    ) -> list[DocumentRecord]:
        wanted = (*_rights(principal), collection, stage and stage.value, limit)
        if newest_first:
            rows = await self._pool.fetch(_NEWEST, *wanted)
        else:
            rows = await self._pool.fetch(_BY_ID, *wanted, after)
        return [_record_of(row) for row in rows]

    async def wait_state(self, position: Position) -> WaitState:
        """What has become of the change at a position.

        Raises:
            ValueError: the position names no document.
        """
        if position.key is None:
            raise ValueError("a position without a document cannot be waited for")
        row = await self._pool.fetchrow(_WAIT, *position.key, position.epoch, position.partition, position.offset)
        return WaitState(WaitVerdict.PENDING) if row is None else _wait_state_of(row, position)

    async def excerpt(
        self, principal: Principal, collection: str, document_id: str, *, start: int, end: int, context: int
    ) -> list[HydratedPassage]:
        generation_id = await self._pool.fetchval(
            "select generation_id from generations where tenant = $1 and collection = $2 and state = 'serving'",
            principal.tenant,
            collection,
        )
        if generation_id is None:
            return []
        rows = await self._pool.fetch(
            _EXCERPT, *scope_of(principal, generation_id), collection, document_id, start - context, end + context
        )
        return [passage_of(row) for row in rows]

    async def status(self, tenant: str) -> Mapping[str, Any]:
        """What PostgreSQL knows of ``leat status --json``: all but ``ready`` and ``lag``."""
        return await read_status(self._pool, tenant)

    async def unapplied(self, *, older_than_s: float, limit: int) -> Sequence[Unapplied]:
        """Changes that were admitted but that the serving generation has not applied after that time, oldest first."""
        return [_unapplied(row) for row in await self._pool.fetch(_UNAPPLIED, older_than_s, limit)]

    async def unembedded(self, *, older_than_s: float, limit: int) -> Sequence[Unapplied]:
        """Changes that have been searchable by words for that time, and still are not by meaning."""
        return [_unapplied(row) for row in await self._pool.fetch(_UNEMBEDDED, older_than_s, limit)]

    async def iter_live_point_ids(
        self, generation_id: int, *, batch: int = 5000
    ) -> AsyncIterator[list[tuple[UUID, bool]]]:
        """Batches of (point id, has a vector), in ascending order over all of them."""
        after = _FIRST_ID
        while True:
            rows = await self._pool.fetch(
                "select point_id, embedded from passages where generation_id = $1 and point_id > $2"
                " order by point_id limit $3",
                generation_id,
                after,
                batch,
            )
            if rows:
                yield [(row["point_id"], row["embedded"]) for row in rows]
                after = rows[-1]["point_id"]
            if len(rows) < batch:
                return


def _unapplied(row: Row) -> Unapplied:
    return Unapplied(
        key=DocumentKey(row["tenant"], row["collection"], row["document_id"]),
        revision=row["revision"],
        partition=row["partition"],
        offset=row["record_offset"],
        accepted_at=row["accepted_at"],
    )


def _rights(principal: Principal) -> tuple[str, int, tuple[str, ...], bool]:
    return principal.tenant, principal.clearance.rank, principal.groups, principal.every_group


def _wait_state_of(row: Row, position: Position) -> WaitState:
    """The state of one change, from the state of its document and from its own outcome, whichever knows first."""
    if row["outcome"] == Outcome.SUPERSEDED:
        return WaitState(WaitVerdict.SUPERSEDED, row["outcome_reason"])
    revision = _revision_at(row, position)
    if revision is None or row["revision"] is None or row["revision"] < revision:
        return _not_applied(row)
    if row["stage"] == DocumentStage.DELETED:
        # In force from the moment it was admitted; nothing of it is left to wait for.
        is_newest = revision in (row["revision"], row["invisible_upto"])
        return WaitState(WaitVerdict.EMBEDDED) if is_newest else _superseded()
    applied = -1 if row["applied_revision"] is None else row["applied_revision"]
    if applied > revision:
        return _superseded()
    if applied == revision:
        return WaitState(WaitVerdict.SEARCHABLE if row["unembedded"] else WaitVerdict.EMBEDDED)
    if row["failed_revision"] == revision:
        return WaitState(WaitVerdict.FAILED, row["failure_reason"])
    return _not_applied(row)


def _not_applied(row: Row) -> WaitState:
    """Not applied: it is on its way, unless its outcome says otherwise."""
    if row["outcome"] == Outcome.FAILED:
        return WaitState(WaitVerdict.FAILED, row["outcome_reason"])
    return WaitState(WaitVerdict.PENDING)


def _superseded() -> WaitState:
    return WaitState(WaitVerdict.SUPERSEDED, "newer-change-known")


def _revision_at(row: Row, position: Position) -> int | None:
    """The revision of the record at a position; None while only the record itself knows."""
    if row["outcome_revision"] is not None:
        return int(row["outcome_revision"])
    if row["ordering"] == Ordering.LOG:
        return position.revision
    here = (position.epoch, position.partition, position.offset)
    return row["revision"] if (row["epoch"], row["partition"], row["record_offset"]) == here else None


def _record_of(row: Row) -> DocumentRecord:
    key = DocumentKey(row["tenant"], row["collection"], row["document_id"])
    return DocumentRecord(
        key=key,
        stage=DocumentStage(row["stage"]),
        revision=row["revision"],
        applied_revision=row["applied_revision"],
        title=row["title"],
        url=row["url"],
        content_type=row["content_type"],
        size_bytes=row["shown_size_bytes"] if row["size_bytes"] is None else row["size_bytes"],
        passages=row["passages"],
        passages_without_vector=row["unembedded"],
        access_level=_LEVELS[row["access_level"]],
        allowed_groups=tuple(row["allowed_groups"]),
        metadata=row["metadata"] or {},
        accepted_at=row["accepted_at"],
        position=Position(row["epoch"], row["partition"], row["record_offset"], key).encode(),
        failure_reason=row["failure_reason"],
        failure_detail=row["failure_detail"],
        failed_revision=row["failed_revision"],
    )
