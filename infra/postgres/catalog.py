"""Collections and their generations."""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from infra.postgres.pool import Connection, Pool, Row
from schemas.access import AccessLevel
from streams.errors import PermanentError
from streams.model import Collection, EmbeddingModel, Generation, GenerationState, LogPlace, OnFailure, Ordering

# Collections change rarely and are looked at for every record and every question. A switch of generations is seen by
# every process within this time; until then it answers from the old one, which keeps up. A switch back is promised
# within 500 ms.
CACHE_S = 0.25

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LEVELS = list(AccessLevel)

GENERATION = """
select g.*, g.served_until > clock_timestamp() - interval '1 minute' as served_lately from generations g
"""


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """How a collection is indexed that is written to for the first time."""

    model: EmbeddingModel
    chunk_tokens: int
    chunk_overlap: int
    parsers: tuple[tuple[str, str], ...] = ()


class PostgresCatalog:
    """``Catalog``, with answers kept for ``CACHE_S``."""

    def __init__(self, pool: Pool, *, new_generation: NewGeneration | Callable[[], Awaitable[NewGeneration]]) -> None:
        """``new_generation`` may be found out when the first collection is created: some models must be asked."""
        self._pool = pool
        self._new_generation = new_generation
        self._collections: dict[tuple[str, str], tuple[float, Collection]] = {}
        self._generations: dict[int, tuple[float, Generation]] = {}
        self._ends: dict[tuple[str, str], tuple[float, dict[int, tuple[int, int]]]] = {}

    async def collection(self, tenant: str, name: str) -> Collection:
        """The collection; created with the defaults when it is not there.

        Raises:
            PermanentError: ``invalid-name``, of the tenant or the collection.
        """
        found = await self.find(tenant, name)
        if found is not None:
            return found
        for label, value in (("tenant", tenant), ("collection", name)):
            if not _NAME.fullmatch(value):
                raise PermanentError(
                    "invalid-name", f"{label} {value!r}: want 1 to 63 characters a-z, 0-9 or '-', not starting with '-'"
                )
        return await self._create(tenant, name)

    async def receiving(self, tenant: str, name: str, at: LogPlace) -> Collection | None:
        """Creates no collection for a record from before its end: the two are looked at in this order."""
        found = await self.find(tenant, name)
        if await self.is_over(tenant, name, at, afresh=found is None):
            return None
        return found or await self.collection(tenant, name)

    async def is_over(self, tenant: str, name: str, at: LogPlace, *, afresh: bool = False) -> bool:
        read_at, ends = self._ends.get((tenant, name), (-CACHE_S, {}))
        if afresh or time.monotonic() - read_at >= CACHE_S:
            read_at = time.monotonic()
            rows = await self._pool.fetch(
                "select partition, epoch, ends_at from collection_ends where tenant = $1 and collection = $2",
                tenant,
                name,
            )
            ends = {row["partition"]: (row["epoch"], row["ends_at"]) for row in rows}
            self._ends[tenant, name] = (read_at, ends)
        return (at.epoch, at.offset) < ends.get(at.partition, (-1, -1))

    async def _create(self, tenant: str, name: str) -> Collection:
        given = self._new_generation
        new_generation = given if isinstance(given, NewGeneration) else await given()
        async with self._pool.transaction() as connection:
            # Whoever comes second waits here for the first one's commit, and then inserts nothing.
            inserted = await connection.fetchval(
                "insert into collections (tenant, collection) values ($1, $2) on conflict do nothing returning true",
                tenant,
                name,
            )
            if inserted:
                await insert_generation(connection, tenant, name, new_generation, state="serving")
        created = await self._read(tenant, name)
        assert created is not None
        return created

    async def find(self, tenant: str, name: str) -> Collection | None:
        read_at, collection = self._collections.get((tenant, name), (-CACHE_S, None))
        if collection is not None and time.monotonic() - read_at < CACHE_S:
            return collection
        return await self._read(tenant, name)

    async def generation(self, generation_id: int) -> Generation | None:
        read_at, generation = self._generations.get(generation_id, (-CACHE_S, None))
        if generation is not None and time.monotonic() - read_at < CACHE_S:
            return generation
        row = await self._pool.fetchrow(f"{GENERATION} where g.generation_id = $1", generation_id)
        if row is None:
            return None
        generation = generation_of(row)
        self._generations[generation_id] = (time.monotonic(), generation)
        return generation

    def last_seen(self, generation_id: int) -> Generation | None:
        """The generation as it was when this process last looked at it, however long ago."""
        _, generation = self._generations.get(generation_id, (0.0, None))
        return generation

    async def collections(self, tenant: str | None = None) -> list[Collection]:
        """Every collection (of a tenant), by tenant and name."""
        names = await self._pool.fetch(
            "select tenant, collection from collections where $1::text is null or tenant = $1 order by 1, 2", tenant
        )
        found = [await self.find(row["tenant"], row["collection"]) for row in names]
        return [collection for collection in found if collection is not None]

    async def _read(self, tenant: str, name: str) -> Collection | None:
        read_at = time.monotonic()
        # One statement, so that the collection and its generations are of one moment.
        rows = await self._pool.fetch(
            """
            select g.*, g.served_until > clock_timestamp() - interval '1 minute' as served_lately,
                   c.ordering, c.on_failure, c.default_access_level, c.default_allowed_groups
            from collections c join generations g using (tenant, collection)
            where c.tenant = $1 and c.collection = $2 and g.state <> 'retired'
            order by g.number
            """,
            tenant,
            name,
        )
        live = tuple(generation_of(row) for row in rows)
        serving = next((generation for generation in live if generation.state is GenerationState.SERVING), None)
        if serving is None:
            self._collections.pop((tenant, name), None)
            return None
        collection = Collection(
            tenant=tenant,
            name=name,
            ordering=Ordering(rows[0]["ordering"]),
            on_failure=OnFailure(rows[0]["on_failure"]),
            default_access_level=_LEVELS[rows[0]["default_access_level"]],
            default_allowed_groups=tuple(rows[0]["default_allowed_groups"]),
            serving=serving,
            live=live,
        )
        self._collections[tenant, name] = (read_at, collection)
        return collection


