"""``/api/v1/erasures``: documents that are to be forgotten altogether."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import invalid_field, not_found
from api.responses import json_response, problems
from schemas.access import Principal
from schemas.administration import ErasureItem, ErasureRequest, RemnantItem
from schemas.documents import DocumentKey, Name
from streams.erasure import Erasure, remnants


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["documents"])

    @router.post(
        "/erasures", summary="Forget a document", status_code=202, response_model=ErasureItem,
        responses=problems(404, 503),
    )  # fmt: skip
    async def erase(body: ErasureRequest, principal: CurrentPrincipal) -> Response:
        """Deletes it, and removes its history, vectors, blobs, and answers that cite it. Look again until `done`."""
        key = _key(principal, body.collection, body.document_id)
        if await edge.catalog.find(principal.tenant, key.collection) is None:
            raise not_found(f"collection {key.collection!r} does not exist")
        return json_response(
            _item_of(await edge.administration.erasures.request(key, by=principal.subject)), status=202
        )

    @router.get("/erasures", summary="How an erasure stands", response_model=ErasureItem, responses=problems(404, 503))
    async def erasure(
        principal: CurrentPrincipal,
        document_id: Annotated[str, Query(min_length=1, max_length=4096)],
        collection: Name = "default",
    ) -> Response:
        """What was removed, and what the log still holds until when."""
        found = await edge.administration.erasures.find(_key(principal, collection, document_id))
        if found is None:
            raise not_found(f"nobody has asked for the erasure of {document_id!r} in collection {collection!r}")
        return json_response(_item_of(found))

    return router


def _key(principal: Principal, collection: str, document_id: str) -> DocumentKey:
    try:
        return DocumentKey.of(principal.tenant, collection, document_id)
    except ValueError as error:
        raise invalid_field("document_id", str(error)) from error


def _item_of(erasure: Erasure) -> ErasureItem:
    remaining = () if erasure.done_at is None else remnants(erasure.done_at)
    return ErasureItem(
        document_id=erasure.key.document_id,
        collection=erasure.key.collection,
        requested_by=erasure.requested_by,
        requested_at=erasure.requested_at,
        done=erasure.done_at is not None,
        done_at=erasure.done_at,
        removed=dict(erasure.removed),
        remains=tuple(RemnantItem(topic=left.topic, what=left.what, until=left.until) for left in remaining),
    )
