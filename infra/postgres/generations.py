"""Generations for people: begun, listed, compared, switched, retired, and removed."""

import time
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import asyncpg

from infra.postgres.catalog import GENERATION, generation_of, insert_generation
from infra.postgres.collections import PlanGeneration
from infra.postgres.jobs import insert_job
from infra.postgres.pool import Connection, Pool, Row
from streams.generations import (
    CollectionSettings,
    Counts,
    Difference,
    GenerationRecord,
    GenerationRefused,
    Reindex,
    Switched,
)
from streams.jobs import JobType
from streams.model import Generation, GenerationState
from streams.question_file import questions_in

LISTED_DIFFERENCES = 50
PURGED_AT_ONCE = 5000

_LIST = f"""
with g as (
    {GENERATION} join collections c using (tenant, collection)
    where tenant = $1 and ($2::text is null or collection = $2) and g.created_at >= c.created_at)
select g.*,
       (select count(*) from manifests m where m.generation_id = g.generation_id and not m.deleted) as documents,
       (select count(*) from passages p where p.generation_id = g.generation_id) as passages,
       (select count(*) from passages p where p.generation_id = g.generation_id and not p.embedded) as unembedded
from g order by g.collection, g.number
"""  # noqa: S608 - made of constants

_STANDING = f"""
{GENERATION}
where g.state = 'standby'
   or g.state = 'building' and not exists (
        select from jobs j
        where j.tenant = g.tenant and j.collection = g.collection and j.type = 'reindex' and j.finished_at is null)
   or g.state = 'serving' and exists (
        select from passages p where p.generation_id = g.generation_id and not p.embedded)
"""  # noqa: S608 - made of constants

# What two generations can show of each document. $1 tenant, $2 collection, $3 serving generation, $4 the other one.
_SHOWN = """
with shown as (
    select d.document_id, s.applied_revision as serving, s.passages as serving_passages,
           c.applied_revision as candidate, c.passages as candidate_passages, c.unembedded as unembedded
    from documents d
    left join manifests s on s.generation_id = $3 and s.document_key = d.document_key
                             and s.applied_revision > d.invisible_upto
    left join manifests c on c.generation_id = $4 and c.document_key = d.document_key
                             and c.applied_revision > d.invisible_upto
    where d.tenant = $1 and d.collection = $2 and not d.deleted
)
"""
_COUNTS = (
    _SHOWN
    + """
select count(serving) as serving_documents, count(candidate) as candidate_documents,
       coalesce(sum(serving_passages), 0)::bigint as serving_passages,
       coalesce(sum(candidate_passages), 0)::bigint as candidate_passages,
       coalesce(sum(unembedded), 0)::bigint as unembedded,
       count(*) filter (where serving > coalesce(candidate, -1)) as behind,
       count(*) filter (where serving is null and candidate is not null) as ahead
from shown
"""
)
_DIFFERENCES = f"""
{_SHOWN}
select document_id, serving, candidate,
       (select l.reason from dead_letters l
        where l.tenant = $1 and l.collection = $2 and l.document_id = shown.document_id and l.revision >= serving
        order by l.died_at desc limit 1) as reason
from shown
where serving > coalesce(candidate, -1) or (serving is null and candidate is not null)
order by serving is null, document_id limit $5
"""  # noqa: S608 - made of constants

# Which changes wait for the generation that serves from now on; few rows differ, and they are locked in the order in
# which everybody locks documents. A deleted document that the generation never held has nothing left to apply.
_PENDING = """
with judged as (
    select d.document_key, d.tenant, d.collection, d.document_id,
           case when d.deleted then coalesce(m.applied_revision < d.invisible_upto, false)
                else coalesce(m.applied_revision, -1) < d.revision and coalesce(d.failed_revision, -1) < d.revision
           end as waits
    from documents d
    left join manifests m on m.generation_id = $3 and m.document_key = d.document_key
    where d.tenant = $1 and d.collection = $2
), locked as (
    select d.document_key, judged.waits
    from documents d join judged using (document_key)
    where (d.pending_since is not null) <> judged.waits
    order by d.tenant, d.collection, d.document_id
    for no key update of d
)
update documents d set pending_since = case when locked.waits then d.accepted_at end
from locked where d.document_key = locked.document_key
"""

_QUESTIONS = """
select query from (
    select query, max(asked_at) as last_at from answers where tenant = $1 and collection = $2 group by query) asked
order by last_at desc limit $3
"""
# The same headings every time, from all over the collection.
_HEADINGS = """
select distinct trim(coalesce(p.heading_path ->> -1, m.title)) as heading
from (
    select generation_id, document_key, heading_path from passages
    where generation_id = $1 order by md5(content_hash) limit $2) p
join manifests m using (generation_id, document_key)
where trim(coalesce(p.heading_path ->> -1, m.title)) <> ''
order by 1
"""


