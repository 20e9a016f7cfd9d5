"""``/api/v1/search``: passages, without an answer."""

import time
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import CurrentPrincipal
from api.deadline import RequestTimeout, within
from api.edge import Edge
from api.moments import back_to, moment_of
from api.problems import not_found
from api.responses import json_response, problems
from api.waiting import wait_for
from schemas.access import Principal
from schemas.answers import DEFAULT_TOP_K, MAX_QUERY_CHARS, MAX_TOP_K, RetrievalOptions
from schemas.api import SearchRequest, SearchResponse
from streams.answering import DEFAULT_COLLECTION
from streams.as_of import incomplete
from streams.model import Collection, Freshness
from streams.ports import Catalog
from streams.retrieve import retrieve


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["search"])

    @router.post(
        "/search",
        summary="Find passages",
        response_model=SearchResponse,
        responses=problems(404, 503, 504),
    )
    async def search(body: SearchRequest, principal: CurrentPrincipal, timeout_s: RequestTimeout) -> Response:
        """The passages that fit a query best, under the rights of whoever asks."""
        async with within(timeout_s):
            return json_response(await find(body, principal, edge=edge))

    @router.get(
        "/search", summary="Find passages by URL", response_model=SearchResponse, responses=problems(404, 503, 504)
    )
    async def search_by_url(
        principal: CurrentPrincipal,
        timeout_s: RequestTimeout,
        q: Annotated[str, Query(min_length=1, max_length=MAX_QUERY_CHARS)],
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K,
        threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
        collection: str = DEFAULT_COLLECTION,
        min_position: str | None = None,
        wait_ms: int = 5000,
        as_of: str | None = None,
    ) -> Response:
        """As the POST, for links and browsers."""
        body = SearchRequest(
            query=q,
            top_k=top_k,
            threshold=threshold,
            collection=collection,
            min_position=min_position,
            wait_ms=wait_ms,
            as_of=as_of,
        )
        async with within(timeout_s):
            return json_response(await find(body, principal, edge=edge))

    return router


async def find(request: SearchRequest, principal: Principal, *, edge: Edge) -> SearchResponse:
    """Retrieve, and say how fresh the result is."""
    started = time.perf_counter()
    seen = await wait_for(
        request.min_position, request.wait_ms, request.until, principal=principal, directory=edge.directory
    )
    collection = await readable_collection(principal.tenant, request.collection, edge.catalog)
    # Before the search: what is said about freshness must hold for what was searched.
    freshness = await edge.passages.freshness(principal.tenant, request.collection)
    moment = await moment_of(request.as_of, "as_of", principal, edge)
    then = None if moment is None else await back_to(moment, principal, collection, edge)
    retrieval = await retrieve(
        request.query,
        principal,
        retrieval_options(request, moment),
        collection=collection,
        embedder=await edge.embedders.of(collection.serving.model),
        sparse=edge.sparse,
        index=then or edge.index,
        passages=then or edge.passages,
    )
    if then is not None:
        freshness = Freshness(None, 0.0)
    return SearchResponse(
        passages=retrieval.passages,
        generation=retrieval.generation,
        position=freshness.position,
        behind_ms=freshness.behind_ms,
        took_ms=round((time.perf_counter() - started) * 1000, 2),
        min_position=seen,
        as_of=moment,
        **{
            "degraded": retrieval.degraded,
            "degraded_reason": retrieval.degraded_reason,
            **({} if then is None else incomplete(then, retrieval.degraded_reason)),
        },
    )


async def readable_collection(tenant: str, name: str, catalog: Catalog) -> Collection:
    """A collection to read. The default one exists before its first document; others do not come to be by asking."""
    collection = await (catalog.collection if name == DEFAULT_COLLECTION else catalog.find)(tenant, name)
    if collection is None:
        raise not_found(f"collection {name!r} does not exist")
    return collection


def retrieval_options(request: SearchRequest, moment: datetime | None) -> RetrievalOptions:
    """``moment``: what ``as_of`` of the request means."""
    return RetrievalOptions(
        collection=request.collection,
        top_k=request.top_k,
        threshold=request.threshold,
        filters=request.filters,
        min_position=request.min_position,
        wait_ms=request.wait_ms,
        as_of=moment,
    )
