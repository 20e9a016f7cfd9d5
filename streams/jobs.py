"""Work that takes longer than a request: what it is, how far it is, and who does it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class JobType(StrEnum):
    REINDEX = "reindex"
    REPLAY = "replay"
    INGEST_DIRECTORY = "ingest-directory"
    DELETE_COLLECTION = "delete-collection"
    REBUILD_QUERY_LOG = "rebuild-query-log"


class JobStatus(StrEnum):
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, in documents."""

    total: int = 0
    processed: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    """What this type of job can say beyond that: passages, rate_per_s, eta_s …"""

    @property
    def percentage(self) -> float:
        return round(100.0 * self.processed / self.total, 1) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Job:
    job_id: str
    tenant: str
    collection: str
    type: JobType
    status: JobStatus
    phase: str
    """What it is doing now, a short fixed word: ``backfill``, ``settle`` …"""
    payload: Mapping[str, Any]
    progress: Progress
    resume: Mapping[str, Any]
    """Where the work goes on after a crash; only its worker reads it."""
    result: Mapping[str, Any] | None
    error: str | None
    retry_count: int
    """How often the process that worked on it has died."""
    paused: bool
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


class JobCancelled(Exception):
    """Somebody wants the work to end; what it has made so far is to be removed."""


class JobClaim(Protocol):
    """The right to work on a job, alone in its collection. It is lost with the connection that it hangs on.

    Every method raises ``Unavailable`` once it is lost: stop at once, another process may have it.
    """

    @property
    def job(self) -> Job:
        """As last looked at."""
        ...

    async def checkpoint(self) -> None:
        """Wait while the job is paused.

        Raises:
            JobCancelled: it is to end.
        """
        ...

    async def save(
        self, *, phase: str | None = None, progress: Progress | None = None, resume: Mapping[str, Any] | None = None
    ) -> None:
        """Remember how far it is; what is left out stays as it was."""
        ...

    async def finish(
        self, status: JobStatus, *, result: Mapping[str, Any] | None = None, error: str | None = None
    ) -> None: ...


class JobDesk(Protocol):
    """Jobs for people: started, looked at, paused, cancelled."""

    async def create(self, tenant: str, collection: str, type_: JobType, payload: Mapping[str, Any]) -> Job: ...

    async def get(self, tenant: str, job_id: str) -> Job | None: ...

    async def list_jobs(
        self,
        tenant: str,
        *,
        collection: str | None = None,
        status: JobStatus | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Newest first; ``before``: the last id of the page before."""
        ...

    async def pause(self, tenant: str, job_id: str, *, paused: bool) -> Job | None: ...

    async def cancel(self, tenant: str, job_id: str) -> Job | None:
        """Ask for its end. A job that is over stays as it is."""
        ...


class JobQueue(Protocol):
    """Jobs for those who work on them."""

    async def unfinished(self) -> Sequence[Job]:
        """Oldest first."""
        ...

    def claim(self, job: Job) -> AbstractAsyncContextManager[JobClaim | None]:
        """The claim for as long as the block lasts; None where another process has it, or one in the collection."""
        ...

    async def forget_finished(self, *, older_than_s: float) -> int: ...


JobWork = Callable[[JobClaim], Awaitable[Mapping[str, Any]]]
"""Does a job and returns its result. Done again after a crash, it goes on where ``resume`` says.

Raises ``JobCancelled`` when asked to, having removed what it had made.
"""
