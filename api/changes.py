"""``/api/v1/changes``: what was added, changed and removed about something since a time."""

import time

from fastapi import APIRouter, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.moments import back_to, moment_of
from api.responses import json_response, problems
from api.search import readable_collection
from schemas.access import Principal
from schemas.api import ChangeItem, ChangesRequest, ChangesResponse
from streams.changes import Change, changes


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["search"])

    @router.post(
        "/changes", summary="What changed about something", response_model=ChangesResponse,
        responses=problems(404, 422, 503),
    )  # fmt: skip
    async def what_changed(body: ChangesRequest, principal: CurrentPrincipal) -> Response:
        """Passages added, changed and removed since a time, with both texts; those that fit the query best first."""
        return json_response(await _changes(body, principal, edge))

    return router


async def _changes(body: ChangesRequest, principal: Principal, edge: Edge) -> ChangesResponse:
    started = time.perf_counter()
    collection = await readable_collection(principal.tenant, body.collection, edge.catalog)
    since = await moment_of(body.since, "since", principal, edge)
    assert since is not None
    then = await back_to(since, principal, collection, edge)
    found = await changes(
        body.query,
        then,
        limit=body.limit,
        embedder=await edge.embedders.of(collection.serving.model),
    )
    return ChangesResponse(
        changes=tuple(_item_of(change) for change in found.changes),
        since=since,
        documents_changed=found.documents_changed,
        incomplete_documents=then.incomplete_documents,
        took_ms=round((time.perf_counter() - started) * 1000, 2),
    )


def _item_of(change: Change) -> ChangeItem:
    shown = change.after or change.before
    assert shown is not None
    return ChangeItem(
        kind=change.kind,
        document_id=shown.key.document_id,
        title=shown.title,
        heading_path=shown.heading_path,
        before=change.before and change.before.text,
        after=change.after and change.after.text,
        revision_before=change.before and change.before.revision,
        revision_after=change.after and change.after.revision,
        updated_at=change.updated_at,
        score=round(change.score, 4),
    )
