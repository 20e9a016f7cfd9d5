"""Sheds load: more requests at once than can be answered soon are told to come back, before they have cost anything.

Each class of routes has its own limit, so that questions that wait for a slow model take no place from searches. Health
and administration have none: they are what one needs to find out why. Pure ASGI, outside FastAPI: a refusal costs less
than a tenth of what a search does.
"""

import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

from prometheus_client import Counter as Total
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ProblemError, problem_response

SHED = Total("leat_http_shed_total", "Requests refused since too many of their class were under way.", ["route_class"])

RETRY_AFTER_S = 1


class RouteClass(StrEnum):
    """What is limited together."""

    SEARCHES = "searches"
    QUESTIONS = "questions"
    """Until their answer has been handed over; those that are watched as a stream need a seat instead."""
    CHANGES = "changes"
    READS = "reads"
    """Look-ups that cost a statement or two."""


_ROUTES = (
    (RouteClass.SEARCHES, re.compile(r"(GET|POST) /api/v1/search")),
    (RouteClass.QUESTIONS, re.compile(r"POST /api/v1/(query|queries)")),
    (RouteClass.CHANGES, re.compile(r"(PUT|DELETE) /api/v1/collections/[^/]+/documents/.+")),
    (RouteClass.READS, re.compile(r"GET /api/v1/(collections/[^/]+/documents(/.+)?|sources|queries/[^/]+)")),
)


class Admission:
    """Refuses a request when ``limits`` of its class are under way."""

    def __init__(self, app: ASGIApp, limits: Mapping[RouteClass, int]) -> None:
        self._app = app
        self._limits = limits
        self._under_way: Counter[RouteClass] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = class_of(scope) if scope["type"] == "http" else None
        limit = None if kind is None else self._limits.get(kind)
        if kind is None or limit is None:
            await self._app(scope, receive, send)
            return
        if self._under_way[kind] >= limit:
            SHED.labels(kind.value).inc()
            await problem_response(_overloaded(kind), request_id=scope["leat.request_id"])(scope, receive, send)
            return
        self._under_way[kind] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way[kind] -= 1


def class_of(scope: Scope) -> RouteClass | None:
    """None: health, administration and everything else that is always served."""
    asked = f"{scope['method']} {scope['path']}"
    return next((kind for kind, route in _ROUTES if route.fullmatch(asked)), None)


def _overloaded(kind: RouteClass) -> ProblemError:
    return ProblemError(
        503, "overloaded", "Too much at once", f"too many {kind.value} are under way; try again in a moment",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )  # fmt: skip
