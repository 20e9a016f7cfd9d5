"""Which records processes have died of."""

from infra.postgres.pool import Pool

_ADD = """
insert into crashes as c (consumer_group, record_name, times) values ($1, $2, 1)
on conflict (consumer_group, record_name) do update set times = c.times + 1, last_at = now()
"""


class PostgresCrashCounter:
    """``CrashCounter``: the counts as they were at start; a process that adds to them does not live to read them."""

    def __init__(self, pool: Pool, counts: dict[tuple[str, str], int]) -> None:
        self._pool = pool
        self._counts = counts

    @classmethod
    async def load(cls, pool: Pool) -> "PostgresCrashCounter":
        rows = await pool.fetch("select consumer_group, record_name, times from crashes")
        return cls(pool, {(row["consumer_group"], row["record_name"]): row["times"] for row in rows})

    def count(self, group: str, record_name: str) -> int:
        return self._counts.get((group, record_name), 0)

    async def add(self, group: str, record_name: str) -> None:
        await self._pool.execute(_ADD, group, record_name)
