"""``/api/v1/jobs``: work that takes longer than a request; started here, looked at, paused, cancelled, watched."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.answer_events import AnswerEvent
from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import not_found
from api.responses import event_stream, json_response, problems
from api.sse import AnswerEventsResponse
from schemas.access import Principal
from schemas.administration import IngestDirectoryRequest, JobItem, JobPage, JobProgress, RebuildRequest, ReplayRequest
from schemas.documents import Name
from streams.jobs import Job, JobDesk, JobStatus, JobType

LOOK_EVERY_S = 0.5
# What a job is about that is about no collection in particular.
EVERY_COLLECTION = "*"
_STREAM = event_stream("`progress` whenever it has changed, then `done`; each the whole job.")


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["jobs"])

    @router.get("/jobs", summary="List jobs", response_model=JobPage, responses=problems(503))
    async def jobs(
        principal: CurrentPrincipal,
        collection: Name | None = None,
        status: JobStatus | None = None,
        cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        """Newest first. Jobs that are over are forgotten after 24 hours."""
        found = await edge.administration.jobs.list_jobs(
            principal.tenant, collection=collection, status=status, before=cursor, limit=limit
        )
        more = found[-1].job_id if len(found) == limit else None
        return json_response(JobPage(jobs=tuple(item_of(job) for job in found), next_cursor=more))

    @router.get("/jobs/{job_id}", summary="One job", response_model=JobItem, responses=problems(404, 503))
    async def job(job_id: str, principal: CurrentPrincipal) -> Response:
        return json_response(item_of(await _owned(edge, job_id, principal)))

    @router.get("/jobs/{job_id}/stream", summary="Watch a job", responses={200: _STREAM, **problems(404, 429, 503)})
    async def watch(job_id: str, principal: CurrentPrincipal) -> Response:
        """Server-sent events until it is over. After a lost connection just come back."""
        with edge.seats.reserved(principal) as seat:
            first = await _owned(edge, job_id, principal)
            return AnswerEventsResponse(_changes(first, edge.administration.jobs), edge.options.sse, seat=seat)

    @router.post("/jobs/{job_id}/pause", summary="Pause a job", response_model=JobItem, responses=problems(404, 503))
    async def pause(job_id: str, principal: CurrentPrincipal) -> Response:
        """It keeps what it has done; the lanes are free for others."""
        return json_response(item_of(await _paused(edge, job_id, principal, paused=True)))

    @router.post("/jobs/{job_id}/resume", summary="Go on", response_model=JobItem, responses=problems(404, 503))
    async def resume(job_id: str, principal: CurrentPrincipal) -> Response:
        return json_response(item_of(await _paused(edge, job_id, principal, paused=False)))

    @router.delete(
        "/jobs/{job_id}", summary="Cancel a job", status_code=202, response_model=JobItem, responses=problems(404, 503)
    )
    async def cancel(job_id: str, principal: CurrentPrincipal) -> Response:
        """A reindex that is cancelled leaves nothing behind. A job that is over stays as it is."""
        await _owned(edge, job_id, principal)
        found = await edge.administration.jobs.cancel(principal.tenant, job_id)
        if found is None:
            raise not_found(f"job {job_id!r}")
        return json_response(item_of(found), status=202)

    @router.post(
        "/collections/{collection}/replay", summary="Replay the log", status_code=202, response_model=JobItem,
        responses=problems(404, 503),
    )  # fmt: skip
    async def replay(collection: Name, body: ReplayRequest, principal: CurrentPrincipal) -> Response:
        """Drive documents through the pipeline once more. `dry_run` counts only; what is level stays as it is."""
        if await edge.administration.collections.get(principal.tenant, collection) is None:
            raise not_found(f"collection {collection!r} does not exist")
        payload = {"from": body.from_, "to": body.to, "key": body.key, "dry_run": body.dry_run}
        return accepted(await edge.administration.jobs.create(principal.tenant, collection, JobType.REPLAY, payload))

    @router.post(
        "/query-log/rebuild", summary="Rebuild the query log", status_code=202, response_model=JobItem,
        responses=problems(503),
    )  # fmt: skip
    async def rebuild(body: RebuildRequest, principal: CurrentPrincipal) -> Response:
        """From the questions and answers topics, for as far back as they reach. `dry_run` counts only."""
        payload = {"dry_run": body.dry_run}
        return accepted(
            await edge.administration.jobs.create(
                principal.tenant, EVERY_COLLECTION, JobType.REBUILD_QUERY_LOG, payload
            )
        )

    @router.post(
        "/ingest/directory", summary="Ingest a folder of the server", status_code=202, response_model=JobItem,
        responses=problems(404, 503),
    )  # fmt: skip
    async def ingest(body: IngestDirectoryRequest, principal: CurrentPrincipal) -> Response:
        """Only under folders that `LEAT_INGEST_FOLDERS` names; 422 `folder-not-allowed` otherwise."""
        directory = await asyncio.to_thread(edge.administration.allowed_directory, body.directory)
        payload = {"directory": str(directory)}
        return accepted(
            await edge.administration.jobs.create(principal.tenant, body.collection, JobType.INGEST_DIRECTORY, payload)
        )

    return router


def item_of(job: Job) -> JobItem:
    progress = job.progress
    return JobItem(
        job_id=job.job_id,
        type=job.type.value,
        status=job.status.value,
        phase=job.phase,
        collection=job.collection,
        payload=dict(job.payload),
        progress=JobProgress(
            total_files=progress.total,
            processed_files=progress.processed,
            percentage=100.0 if job.status is JobStatus.COMPLETED else progress.percentage,
            details=dict(progress.details),
        ),
        result=None if job.result is None else dict(job.result),
        error=job.error,
        retry_count=job.retry_count,
        paused=job.paused,
        cancel_requested=job.cancel_requested,
        created_at=job.created_at,
        started_at=job.started_at,
        updated_at=job.updated_at,
        finished_at=job.finished_at,
        stream_url=f"/api/v1/jobs/{job.job_id}/stream",
    )


def accepted(job: Job) -> Response:
    """202, and where to look how it goes."""
    return json_response(item_of(job), status=202, headers={"Location": f"/api/v1/jobs/{job.job_id}"})


async def _owned(edge: Edge, job_id: str, principal: Principal) -> Job:
    found = await edge.administration.jobs.get(principal.tenant, job_id)
    if found is None:
        raise not_found(f"job {job_id!r}")
    return found


async def _paused(edge: Edge, job_id: str, principal: Principal, *, paused: bool) -> Job:
    await _owned(edge, job_id, principal)
    found = await edge.administration.jobs.pause(principal.tenant, job_id, paused=paused)
    if found is None:
        raise not_found(f"job {job_id!r}")
    return found


async def _changes(job: Job, desk: JobDesk) -> AsyncGenerator[AnswerEvent, None]:
    """The job as it is, and again whenever it has changed, until it is over."""
    said_at = None
    while True:
        if job.updated_at != said_at:
            said_at = job.updated_at
            name = "done" if job.status.is_final else "progress"
            yield AnswerEvent(None, name, item_of(job).model_dump_json())
            if job.status.is_final:
                return
        await asyncio.sleep(LOOK_EVERY_S)
        found = await desk.get(job.tenant, job.job_id)
        if found is None:
            return
        job = found