class PostgresGenerationStore:
    """``GenerationDesk``, and what removes retired generations."""

    def __init__(self, pool: Pool, *, plan: PlanGeneration) -> None:
        self._pool = pool
        self._plan = plan

    async def begin(
        self, tenant: str, collection: str, settings: CollectionSettings, payload: Mapping[str, Any]
    ) -> Reindex:
        serving = await self._serving(tenant, collection)
        new_generation = await self._plan(settings, serving)
        try:
            async with self._pool.transaction() as connection:
                rows = await connection.fetch(
                    "select number, state from generations where tenant = $1 and collection = $2 for no key update",
                    tenant,
                    collection,
                )
                if building := [row["number"] for row in rows if row["state"] == GenerationState.BUILDING]:
                    raise GenerationRefused(
                        "already-building",
                        f"generation {building[0]} of {collection!r} is there already: switch to it, or retire it",
                    )
                number = max(row["number"] for row in rows) + 1
                generation_id = await insert_generation(
                    connection, tenant, collection, new_generation, state="building"
                )
                given = {
                    **payload,
                    "generation_id": generation_id,
                    "generation": number,
                    "replaces": serving.number,
                }
                job = await insert_job(connection, tenant, collection, JobType.REINDEX, given)
        except asyncpg.UniqueViolationError as error:
            raise GenerationRefused("already-building", f"collection {collection!r} is being reindexed") from error
        generation = await self.by_id(generation_id)
        assert generation is not None
        return Reindex(generation=generation, replaces=serving, job_id=job.job_id, options=payload)

    async def list_generations(self, tenant: str, collection: str | None = None) -> list[GenerationRecord]:
        return [_record_of(row) for row in await self._pool.fetch(_LIST, tenant, collection)]

    async def by_id(self, generation_id: int) -> Generation | None:
        """As it is now, past every cache."""
        row = await self._pool.fetchrow(f"{GENERATION} where g.generation_id = $1", generation_id)
        return None if row is None else generation_of(row)

    async def compare(self, tenant: str, collection: str, number: int) -> Counts:
        async with self._pool.connection() as connection:
            serving, candidate = await _pair(connection, tenant, collection, number)
            return await _compare(connection, serving, candidate)

    async def switch(self, tenant: str, collection: str, number: int, *, force: bool = False) -> Switched:
        started = time.perf_counter()
        async with self._pool.transaction() as connection:
            # Flips wait until this is over, so that what is compared is still so when it is switched. Reading goes on.
            await connection.execute("lock table manifests in share mode")
            serving, candidate = await _pair(connection, tenant, collection, number, lock=True)
            counts = await _compare(connection, serving, candidate)
            if not counts.may_serve and not force:
                raise GenerationRefused("behind", _what_is_missing(counts, number))
            await _let_serve(connection, serving, candidate)
        took_ms = round((time.perf_counter() - started) * 1000, 1)
        return Switched(serving.number, candidate.number, took_ms, force and not counts.may_serve, counts)

    async def retire(self, tenant: str, collection: str, number: int) -> None:
        row = await self._pool.fetchrow(
            f"{GENERATION} where g.tenant = $1 and g.collection = $2 and g.number = $3", tenant, collection, number
        )
        if row is None:
            raise GenerationRefused("no-such-generation", f"collection {collection!r} has no generation {number}")
        if row["state"] == GenerationState.SERVING:
            raise GenerationRefused("serving", f"generation {number} serves: switch to another one first")
        await self.retire_by_id(row["generation_id"])

    async def retire_by_id(self, generation_id: int) -> None:
        """Unless it serves. Twice is once."""
        await self._pool.execute(
            "update generations set state = 'retired', retired_at = clock_timestamp()"
            " where generation_id = $1 and state in ('building', 'standby')",
            generation_id,
        )

    async def retire_old(self, *, standby_for_s: float) -> int:
        """Those that ceased to serve that long ago; returns how many."""
        return await self._pool.execute(
            "update generations set state = 'retired', retired_at = clock_timestamp()"
            " where state = 'standby' and served_until < clock_timestamp() - make_interval(secs => $1)",
            standby_for_s,
        )

    async def standing(self) -> list[Generation]:
        """Those that stand by, those that are built and wait for their switch, and serving ones that lack a vector."""
        rows = await self._pool.fetch(_STANDING)
        return [generation_of(row) for row in rows]

    async def to_purge(self) -> list[Generation]:
        """Retired ones that nobody answers from any more.

        For ten minutes they are looked at again: a process that was stopped in the middle may still have written.
        """
        rows = await self._pool.fetch(
            f"{GENERATION} where g.state = 'retired'"
            " and greatest(g.retired_at, g.served_until) < clock_timestamp() - interval '5 seconds'"
            " and (g.purged_at is null or g.purged_at < g.retired_at + interval '10 minutes')"
        )
        return [generation_of(row) for row in rows]

    async def purge(self, generation_id: int) -> int:
        """Remove what the tables hold of a retired generation; returns how many rows went. Its points: the index."""
        removed = 0
        for table in ("passages", "manifests"):
            while gone := await self._pool.execute(
                f"delete from {table} where ctid = any(array("  # noqa: S608 - one of two constants
                f"select ctid from {table} where generation_id = $1 limit {PURGED_AT_ONCE}))",
                generation_id,
            ):
                removed += gone
        await self._pool.execute(
            "update generations set purged_at = clock_timestamp() where generation_id = $1", generation_id
        )
        return removed

    async def recent_questions(self, tenant: str, collection: str, *, limit: int) -> list[str]:
        rows = await self._pool.fetch(_QUESTIONS, tenant, collection, limit)
        if rows:
            return [row["query"] for row in rows]
        serving = await self._serving(tenant, collection)
        first = questions_in(files("infra").joinpath("first_questions.txt").read_text(encoding="utf-8"))[: limit // 2]
        headings = await self._pool.fetch(_HEADINGS, serving.generation_id, limit - len(first))
        return [*(row["heading"] for row in headings), *first]

    async def _serving(self, tenant: str, collection: str) -> Generation:
        row = await self._pool.fetchrow(
            f"{GENERATION} where g.tenant = $1 and g.collection = $2 and g.state = 'serving'", tenant, collection
        )
        if row is None:
            raise GenerationRefused("no-such-collection", f"there is no collection {collection!r}")
        return generation_of(row)


async def _pair(
    connection: Connection, tenant: str, collection: str, number: int, *, lock: bool = False
) -> tuple[Generation, Generation]:
    """The serving generation and the other one, which must be alive."""
    rows = await connection.fetch(
        f"{GENERATION} where g.tenant = $1 and g.collection = $2 and g.state <> 'retired' order by g.number"
        + (" for no key update" if lock else ""),
        tenant,
        collection,
    )
    live = [generation_of(row) for row in rows]
    serving = next((generation for generation in live if generation.state is GenerationState.SERVING), None)
    if serving is None:
        raise GenerationRefused("no-such-collection", f"there is no collection {collection!r}")
    candidate = next((generation for generation in live if generation.number == number), None)
    if candidate is None:
        numbers = ", ".join(str(generation.number) for generation in live)
        detail = f"collection {collection!r} has no live generation {number}; there are {numbers}"
        raise GenerationRefused("no-such-generation", detail)
    return serving, candidate


async def _compare(connection: Connection, serving: Generation, candidate: Generation) -> Counts:
    pair = (serving.tenant, serving.collection, serving.generation_id, candidate.generation_id)
    row = await connection.fetchrow(_COUNTS, *pair)
    assert row is not None
    differing = await connection.fetch(_DIFFERENCES, *pair, LISTED_DIFFERENCES) if row["behind"] or row["ahead"] else []
    return Counts(
        serving_documents=row["serving_documents"],
        candidate_documents=row["candidate_documents"],
        serving_passages=row["serving_passages"],
        candidate_passages=row["candidate_passages"],
        passages_without_vector=row["unembedded"],
        behind=row["behind"],
        ahead=row["ahead"],
        differences=tuple(Difference(d["document_id"], d["serving"], d["candidate"], d["reason"]) for d in differing),
    )


async def _let_serve(connection: Connection, serving: Generation, candidate: Generation) -> None:
    if serving.generation_id == candidate.generation_id:
        return
    await connection.execute(
        "update generations set state = 'standby', served_until = clock_timestamp() where generation_id = $1",
        serving.generation_id,
    )
    await connection.execute(
        "update generations set state = 'serving', serving_since = clock_timestamp(), served_until = null"
        " where generation_id = $1",
        candidate.generation_id,
    )
    await connection.execute(_PENDING, serving.tenant, serving.collection, candidate.generation_id)


def _what_is_missing(counts: Counts, number: int) -> str:
    missing = []
    if counts.behind:
        first = ", ".join(difference.document_id for difference in counts.differences[:3])
        missing.append(f"{counts.behind} documents are not there yet or older ({first})")
    if counts.passages_without_vector:
        missing.append(f"{counts.passages_without_vector} passages have no vector yet")
    return f"generation {number}: {' and '.join(missing)}; wait, or switch with --force"


def _record_of(row: Row) -> GenerationRecord:
    return GenerationRecord(
        generation=generation_of(row),
        documents=row["documents"],
        passages=row["passages"],
        passages_without_vector=row["unembedded"],
        created_at=row["created_at"],
        serving_since=row["serving_since"],
        served_until=row["served_until"],
        retired_at=row["retired_at"],
    )
