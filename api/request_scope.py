"""What every request has: an id, security headers, one line in the access log, two metrics. Pure ASGI.

Starlette's ``BaseHTTPMiddleware`` would hide disconnects from streams and cost a task per request.
"""

import logging
import re
import secrets
import time

from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import CAUSE, problem_response, translate

log = logging.getLogger(__name__)

# An id that a client sends goes into logs and headers: short, and of characters that mean nothing there.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

REQUESTS = Counter("leat_http_requests_total", "Requests by route and status.", ["method", "route", "status"])
SECONDS = Histogram(
    "leat_http_request_seconds",
    "Time until the response began, by route.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
# What is asked every second by machines is counted but not logged.
_QUIET = frozenset({"/livez", "/readyz", "/health", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class RequestScope:
    """The outermost layer: also what a bug ends in, since a client must get its request id even then."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope["leat.request_id"] = _request_id(scope)
        response = _Response(send, request_id, started)
        try:
            await self._app(scope, receive, response.send)
        except Exception as error:
            log.exception("request_failed", extra={"request_id": request_id, "path": scope["path"]})
            if response.ended:
                return  # the framework has answered with a problem
            if response.status:
                raise  # half a response is out: the connection has to break
            await problem_response(translate(error), request_id=request_id)(scope, receive, response.send)
        finally:
            _record(scope, response, started)


class _Response:
    """Adds headers on the way out, and remembers how it went."""

    def __init__(self, send: Send, request_id: str, started: float) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._started = started
        self.status = 0
        self.ended = False
        self.began_s = 0.0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.began_s = time.perf_counter() - self._started
            headers = message["headers"] = list(message.get("headers", ()))
            headers.append((b"x-request-id", self._request_id))
            headers.extend(_SECURITY_HEADERS)
            if not any(name == b"content-security-policy" for name, _ in headers):
                headers.append(_API_POLICY)
        elif not message.get("more_body", False):
            self.ended = True
        await self._send(message)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(16)


def _record(scope: Scope, response: _Response, started: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    # A method is any text a client likes; labels must not grow with it.
    method = scope["method"] if scope["method"] in _METHODS else "other"
    REQUESTS.labels(method, route, response.status).inc()
    SECONDS.labels(method, route).observe(response.began_s)
    if route not in _QUIET:
        cause = {"cause": scope[CAUSE]} if CAUSE in scope else {}
        log.info(
            "request_handled",
            extra=cause
            | {
                "request_id": scope["leat.request_id"],
                "method": method,
                "route": route,
                "status": response.status,
                "subject": scope.get("leat.subject"),
                "began_s": round(response.began_s, 4),
                "elapsed_s": round(time.perf_counter() - started, 4),
            },
        )
