"""What became of every change: a projection of index-commits and dead-letters, for people and for the fold's state."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from infra.postgres.pool import Pool, Row
from schemas.documents import Change, DocumentKey
from schemas.pipeline import IndexCommitted, Lane, Outcome
from streams.model import DeadLetter

# A failure that was tried again with success becomes applied, also when the topic is read again from its beginning.
_OUTCOME = """
insert into outcomes as o (
    epoch, partition, record_offset, tenant, collection, document_id, revision, generation_id, event_id, outcome,
    change, reason, detail, lane, passages_added, passages_kept, passages_removed, accepted_at, committed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
on conflict (epoch, partition, record_offset) do update set
    outcome = excluded.outcome, change = excluded.change, reason = excluded.reason, detail = excluded.detail,
    generation_id = excluded.generation_id, passages_added = excluded.passages_added,
    passages_kept = excluded.passages_kept, passages_removed = excluded.passages_removed,
    committed_at = excluded.committed_at
where o.outcome = 'failed' and excluded.outcome = 'applied'
"""

# A failure counts if it is the newest word about the text, if a generation that is only being built is not its place,
# and if no later attempt has succeeded. What is shown stays or is hidden, as the collection says; hidden up to just
# below the failed revision, so that this one shows once it is tried again with success. A record that could not even be
# decoded was never admitted: its revision is above the document's.
# $1-$3 key, $4 revision, $5 generation or null, $6 reason, $7 detail.
_FAILED = """
update documents d set
    failed_revision = $4::bigint, failure_reason = $6, failure_detail = $7,
    pending_since = case when d.revision = $4 then null
                         when d.revision > $4 and d.pending_since is not null then d.accepted_at
                         else d.pending_since end,
    invisible_upto = case c.on_failure when 'hide' then greatest(d.invisible_upto, least($4 - 1, d.revision))
                                       else d.invisible_upto end
from collections c
join generations g on g.tenant = c.tenant and g.collection = c.collection and g.state = 'serving'
where d.tenant = $1 and d.collection = $2 and d.document_id = $3
  and c.tenant = d.tenant and c.collection = d.collection
  and not d.deleted and $4 >= d.content_revision
  and ($5::bigint is null or $5 = g.generation_id)
  and not exists (
    select 1 from manifests m
    where m.generation_id = g.generation_id and m.document_key = d.document_key and m.applied_revision >= $4)
"""

# An access change says nothing about the text, so it resolves no letter but its own.
_RESOLVE = """
update dead_letters set resolved_at = clock_timestamp()
where tenant = $1 and collection = $2 and document_id = $3 and resolved_at is null
  and (revision = $4 or (revision < $4 and $5::boolean))
"""

# A letter may be recorded after a replay of it has been applied already, when the topic is read again.
_LETTER = """
insert into dead_letters (
    letter_partition, letter_offset, key, tenant, collection, document_id, reason, detail, stage, attempts, topic,
    partition, record_offset, consumer_group, lane, revision, event_id, size_bytes, died_at, resolved_at)
values ($1, $2, $3, $4::text, $5::text, $6::text, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::bigint, $17, $18, $19,
    (select min(committed_at) from outcomes
     where tenant = $4 and collection = $5 and document_id = $6 and revision >= $16 and outcome = 'applied'))
on conflict do nothing
"""

# A record that was tried again and failed again has one open letter, the newest: else each replay of all would double
# them.
_SUPERSEDED = """
update dead_letters old set resolved_at = new.died_at
from dead_letters new
where (new.letter_partition, new.letter_offset) in (select * from unnest($1::integer[], $2::bigint[]))
  and (old.topic, old.partition, old.record_offset) = (new.topic, new.partition, new.record_offset)
  and old.key is not distinct from new.key
  and (old.died_at, old.letter_partition, old.letter_offset)
      < (new.died_at, new.letter_partition, new.letter_offset)
  and old.resolved_at is null
"""

_LIST = """
select * from dead_letters
where ($1 or resolved_at is null)
  and ($2::text is null or reason = $2)
  and ($3::text is null or tenant = $3)
  and ($4::text is null or collection = $4)
  and ($5::timestamptz is null or (died_at, letter_partition, letter_offset) < ($5, $6::integer, $7::bigint))
order by died_at desc, letter_partition desc, letter_offset desc
limit $8
"""


class PostgresOutcomeStore:
    """Written by the recorder, read by the API and the command line. Every write is idempotent."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record_outcomes(self, outcomes: Sequence[IndexCommitted]) -> None:
        """Project outcomes, in the order of their topic."""
        if not outcomes:
            return
        by_document = sorted(outcomes, key=lambda outcome: outcome.key)
        failed = [_failure_row(outcome) for outcome in by_document if outcome.outcome is Outcome.FAILED]
        applied = [_applied_row(outcome) for outcome in by_document if outcome.outcome is Outcome.APPLIED]
        async with self._pool.transaction() as connection:
            await connection.executemany(_OUTCOME, [_outcome_row(outcome) for outcome in outcomes])
            if failed:
                await connection.executemany(_FAILED, failed)
            if applied:
                await connection.executemany(_RESOLVE, applied)

    async def record_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        places = sorted(_place(letter.letter_id) for letter in letters)
        async with self._pool.transaction() as connection:
            await connection.executemany(_LETTER, [_letter_row(letter) for letter in letters])
            await connection.execute(_SUPERSEDED, [p for p, _ in places], [offset for _, offset in places])

    async def list_dead_letters(
        self,
        *,
        include_resolved: bool = False,
        reason: str | None = None,
        tenant: str | None = None,
        collection: str | None = None,
        before: DeadLetter | None = None,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Newest first, without their values (those are in the topic); ``before``: the last one of the page before."""
        died_at, partition, offset = (
            (None, None, None) if before is None else (before.died_at, *_place(before.letter_id))
        )
        rows = await self._pool.fetch(
            _LIST, include_resolved, reason, tenant, collection, died_at, partition, offset, limit
        )
        return [_letter_of(row) for row in rows]

    async def get(self, letter_id: str) -> DeadLetter | None:
        """A dead letter by ``partition-offset``; None also when the id is malformed."""
        try:
            place = _place(letter_id)
        except ValueError:
            return None
        row = await self._pool.fetchrow(
            "select * from dead_letters where letter_partition = $1 and letter_offset = $2", *place
        )
        return None if row is None else _letter_of(row)

    async def mark_replayed(self, letter_ids: Sequence[str]) -> None:
        """They were put on the retries topic; they count as resolved when the outcome comes."""
        await self._pool.executemany(
            "update dead_letters set replayed_at = clock_timestamp()"
            " where letter_partition = $1 and letter_offset = $2",
            sorted(_place(letter_id) for letter_id in letter_ids),
        )


def _place(letter_id: str) -> tuple[int, int]:
    """Partition and offset in the dead-letter topic. Raises ``ValueError``."""
    partition, _, offset = letter_id.partition("-")
    return int(partition), int(offset)


def _outcome_row(outcome: IndexCommitted) -> tuple[Any, ...]:
    origin = outcome.origin
    return (
        origin.epoch,
        origin.partition,
        origin.offset,
        *outcome.key,
        outcome.revision,
        outcome.generation_id,
        outcome.event_id,
        outcome.outcome.value,
        outcome.change and outcome.change.value,
        outcome.reason,
        outcome.detail,
        origin.lane.value,
        outcome.passages_added,
        outcome.passages_kept,
        outcome.passages_removed,
        origin.accepted_at,
        outcome.committed_at,
    )


def _failure_row(outcome: IndexCommitted) -> tuple[Any, ...]:
    return (*outcome.key, outcome.revision, outcome.generation_id, outcome.reason, outcome.detail)


def _applied_row(outcome: IndexCommitted) -> tuple[Any, ...]:
    return (*outcome.key, outcome.revision, outcome.change is not Change.ACCESS)


def _letter_row(letter: DeadLetter) -> tuple[Any, ...]:
    key = _document_of(letter.key)
    return (
        *_place(letter.letter_id),
        letter.key,
        *(key or (None, None, None)),
        letter.reason,
        letter.detail,
        letter.stage,
        letter.attempts,
        letter.topic,
        letter.partition,
        letter.offset,
        letter.group,
        letter.lane and letter.lane.value,
        letter.revision,
        letter.event_id,
        len(letter.value or b""),
        letter.died_at,
    )


def _document_of(key: bytes | None) -> DocumentKey | None:
    """The document that a record was about; None when its key names none, which may be why it is dead."""
    try:
        return None if key is None else DocumentKey.parse(key)
    except ValueError:
        return None


def _letter_of(row: Row) -> DeadLetter:
    died_at: datetime = row["died_at"]
    return DeadLetter(
        letter_id=f"{row['letter_partition']}-{row['letter_offset']}",
        key=row["key"],
        reason=row["reason"],
        detail=row["detail"],
        stage=row["stage"],
        attempts=row["attempts"],
        topic=row["topic"],
        partition=row["partition"],
        offset=row["record_offset"],
        group=row["consumer_group"],
        died_at=died_at,
        revision=row["revision"],
        event_id=row["event_id"],
        lane=row["lane"] and Lane(row["lane"]),
        replayed_at=row["replayed_at"],
        resolved_at=row["resolved_at"],
        size_bytes=row["size_bytes"],
    )
