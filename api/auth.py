"""Who asks. One administrator's token for a machine of one's own; the seam where sign-in and keys will come in.

The page at ``/`` needs no typing of tokens: on a loopback address it gets a cookie. Against other pages in the same
browser the cookie is ``SameSite=Strict``, names its port (cookies ignore ports), counts only when the request's
``Host`` is a loopback name (DNS rebinding), and only when the browser says that our own page sent the request.
"""

import hashlib
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Protocol

from fastapi import Depends, Request
from starlette.datastructures import Headers

from api.problems import unauthenticated
from schemas.access import AccessLevel, Principal


class Authenticator(Protocol):
    """Finds out on whose behalf a request is made."""

    def authenticate(self, headers: Headers) -> Principal | None:
        """None: nobody we know. Takes the same time whatever is wrong with the credentials."""
        ...


class LocalAuthenticator:
    """Knows one principal: the administrator of this machine, who may read everything of the tenant."""

    def __init__(self, token: str, *, tenant: str) -> None:
        if not token:
            raise ValueError("the administrator's token is empty")
        self._token = token.encode()
        # The browser keeps a derived value, so that a stolen cookie is no token.
        self.session = hmac.new(self._token, b"page session", hashlib.sha256).hexdigest()
        self._principal = Principal(
            tenant=tenant, subject="local-administrator", clearance=AccessLevel.RESTRICTED, every_group=True
        )

    def authenticate(self, headers: Headers) -> Principal | None:
        credential = _bearer(headers) or headers.get("x-api-key")
        if credential is not None:
            return self._principal if hmac.compare_digest(credential.encode(), self._token) else None
        session = _session(headers)
        if session is not None and hmac.compare_digest(session.encode(), self.session.encode()):
            return self._principal
        return None


async def current_principal(request: Request) -> Principal:
    """Dependency of every route that is not public."""
    authenticator: Authenticator = request.app.state.authenticator
    principal = authenticator.authenticate(request.headers)
    if principal is None:
        raise unauthenticated()
    request.scope["leat.subject"] = principal.subject
    return principal


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]


def cookie_name(host: str) -> str:
    """Two installations on one machine differ in their port only, which cookies ignore."""
    return f"leat_session_{_split(host)[1] or '80'}"


def is_loopback(host: str) -> bool:
    """Whether a ``Host`` header names this machine: a loopback address or ``localhost``."""
    name, _ = _split(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _split(host: str) -> tuple[str, str]:
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or port.endswith("]"):  # no port; or an IPv6 address without one
        name, port = host.strip().lower(), ""
    return name.strip("[]"), port if port.isdigit() else ""


def _bearer(headers: Headers) -> str | None:
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None


def _session(headers: Headers) -> str | None:
    """The page's cookie, if our own page sent the request."""
    host = headers.get("host", "")
    if not is_loopback(host):
        return None
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return None
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return None
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(cookie_name(host))
    except CookieError:
        return None
    return None if morsel is None else morsel.value
