"""Works on jobs: one at a time per collection, several collections at once, each to its end or until somebody cancels.

A job is a row; the right to work on it is a lock that goes with the connection. So a job whose process is killed is
taken up by the next one, or by the same one after its restart, where it had said that it goes on.
"""

import asyncio
import logging
from collections.abc import Mapping

from streams.errors import LeatError, TransientError, Unavailable
from streams.jobs import Job, JobCancelled, JobClaim, JobQueue, JobStatus, JobType, JobWork

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
AFTER_OUTAGE_S = 2.0
MAX_CONCURRENT = 3
# A job that brings its process down is not what should bring it down for ever.
MAX_RETRIES = 20
FORGET_AFTER_S = 24 * 3600.0


class JobRunner:
    """Takes jobs up as they come."""

    def __init__(self, queue: JobQueue, work: Mapping[JobType, JobWork]) -> None:
        self._queue = queue
        self._work = work
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """For ever. Raises what a job met that is a bug of ours."""
        try:
            while True:
                try:
                    await self._look()
                except (Unavailable, TransientError) as error:
                    log.info("jobs_postponed", extra={"cause": str(error)})
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self) -> None:
        for job_id, task in list(self._running.items()):
            if task.done():
                del self._running[job_id]
                task.result()
        for job in await self._queue.unfinished():
            if job.job_id not in self._running and len(self._running) < MAX_CONCURRENT and _is_wanted(job):
                self._running[job.job_id] = asyncio.create_task(self._take(job), name=f"job-{job.job_id}")

    async def _take(self, job: Job) -> None:
        try:
            async with self._queue.claim(job) as claim:
                if claim is not None:
                    await self._finish(claim)
        except (Unavailable, TransientError) as error:
            # The claim is lost, or its end could not be written: whoever looks next goes on.
            log.warning("job_let_go", extra={"job_id": job.job_id, "cause": str(error)})
            await asyncio.sleep(AFTER_OUTAGE_S)

    async def _finish(self, claim: JobClaim) -> None:
        job = claim.job
        if job.retry_count > MAX_RETRIES:
            await claim.finish(JobStatus.FAILED, error=f"crashed-the-process: {MAX_RETRIES} times")
            return
        log.info("job_taken", extra={"job_id": job.job_id, "type": job.type.value, "retry_count": job.retry_count})
        try:
            result = await self._persistently(claim)
        except JobCancelled:
            await claim.finish(JobStatus.CANCELLED)
        except LeatError as error:
            await claim.finish(JobStatus.FAILED, error=str(error))
        else:
            await claim.finish(JobStatus.COMPLETED, result=result)

    async def _persistently(self, claim: JobClaim) -> Mapping[str, object]:
        """A dependency that is away only postpones the work, as long as the claim stands."""
        while True:
            try:
                return await self._work[claim.job.type](claim)
            except (Unavailable, TransientError) as error:
                log.warning("job_held", extra={"job_id": claim.job.job_id, "cause": str(error)})
                await asyncio.sleep(AFTER_OUTAGE_S)
                await claim.save()


def _is_wanted(job: Job) -> bool:
    return not job.paused or job.status is JobStatus.PROCESSING or job.cancel_requested
