"""Collections for people: created, listed, changed."""

from collections.abc import Awaitable, Callable
from typing import Any

from infra.postgres.catalog import GENERATION, NewGeneration, generation_of, insert_generation
from infra.postgres.pool import Connection, Pool, Row
from schemas.access import AccessLevel
from streams.generations import CollectionRecord, CollectionSettings, GenerationRefused
from streams.model import Generation, OnFailure, Ordering

_LEVELS = list(AccessLevel)

PlanGeneration = Callable[[CollectionSettings, Generation | None], Awaitable[NewGeneration]]
"""How a generation is built, from what is asked for and the one before; asks the model's server where it has one.

Raises ``GenerationRefused`` for a model that cannot be had, or sizes that do not fit it.
"""

_COLLECTIONS = """
select c.*, g.generation_id,
       (select count(*) from documents d
        where d.tenant = c.tenant and d.collection = c.collection and not d.deleted) as documents
from collections c
join generations g on g.tenant = c.tenant and g.collection = c.collection and g.state = 'serving'
where c.tenant = $1 and ($2::text is null or c.collection = $2)
order by c.collection
"""
_INSERT = """
insert into collections (tenant, collection, ordering, on_failure, default_access_level, default_allowed_groups,
                         history_days)
values ($1, $2, coalesce($3, 'log'), coalesce($4, 'keep'), coalesce($5, 0), coalesce($6, '{}'::text[]),
        coalesce($7, 7))
on conflict do nothing returning true
"""
_UPDATE = """
update collections set
    ordering = coalesce($3, ordering), on_failure = coalesce($4, on_failure),
    default_access_level = coalesce($5, default_access_level),
    default_allowed_groups = coalesce($6, default_allowed_groups),
    -- A wider window does not bring back what the narrower one has let go.
    history_since = case when $7 <> history_days
                         then greatest(history_since, clock_timestamp() - make_interval(days => history_days))
                         else history_since end,
    history_days = coalesce($7, history_days)
where tenant = $1 and collection = $2
"""


class PostgresCollectionStore:
    """``CollectionDesk``."""

    def __init__(self, pool: Pool, *, plan: PlanGeneration) -> None:
        self._pool = pool
        self._plan = plan

    async def create(self, tenant: str, name: str, settings: CollectionSettings) -> CollectionRecord:
        new_generation = await self._plan(settings, None)
        async with self._pool.transaction() as connection:
            if not await connection.fetchval(_INSERT, tenant, name, *_columns(settings)):
                raise GenerationRefused("collection-exists", f"there is a collection {name!r} already: change it")
            await insert_generation(connection, tenant, name, new_generation, state="serving")
        created = await self.get(tenant, name)
        assert created is not None
        return created

    async def list_collections(self, tenant: str) -> list[CollectionRecord]:
        return await self._read(tenant, None)

    async def get(self, tenant: str, name: str) -> CollectionRecord | None:
        return next(iter(await self._read(tenant, name)), None)

    async def change(self, tenant: str, name: str, settings: CollectionSettings) -> CollectionRecord | None:
        present = await self.get(tenant, name)
        if present is None:
            return None
        new_generation = await self._plan(settings, present.serving) if settings.cuts_anew else None
        if new_generation is not None and _is_built_so(present.serving, new_generation):
            new_generation = None
        async with self._pool.transaction() as connection:
            # Whoever is in the log already was cut and numbered as it was: what says how cannot change under it.
            is_empty = not await connection.fetchval(
                "select exists (select from documents where tenant = $1 and collection = $2)", tenant, name
            )
            if settings.ordering not in (None, present.ordering) and not is_empty:
                detail = f"collection {name!r} has documents: create another one with ordering {settings.ordering}"
                raise GenerationRefused("ordering-is-fixed", detail)
            if new_generation is not None and not is_empty:
                detail = f"collection {name!r} has documents: build a new generation with `leat reindex {name}`"
                raise GenerationRefused("needs-reindex", detail)
            await connection.execute(_UPDATE, tenant, name, *_columns(settings))
            if new_generation is not None:
                await _replace(connection, tenant, name, new_generation)
        return await self.get(tenant, name)

    async def _read(self, tenant: str, name: str | None) -> list[CollectionRecord]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(_COLLECTIONS, tenant, name)
            generations = await connection.fetch(
                f"{GENERATION} where g.generation_id = any($1::bigint[])", [row["generation_id"] for row in rows]
            )
        serving = {row["generation_id"]: generation_of(row) for row in generations}
        return [_record_of(row, serving[row["generation_id"]]) for row in rows]


async def _replace(connection: Connection, tenant: str, name: str, new_generation: NewGeneration) -> None:
    """Another first generation for a collection without documents."""
    await connection.execute(
        "update generations set state = 'retired', retired_at = clock_timestamp(), served_until = clock_timestamp()"
        " where tenant = $1 and collection = $2 and state <> 'retired'",
        tenant,
        name,
    )
    await insert_generation(connection, tenant, name, new_generation, state="serving")


def _is_built_so(generation: Generation, wanted: NewGeneration) -> bool:
    return (generation.model, generation.chunk_tokens, generation.chunk_overlap, generation.parsers) == (
        wanted.model,
        wanted.chunk_tokens,
        wanted.chunk_overlap,
        wanted.parsers,
    )


def _columns(settings: CollectionSettings) -> tuple[Any, ...]:
    level = settings.default_access_level
    return (
        settings.ordering and settings.ordering.value,
        settings.on_failure and settings.on_failure.value,
        None if level is None else level.rank,
        settings.default_allowed_groups,
        settings.history_days,
    )


def _record_of(row: Row, serving: Generation) -> CollectionRecord:
    return CollectionRecord(
        name=row["collection"],
        ordering=Ordering(row["ordering"]),
        on_failure=OnFailure(row["on_failure"]),
        default_access_level=_LEVELS[row["default_access_level"]],
        default_allowed_groups=tuple(row["default_allowed_groups"]),
        created_at=row["created_at"],
        documents=row["documents"],
        serving=serving,
        history_days=row["history_days"],
    )
