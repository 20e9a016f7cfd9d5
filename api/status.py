"""``/api/v1/status``: the numbers of ``leat status``."""

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.health import readiness
from api.responses import problems
from streams.errors import TransientError, Unavailable


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["operation"])

    @router.get("/status", summary="What is received, searchable, embedded; lag and freshness", responses=problems(503))
    async def status(principal: CurrentPrincipal) -> JSONResponse:
        """Counts of the whole tenant. `lag` is null while Kafka does not answer."""
        ready, numbers, lag = await asyncio.gather(readiness(edge), edge.status.status(principal.tenant), _lag(edge))
        body: dict[str, Any] = {"ready": ready.ready, **numbers, "lag": lag}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    return router


async def _lag(edge: Edge) -> dict[str, int] | None:
    try:
        async with asyncio.timeout(2):
            return dict(await edge.lag())
    except (TimeoutError, Unavailable, TransientError):
        return None
