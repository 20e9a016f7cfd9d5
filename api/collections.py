"""``/api/v1/collections``: what there is to ask, and how it is indexed."""

from fastapi import APIRouter, Response

from api.administration import refusals
from api.auth import CurrentPrincipal
from api.edge import Edge
from api.jobs import accepted
from api.problems import not_found
from api.responses import json_response, problems
from schemas.administration import CollectionChange, CollectionCreate, CollectionItem, CollectionList, JobItem
from schemas.documents import Name
from streams.generations import CollectionRecord, CollectionSettings
from streams.jobs import JobType
from streams.model import OnFailure, Ordering


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1/collections", tags=["collections"])

    @router.get("", summary="List collections", response_model=CollectionList, responses=problems(503))
    async def collections(principal: CurrentPrincipal) -> Response:
        """By name, each with the generation that serves it."""
        found = await edge.administration.collections.list_collections(principal.tenant)
        return json_response(CollectionList(collections=tuple(item_of(record) for record in found)))

    @router.post(
        "", summary="Create a collection", status_code=201, response_model=CollectionItem, responses=problems(409, 503)
    )
    async def create(body: CollectionCreate, principal: CurrentPrincipal) -> Response:
        """One that is written to without being created gets the defaults."""
        with refusals():
            record = await edge.administration.collections.create(principal.tenant, body.name, settings_of(body))
        return json_response(item_of(record), status=201, headers={"Location": f"/api/v1/collections/{record.name}"})

    @router.get("/{collection}", summary="One collection", response_model=CollectionItem, responses=problems(404, 503))
    async def one(collection: Name, principal: CurrentPrincipal) -> Response:
        record = await edge.administration.collections.get(principal.tenant, collection)
        if record is None:
            raise not_found(f"collection {collection!r} does not exist")
        return json_response(item_of(record))

    @router.patch(
        "/{collection}", summary="Change a collection", response_model=CollectionItem,
        responses=problems(404, 409, 503),
    )  # fmt: skip
    async def change(collection: Name, body: CollectionChange, principal: CurrentPrincipal) -> Response:
        """Model and sizes can be changed while it is empty; later they need a reindex (409 `needs-reindex`)."""
        with refusals():
            record = await edge.administration.collections.change(principal.tenant, collection, settings_of(body))
        if record is None:
            raise not_found(f"collection {collection!r} does not exist")
        return json_response(item_of(record))

    @router.delete(
        "/{collection}", summary="Delete a collection", status_code=202, response_model=JobItem,
        responses=problems(404, 503),
    )  # fmt: skip
    async def delete(collection: Name, principal: CurrentPrincipal) -> Response:
        """A job: its documents are deleted in the log, then in every store. What is queued for it is cancelled."""
        desk = edge.administration.jobs
        if await edge.administration.collections.get(principal.tenant, collection) is None:
            raise not_found(f"collection {collection!r} does not exist")
        for queued in await desk.list_jobs(principal.tenant, collection=collection):
            if queued.type is JobType.DELETE_COLLECTION and not queued.status.is_final:
                return accepted(queued)
            await desk.cancel(principal.tenant, queued.job_id)
        return accepted(await desk.create(principal.tenant, collection, JobType.DELETE_COLLECTION, {}))

    return router


def settings_of(body: CollectionChange) -> CollectionSettings:
    return CollectionSettings(
        ordering=None if body.ordering is None else Ordering(body.ordering),
        on_failure=None if body.on_failure is None else OnFailure(body.on_failure),
        default_access_level=body.default_access_level,
        default_allowed_groups=body.default_allowed_groups,
        embedding_model=body.embedding_model,
        chunk_tokens=body.chunk_tokens,
        chunk_overlap=body.chunk_overlap,
        history_days=body.history_days,
        parsers=body.parsers,
    )


def item_of(record: CollectionRecord) -> CollectionItem:
    serving = record.serving
    return CollectionItem(
        name=record.name,
        documents=record.documents,
        generation=serving.number,
        embedding_model=serving.model.name,
        dimensions=serving.model.dimensions,
        chunk_tokens=serving.chunk_tokens,
        chunk_overlap=serving.chunk_overlap,
        parsers=dict(serving.parsers),
        ordering=record.ordering.value,
        on_failure=record.on_failure.value,
        default_access_level=record.default_access_level,
        default_allowed_groups=record.default_allowed_groups,
        history_days=record.history_days,
        created_at=record.created_at,
    )
