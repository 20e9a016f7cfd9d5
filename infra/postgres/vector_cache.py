"""Vectors of everything that was embedded lately, so that nothing is embedded twice."""

from collections.abc import Mapping, Sequence

import numpy as np

from infra.postgres.pool import Pool
from streams.model import FloatVector

_FLOAT32 = np.dtype("<f4")

# The two counters are for ``leat status``; they count work done, also where another process was quicker to store it.
_PUT = """
with stored as (
    insert into vector_cache (tenant, fingerprint, content_hash, vector)
    select $1, $2, content_hash, vector from unnest($3::bytea[], $4::bytea[]) as v (content_hash, vector)
    on conflict do nothing
)
insert into counters as c (name, value)
values ('embedded_passages', $5::bigint), ('embedded_tokens', $6::bigint)
on conflict (name) do update set value = c.value + excluded.value
"""


class PostgresVectorCache:
    """``VectorCache``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, tenant: str, fingerprint: str, hashes: Sequence[bytes]) -> dict[bytes, FloatVector]:
        """Vectors of those texts that are known. They are marked as used today."""
        if not hashes:
            return {}
        rows = await self._pool.fetch(
            """
            select content_hash, vector, last_used_on < current_date as unused_today from vector_cache
            where tenant = $1 and fingerprint = $2 and content_hash = any($3::bytea[])
            """,
            tenant,
            fingerprint,
            hashes,
        )
        unused_today = sorted(row["content_hash"] for row in rows if row["unused_today"])
        if unused_today:
            await self._touch(tenant, fingerprint, unused_today)
        return {row["content_hash"]: np.frombuffer(row["vector"], _FLOAT32) for row in rows}

    async def put(self, tenant: str, fingerprint: str, vectors: Mapping[bytes, FloatVector], *, tokens: int) -> None:
        if not vectors:
            return
        # Sorted: two processes that store the same texts must not wait for each other in a ring.
        hashes = sorted(vectors)
        raw = [np.ascontiguousarray(vectors[content_hash], _FLOAT32).tobytes() for content_hash in hashes]
        await self._pool.execute(_PUT, tenant, fingerprint, hashes, raw, len(hashes), tokens)

    async def evict(self, *, unused_for_days: int = 30) -> int:
        """Drop vectors that nobody has asked for; returns how many."""
        return await self._pool.execute(
            "delete from vector_cache where last_used_on < current_date - $1::integer", unused_for_days
        )

    async def _touch(self, tenant: str, fingerprint: str, hashes: Sequence[bytes]) -> None:
        await self._pool.executemany(
            "update vector_cache set last_used_on = current_date"
            " where tenant = $1 and fingerprint = $2 and content_hash = $3 and last_used_on < current_date",
            [(tenant, fingerprint, content_hash) for content_hash in hashes],
        )