async def insert_generation(
    connection: Connection, tenant: str, name: str, new_generation: NewGeneration, *, state: str
) -> int:
    """The next generation of a collection; returns its id. One that was deleted and came back counts on."""
    model = new_generation.model
    generation_id: int = await connection.fetchval(
        """
        insert into generations (tenant, collection, number, state, embedding_model, embedding_fingerprint,
                                 dimensions, max_tokens, chunk_tokens, chunk_overlap, parsers)
        select $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, $7, $8, $9, $10
        from generations where tenant = $1 and collection = $2
        returning generation_id
        """,
        tenant,
        name,
        state,
        model.name,
        model.fingerprint,
        model.dimensions,
        model.max_tokens,
        new_generation.chunk_tokens,
        new_generation.chunk_overlap,
        dict(new_generation.parsers),
    )
    return generation_id


def generation_of(row: Row) -> Generation:
    """From a row of ``GENERATION``."""
    return Generation(
        generation_id=row["generation_id"],
        tenant=row["tenant"],
        collection=row["collection"],
        number=row["number"],
        state=GenerationState(row["state"]),
        model=EmbeddingModel(
            name=row["embedding_model"],
            fingerprint=row["embedding_fingerprint"],
            dimensions=row["dimensions"],
            max_tokens=row["max_tokens"],
        ),
        chunk_tokens=row["chunk_tokens"],
        chunk_overlap=row["chunk_overlap"],
        parsers=tuple(sorted(row["parsers"].items())),
        served_lately=bool(row["served_lately"]),
    )
