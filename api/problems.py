"""Errors in one shape: RFC 9457 problem details, each with the request's id."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas.api import FieldProblem, Problem
from streams.errors import NotFound, PermanentError, TransientError, Unavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
CAUSE = "leat.cause"
"""Where a request's scope says, for the log, which dependency failed it and how: clients are told no details."""


class ProblemError(Exception):
    """Ends a request with a problem. ``kind`` is a short fixed word; clients decide by it."""

    def __init__(
        self,
        status: int,
        kind: str,
        title: str,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        errors: tuple[FieldProblem, ...] | None = None,
    ) -> None:
        super().__init__(f"{kind}: {detail or title}")
        self.status, self.kind, self.title, self.detail = status, kind, title, detail
        self.headers, self.errors = dict(headers or {}), errors


def unauthenticated() -> ProblemError:
    return ProblemError(
        401, "unauthenticated", "Say who you are",
        "Send 'Authorization: Bearer <token>' or 'X-API-Key: <key>'. A local installation keeps its token in run.json.",
        headers={"WWW-Authenticate": 'Bearer realm="leat"'},
    )  # fmt: skip


def not_found(detail: str) -> ProblemError:
    return ProblemError(404, "not-found", "There is no such thing, or it is not yours", detail)


def invalid_field(field: str, problem: str) -> ProblemError:
    return ProblemError(
        422, "invalid-request", "The request is not valid", f"{field}: {problem}",
        errors=(FieldProblem(field=field, problem=problem),),
    )  # fmt: skip


def unavailable(detail: str, retry_after_s: float) -> ProblemError:
    return ProblemError(
        503, "unavailable", "Try again in a moment", detail, headers={"Retry-After": str(max(1, round(retry_after_s)))}
    )


def problem_response(error: ProblemError, *, request_id: str, instance: str | None = None) -> Response:
    """The problem as a response."""
    problem = Problem(
        type=f"/problems/{error.kind}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=instance,
        request_id=request_id,
        errors=error.errors,
    )
    headers = {"Cache-Control": "no-store", **error.headers}
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def translate(error: Exception) -> ProblemError:
    """The problem that an exception of ours, or of the framework, stands for."""
    match error:
        case ProblemError():
            return error
        case Unavailable():
            return unavailable(f"{error.dependency} is not available", error.retry_after_s)
        case TransientError():
            return unavailable("a call failed; the same call may succeed in a moment", 1)
        case NotFound():
            return not_found(str(error))
        case PermanentError():
            return ProblemError(422, error.reason, "This can not succeed as it is", error.detail)
        case RequestValidationError():
            return _validation_problem([(_path(e["loc"]), str(e["msg"])) for e in error.errors()])
        case ValidationError():
            return _validation_problem([(_path(("body", *e["loc"])), e["msg"]) for e in error.errors()])
        case HTTPException():
            kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http-error")
            return ProblemError(error.status_code, kind, str(error.detail), headers=error.headers)
        case _:
            return ProblemError(500, "internal-error", "Something broke on our side", "Quote the request id.")


def _validation_problem(errors: list[tuple[str, str]]) -> ProblemError:
    fields = tuple(
        FieldProblem(field=field, problem=problem.removeprefix("Value error, ")) for field, problem in errors
    )
    detail = "; ".join(f"{field.field}: {field.problem}" for field in fields[:5])
    return ProblemError(422, "invalid-request", "The request is not valid", detail, errors=fields)


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def install(app: FastAPI) -> None:
    """Have every exception answered as a problem. Bugs go on to ``RequestScope``, which logs them."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)
        if isinstance(error, Unavailable | TransientError):
            request.scope[CAUSE] = str(error)
        return problem_response(
            translate(error), request_id=request.scope["leat.request_id"], instance=request.url.path
        )

    for kind in (
        ProblemError, Unavailable, TransientError, NotFound, PermanentError, RequestValidationError, ValidationError,
        HTTPException, ClientDisconnect, Exception,
    ):  # fmt: skip
        app.add_exception_handler(kind, answer)
