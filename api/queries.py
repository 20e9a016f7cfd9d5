"""``/api/v1/query`` and ``/api/v1/queries``: ask, watch the answer come, come back for it, stop it."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from api.auth import CurrentPrincipal
from api.deadline import RequestTimeout
from api.desk import Desk, stream_url
from api.edge import Edge
from api.problems import ProblemError
from api.responses import event_stream, json_response, problems
from schemas.answers import Answer
from schemas.api import QueryAccepted, QueryRequest, QueryState
from streams.cancelling import cancelled

_STREAM = event_stream("`meta`, `sources`, `token`…, then `done` or `failed`; `restart` and `resync` in between.")


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["questions"])
    desk = Desk(edge)

    @router.post(
        "/query", summary="Ask and get the answer", response_model=Answer, responses=problems(404, 409, 429, 503, 504)
    )
    async def query(
        body: QueryRequest, request: Request, principal: CurrentPrincipal, timeout_s: RequestTimeout
    ) -> Response:
        """The whole answer in one body; with `stream: true` as events. Hanging up stops it after a while."""
        if body.stream:
            return await desk.ask_and_follow(body, principal, request, timeout_s=timeout_s)
        question = await desk.ask(body, principal, request, background=bool(body.background), timeout_s=timeout_s)
        answer = await _unless_disconnected(desk.answer_to(question), request)
        return json_response(answer)

    @router.post(
        "/query/stream", summary="Ask and watch the answer come", response_class=Response,
        responses={200: _STREAM, **problems(404, 429, 503, 504)},
    )  # fmt: skip
    async def query_stream(
        body: QueryRequest, request: Request, principal: CurrentPrincipal, timeout_s: RequestTimeout
    ) -> Response:
        """Server-Sent Events. After a lost connection go on at `stream_url` with `Last-Event-ID`."""
        return await desk.ask_and_follow(body, principal, request, timeout_s=timeout_s)

    @router.post(
        "/queries", status_code=202, summary="Ask now, read later", response_model=QueryAccepted,
        responses=problems(404, 503, 504),
    )  # fmt: skip
    async def queries(
        body: QueryRequest, request: Request, principal: CurrentPrincipal, timeout_s: RequestTimeout
    ) -> Response:
        """Accepted once the question is in the log. It runs to its end unless `background` is false."""
        background = True if body.background is None else body.background
        question = await desk.ask(body, principal, request, background=background, timeout_s=timeout_s)
        accepted = QueryAccepted(
            query_id=question.question_id,
            stream_url=stream_url(question.question_id),
            deadline_at=question.deadline_at,
        )
        location = f"/api/v1/queries/{question.question_id}"
        return json_response(accepted, status=202, headers={"Location": location})

    @router.get(
        "/queries/{query_id}", summary="State and answer", response_model=QueryState, responses=problems(404, 503)
    )
    async def state(query_id: str, principal: CurrentPrincipal) -> Response:
        return json_response(await desk.state(query_id, principal))

    @router.get(
        "/queries/{query_id}/stream", summary="Watch an answer, again or still", response_class=Response,
        responses={200: _STREAM, 204: {"description": "Finished; you have seen it all."}, **problems(404, 429, 503)},
    )  # fmt: skip
    async def stream(
        query_id: str,
        principal: CurrentPrincipal,
        last_event_id: Annotated[str | None, Header(description="Go on behind this event.")] = None,
        after: Annotated[str | None, Query(alias="last_event_id", description="As the header.")] = None,
    ) -> Response:
        return await desk.resume(query_id, principal, last_event_id or after)

    @router.delete(
        "/queries/{query_id}", status_code=202, summary="Stop an answer", response_model=QueryState,
        responses=problems(404, 503),
    )  # fmt: skip
    async def stop(query_id: str, principal: CurrentPrincipal) -> Response:
        """Stopped within a second; its readers get `failed` with the reason `stopped`. A finished answer stays."""
        return json_response(await desk.stop(query_id, principal), status=202)

    return router


async def _unless_disconnected(answer: Coroutine[Any, Any, Answer], request: Request) -> Answer:
    """Await an answer; when its reader hangs up, stop waiting, so that the grace time begins to run."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting, gone = asyncio.create_task(answer), asyncio.create_task(disconnected())
    try:
        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ProblemError(499, "client-closed-request", "The client has gone")
        return waiting.result()
    finally:
        await cancelled(waiting, gone)
