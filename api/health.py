"""``/livez``, ``/readyz``, ``/health`` and ``/metrics``, at the root, for machines and for people in a hurry."""

import asyncio
import time

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.edge import Check, Edge
from api.responses import json_response
from schemas.api import DependencyHealth, Health, Liveness, Readiness
from streams.errors import LeatError

CHECK_TIMEOUT_S = 0.8


def router(edge: Edge) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/livez", summary="Alive?", response_model=Liveness)
    async def livez() -> Response:
        """200 while work moves; 503 when something has stood still for too long and a restart would help."""
        stalled = edge.stalled()
        return json_response(Liveness(alive=not stalled, stalled=stalled), status=503 if stalled else 200)

    @router.get("/readyz", summary="Ready for requests?", response_model=Readiness)
    async def readyz() -> Response:
        """200 when every required dependency answers; 503 also from the moment the process has been asked to stop."""
        found = await readiness(edge)
        return json_response(found, status=200 if found.ready else 503)

    @router.get("/health", summary="Both in one, for people", response_model=Health)
    async def health() -> Response:
        found, stalled = await readiness(edge), edge.stalled()
        fine = found.ready and not stalled and all(one.ok for one in found.dependencies)
        body = Health(
            status="ok" if fine else "degraded" if found.ready else "down",
            version=edge.options.version,
            ready=found.ready,
            alive=not stalled,
            dependencies=found.dependencies,
            circuits=edge.circuits(),
        )
        return json_response(body)

    @router.get("/metrics", summary="Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


async def readiness(edge: Edge) -> Readiness:
    """Ask every dependency at once; one that takes too long does not answer."""
    asked = (_ask(name, check, required=name not in edge.dispensable) for name, check in edge.checks.items())
    found = await asyncio.gather(*asked)
    closing = edge.options.sse.closing.is_set()
    ready = not closing and all(one.ok for one in found if one.required)
    return Readiness(ready=ready, dependencies=tuple(found))


async def _ask(name: str, check: Check, *, required: bool) -> DependencyHealth:
    started = time.perf_counter()
    detail = None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        detail = f"no answer within {CHECK_TIMEOUT_S} s"
    except (LeatError, OSError) as error:
        detail = type(error).__name__  # details may hold addresses; they are in the log
    return DependencyHealth(
        name=name,
        ok=detail is None,
        required=required,
        detail=detail,
        took_ms=round((time.perf_counter() - started) * 1000, 1),
    )
