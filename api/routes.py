"""The application: all routes, and the layers around them."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp, Scope

from api import (
    changes,
    collections,
    conversations,
    dead_letters,
    documents,
    erasures,
    generations,
    health,
    jobs,
    page,
    problems,
    queries,
    search,
    sources,
    status,
)
from api.admission import Admission
from api.body_limit import BodyLimit
from api.edge import Edge
from api.request_scope import RequestScope
from schemas.api import DocumentMetadata, Problem

# Everything but documents is small: a question has at most 1,000 characters.
MAX_JSON_BYTES = 256 * 1024
# Multipart framing and the metadata part around a document.
MULTIPART_HEADROOM_BYTES = 256 * 1024

_PUBLIC = ("/livez", "/readyz", "/health", "/metrics")


def build_api(edge: Edge) -> FastAPI:
    """The routes. ``wrapped`` puts the layers around them."""
    app = FastAPI(
        title="Leat",
        summary="A streaming answer engine over documents that never stop changing",
        version=edge.options.version,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.authenticator = edge.authenticator
    everything = (
        search, changes, queries, conversations, documents, erasures, sources, collections, generations, jobs,
        dead_letters, status, health, page,
    )  # fmt: skip
    for module in everything:
        app.include_router(module.router(edge))
    problems.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def wrapped(app: FastAPI, edge: Edge) -> ASGIApp:
    """Outside FastAPI, so that even its own errors carry a request id."""
    largest = edge.options.max_document_bytes + MULTIPART_HEADROOM_BYTES

    def limit_for(scope: Scope) -> int:
        return largest if scope["method"] == "PUT" else MAX_JSON_BYTES

    return RequestScope(Admission(BodyLimit(app, limit_for=limit_for), edge.options.limits))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        components = schema.setdefault("components", {})
        for model in (Problem, DocumentMetadata):
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            components.setdefault("schemas", {}).update(described.pop("$defs", {}))
            components["schemas"][model.__name__] = described
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"apiKey": []}]
        for path in _PUBLIC:
            for operation in schema["paths"].get(path, {}).values():
                operation["security"] = []
        app.openapi_schema = schema
    return app.openapi_schema
