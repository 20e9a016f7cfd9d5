"""Generations of a collection: built from the log beside the serving one, compared with it, switched, retired."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.administration import refusals
from api.auth import CurrentPrincipal
from api.edge import Edge
from api.jobs import accepted
from api.problems import not_found
from api.responses import json_response, problems
from schemas.access import Principal
from schemas.administration import (
    CountsItem,
    GenerationItem,
    GenerationList,
    JobItem,
    ParityReport,
    ParityRequest,
    RebuildRequest,
    ReindexRequest,
    SwitchRequest,
    SwitchResult,
)
from schemas.documents import Name
from streams.generations import CollectionSettings, GenerationRecord
from streams.jobs import JobType
from streams.model import Collection, Generation
from streams.parity import Searching, parity

# Somebody waits for the report: the last questions of a collection are enough to see whether it answers alike.
QUESTIONS = 20
# An index that was lost answers nothing: what it finds is no measure of what takes its place.
REBUILD = {"switch": True, "min_overlap": 0.0, "drop_replaced": True}

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["collections"])

    @router.get("/generations", summary="List all generations", response_model=GenerationList, responses=problems(503))
    async def every_generation(principal: CurrentPrincipal) -> Response:
        """Of every collection, the retired ones included."""
        return json_response(await _listed(edge, principal, None))

    @router.get(
        "/collections/{collection}/generations", summary="List generations", response_model=GenerationList,
        responses=problems(404, 503),
    )  # fmt: skip
    async def generations(collection: Name, principal: CurrentPrincipal) -> Response:
        """In the order in which they were begun."""
        found = await _listed(edge, principal, collection)
        if not found.generations:
            raise not_found(f"collection {collection!r} does not exist")
        return json_response(found)

    @router.post(
        "/collections/{collection}/reindex", summary="Build a generation", status_code=202, response_model=JobItem,
        responses=problems(404, 409, 503),
    )  # fmt: skip
    async def reindex(collection: Name, body: ReindexRequest, principal: CurrentPrincipal) -> Response:
        """A job that fills it from the log. The serving generation goes on serving; both get every change."""
        payload = {
            "switch": body.switch,
            "min_overlap": body.min_overlap,
            "questions": list(body.questions),
        }
        wanted = CollectionSettings(
            embedding_model=body.embedding_model,
            chunk_tokens=body.chunk_tokens,
            chunk_overlap=body.chunk_overlap,
            parsers=body.parsers,
        )
        with refusals():
            begun = await edge.administration.generations.begin(principal.tenant, collection, wanted, payload)
        job = await edge.administration.jobs.get(principal.tenant, begun.job_id)
        if job is None:
            raise not_found(f"job {begun.job_id!r}")
        return accepted(job)

    @router.post(
        "/collections/{collection}/rebuild", summary="Build the whole index anew", status_code=202,
        response_model=JobItem, responses=problems(404, 409, 503),
    )  # fmt: skip
    async def rebuild(collection: Name, body: RebuildRequest, principal: CurrentPrincipal) -> Response:
        """From the log, with the same settings; questions are answered from the present one, which is dropped then."""
        administration = edge.administration
        if await administration.collections.get(principal.tenant, collection) is None:
            raise not_found(f"collection {collection!r} does not exist")
        if body.dry_run:
            counting = {"from": "earliest", "dry_run": True}
            return accepted(await administration.jobs.create(principal.tenant, collection, JobType.REPLAY, counting))
        with refusals():
            begun = await administration.generations.begin(principal.tenant, collection, CollectionSettings(), REBUILD)
        job = await administration.jobs.get(principal.tenant, begun.job_id)
        if job is None:
            raise not_found(f"job {begun.job_id!r}")
        return accepted(job)

    @router.post(
        "/collections/{collection}/generations/{number}/parity", summary="Compare with the serving generation",
        response_model=ParityReport, responses=problems(404, 503),
    )  # fmt: skip
    async def compare(collection: Name, number: Number, body: ParityRequest, principal: CurrentPrincipal) -> Response:
        """Counts, documents that are missing, and how many of the documents found by questions are found again."""
        return json_response(await _parity(edge, collection, number, body, principal))

    @router.post(
        "/collections/{collection}/generations/{number}/switch", summary="Let it serve", response_model=SwitchResult,
        responses=problems(404, 409, 503),
    )  # fmt: skip
    async def switch(collection: Name, number: Number, body: SwitchRequest, principal: CurrentPrincipal) -> Response:
        """In one transaction; 409 `behind` when it lacks something, unless forced. Also the way back."""
        with refusals():
            done = await edge.administration.generations.switch(principal.tenant, collection, number, force=body.force)
        return json_response(
            SwitchResult(
                collection=collection,
                previous=done.previous,
                serving=done.serving,
                took_ms=done.took_ms,
                forced=done.forced,
            )
        )

    @router.delete(
        "/collections/{collection}/generations/{number}", summary="Retire a generation", status_code=202,
        response_model=GenerationList, responses=problems(404, 409, 503),
    )  # fmt: skip
    async def retire(collection: Name, number: Number, principal: CurrentPrincipal) -> Response:
        """It gets no change any more, and is removed within a minute. The serving one cannot be retired."""
        with refusals():
            await edge.administration.generations.retire(principal.tenant, collection, number)
        return json_response(await _listed(edge, principal, collection), status=202)

    return router


async def _listed(edge: Edge, principal: Principal, collection: str | None) -> GenerationList:
    found = await edge.administration.generations.list_generations(principal.tenant, collection)
    return GenerationList(generations=tuple(_item_of(record) for record in found))


async def _parity(edge: Edge, name: str, number: int, body: ParityRequest, principal: Principal) -> ParityReport:
    desk = edge.administration.generations
    with refusals():
        counts = await desk.compare(principal.tenant, name, number)
    collection = await edge.catalog.find(principal.tenant, name)
    candidate = None if collection is None else _numbered(collection, number)
    if collection is None or candidate is None:
        raise not_found(f"generation {number} of {name!r}")
    questions = body.questions or await desk.recent_questions(principal.tenant, name, limit=QUESTIONS)
    found = await parity(
        questions,
        counts,
        collection=collection,
        candidate=candidate,
        principal=principal,
        searching=Searching(edge.embedders, edge.sparse, edge.index, edge.passages),
    )
    return ParityReport.model_validate(
        {
            "generation": number,
            "may_serve": counts.may_serve,
            "counts": CountsItem.model_validate(asdict(counts)),
            "overlap": found.overlap,
            "questions": [asdict(question) for question in found.questions],
        }
    )


def _numbered(collection: Collection, number: int) -> Generation | None:
    return next((generation for generation in collection.live if generation.number == number), None)


def _item_of(record: GenerationRecord) -> GenerationItem:
    generation = record.generation
    return GenerationItem(
        collection=generation.collection,
        number=generation.number,
        state=generation.state.value,
        embedding_model=generation.model.name,
        dimensions=generation.model.dimensions,
        chunk_tokens=generation.chunk_tokens,
        chunk_overlap=generation.chunk_overlap,
        parsers=dict(generation.parsers),
        documents=record.documents,
        passages=record.passages,
        passages_without_vector=record.passages_without_vector,
        created_at=record.created_at,
        serving_since=record.serving_since,
        served_until=record.served_until,
        retired_at=record.retired_at,
    )
