"""``/``: the page, three plain files, and the session it needs on a machine of one's own."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from api.auth import LocalAuthenticator, cookie_name, is_loopback
from api.edge import Edge
from api.problems import ProblemError

# Nothing from elsewhere, nothing inline: text of documents that finds its way into the page can not run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}


def router(edge: Edge) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page(request: Request) -> Response:
        """The page. On a loopback address of a local installation it signs in by itself."""
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        response = Response(_read("index.html"), media_type="text/html; charset=utf-8", headers=headers)
        if edge.options.local and isinstance(edge.authenticator, LocalAuthenticator):
            host = request.headers.get("host", "")
            if not is_loopback(host):
                # A foreign name that resolves to this machine (DNS rebinding) must not be handed a session.
                raise ProblemError(
                    421, "wrong-host", "This is not the name of this machine", "open it as http://127.0.0.1:<port>"
                )
            response.set_cookie(
                cookie_name(host), edge.authenticator.session, httponly=True, samesite="strict", path="/"
            )
        return response

    @router.get("/page/{name}")
    async def asset(name: str) -> Response:
        if name not in _FILES:
            raise ProblemError(404, "not-found", "There is no such file")
        return Response(_read(name), media_type=_FILES[name], headers={"Cache-Control": "no-cache"})

    return router


@cache
def _read(name: str) -> bytes:
    return files("api").joinpath("page", name).read_bytes()
