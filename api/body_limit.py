"""Bodies that are too large are refused before they are read, or else while they come in. Pure ASGI."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError, problem_response


class BodyLimit:
    """``limit_for(scope)`` is the most bytes that a request may carry."""

    def __init__(self, app: ASGIApp, *, limit_for: Callable[[Scope], int]) -> None:
        self._app = app
        self._limit_for = limit_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_for(scope)
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not stated.isdigit() or int(stated) > limit:
            problem = problem_response(_too_large(limit), request_id=scope["leat.request_id"], instance=scope["path"])
            problem.headers["Connection"] = "close"  # the body is still on its way, and nobody will read it
            await problem(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, "too-large", "The body is too large", f"at most {limit} bytes are accepted here")
