"""Jobs, and the right to work on one."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from infra.postgres.pool import Connection, Pool, Row, translated
from streams.errors import Unavailable
from streams.jobs import Job, JobCancelled, JobClaim, JobStatus, JobType, Progress

log = logging.getLogger(__name__)

PAUSED_LOOK_S = 0.3

_LOCK = "select pg_try_advisory_lock(hashtextextended('leat-collection/' || $1 || '/' || $2, 0))"
_UNLOCK = "select pg_advisory_unlock(hashtextextended('leat-collection/' || $1 || '/' || $2, 0))"

# A job that is being worked on and whose lock is free: whoever had it has died.
_TAKE = """
update jobs set
    status = 'PROCESSING',
    retry_count = retry_count + case when status = 'PROCESSING' then 1 else 0 end,
    started_at = coalesce(started_at, clock_timestamp()),
    updated_at = clock_timestamp()
where job_id = $1 and finished_at is null
returning *
"""
_SAVE = """
update jobs set
    phase = coalesce($2, phase), progress = coalesce($3, progress), resume = coalesce($4, resume),
    updated_at = clock_timestamp()
where job_id = $1 and finished_at is null
returning *
"""
_FINISH = """
update jobs set
    status = $2, result = $3, error = $4, paused = false, resume = '{}', updated_at = clock_timestamp(),
    finished_at = clock_timestamp()
where job_id = $1 and finished_at is null
"""
_LIST = """
select * from jobs
where tenant = $1 and ($2::text is null or collection = $2) and ($3::text is null or status = $3)
  and ($4::text is null or job_id < $4)
order by job_id desc limit $5
"""
# A job that nobody has begun can end at once.
_CANCEL = """
update jobs set cancel_requested = true, paused = false, updated_at = clock_timestamp()
where tenant = $1 and job_id = $2 and finished_at is null
"""


class PostgresJobStore:
    """``JobDesk`` and ``JobQueue``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, tenant: str, collection: str, type_: JobType, payload: Mapping[str, Any]) -> Job:
        async with self._pool.connection() as connection:
            return await insert_job(connection, tenant, collection, type_, payload)

    async def get(self, tenant: str, job_id: str) -> Job | None:
        row = await self._pool.fetchrow("select * from jobs where tenant = $1 and job_id = $2", tenant, job_id)
        return None if row is None else job_of(row)

    async def list_jobs(
        self,
        tenant: str,
        *,
        collection: str | None = None,
        status: JobStatus | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        rows = await self._pool.fetch(_LIST, tenant, collection, status and status.value, before, limit)
        return [job_of(row) for row in rows]

    async def pause(self, tenant: str, job_id: str, *, paused: bool) -> Job | None:
        await self._pool.execute(
            "update jobs set paused = $3, updated_at = clock_timestamp()"
            " where tenant = $1 and job_id = $2 and finished_at is null",
            tenant,
            job_id,
            paused,
        )
        return await self.get(tenant, job_id)

    async def cancel(self, tenant: str, job_id: str) -> Job | None:
        await self._pool.execute(_CANCEL, tenant, job_id)
        return await self.get(tenant, job_id)

    async def unfinished(self) -> Sequence[Job]:
        rows = await self._pool.fetch("select * from jobs where finished_at is null order by created_at, job_id")
        return [job_of(row) for row in rows]

    @asynccontextmanager
    async def claim(self, job: Job) -> AsyncIterator[JobClaim | None]:
        """A session lock of PostgreSQL: it goes with the connection, however this process ends."""
        async with self._pool.connection() as connection:
            if not await connection.fetchval(_LOCK, job.tenant, job.collection):
                yield None
                return
            try:
                row = await connection.fetchrow(_TAKE, job.job_id)
                yield None if row is None else _Claim(connection, job_of(row))
            finally:
                if not connection.is_closed():
                    await connection.fetchval(_UNLOCK, job.tenant, job.collection)

    async def forget_finished(self, *, older_than_s: float) -> int:
        return await self._pool.execute(
            "delete from jobs where finished_at < clock_timestamp() - make_interval(secs => $1)", older_than_s
        )


class _Claim:
    """``JobClaim``. Everything goes over the connection that holds the lock: without the lock, nothing is written."""

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self.job = job

    async def checkpoint(self) -> None:
        while True:
            self.job = await self._row("select * from jobs where job_id = $1", self.job.job_id)
            if self.job.cancel_requested:
                raise JobCancelled(self.job.job_id)
            if not self.job.paused:
                return
            await asyncio.sleep(PAUSED_LOOK_S)

    async def save(
        self, *, phase: str | None = None, progress: Progress | None = None, resume: Mapping[str, Any] | None = None
    ) -> None:
        stored = None if progress is None else _stored_progress(progress)
        self.job = await self._row(_SAVE, self.job.job_id, phase, stored, None if resume is None else dict(resume))

    async def finish(
        self, status: JobStatus, *, result: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None:
        async with self._turn:
            with translated():
                await self._connection.execute(
                    _FINISH, self.job.job_id, status.value, None if result is None else dict(result), error
                )
        log.info("job_finished", extra={"job_id": self.job.job_id, "type": self.job.type.value, "status": status.value})

    async def _row(self, sql: str, *values: Any) -> Job:
        async with self._turn:
            with translated():
                row = await self._connection.fetchrow(sql, *values)
        if row is None:
            raise Unavailable("postgres", f"job {self.job.job_id} is over or gone")
        return job_of(row)


async def insert_job(
    connection: Connection, tenant: str, collection: str, type_: JobType, payload: Mapping[str, Any]
) -> Job:
    """A job that waits for somebody to work on it."""
    row = await connection.fetchrow(
        "insert into jobs (job_id, tenant, collection, type, payload) values ($1, $2, $3, $4, $5) returning *",
        f"{int(time.time() * 1000):012x}{secrets.token_hex(6)}",
        tenant,
        collection,
        type_.value,
        dict(payload),
    )
    assert row is not None
    return job_of(row)


def job_of(row: Row) -> Job:
    progress = row["progress"]
    return Job(
        job_id=row["job_id"],
        tenant=row["tenant"],
        collection=row["collection"],
        type=JobType(row["type"]),
        status=JobStatus(row["status"]),
        phase=row["phase"],
        payload=row["payload"],
        progress=Progress(progress.get("total", 0), progress.get("processed", 0), progress.get("details", {})),
        resume=row["resume"],
        result=row["result"],
        error=row["error"],
        retry_count=row["retry_count"],
        paused=row["paused"],
        cancel_requested=row["cancel_requested"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
    )


def _stored_progress(progress: Progress) -> dict[str, Any]:
    return {"total": progress.total, "processed": progress.processed, "details": dict(progress.details)}
