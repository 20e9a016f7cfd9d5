"""``/api/v1/collections/{c}/documents``: put, look at, list and delete documents.

A write is accepted when it is in the log, and not before; it answers with its ``position``.
"""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import ProblemError, invalid_field, not_found
from api.responses import json_response, problems
from api.uploads import DocumentUpload, changed_of, read_upload
from api.waiting import wait_for
from schemas.access import AccessLevel, Principal
from schemas.api import (
    DEFAULT_WAIT_MS,
    MAX_WAIT_MS,
    DocumentAccepted,
    DocumentFailure,
    DocumentMetadata,
    DocumentPage,
    DocumentState,
    Until,
)
from schemas.documents import Change, DocumentChanged, DocumentKey, Name
from streams.model import DocumentRecord, DocumentStage
from streams.ports import ChangeLog

MAX_PAGE = 500

_PATH = "/collections/{collection}/documents/{document_id:path}"
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "text/markdown": {"schema": {"type": "string"}, "example": "# Retention\n\nRecords are kept for 7 days.\n"},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "metadata": {"$ref": "#/components/schemas/DocumentMetadata"},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}

CollectionName = Annotated[Name, Path(description="Comes into being with its first document.")]
DocumentId = Annotated[str, Path(description="Any text, slashes included; the producer's own name of it.")]
IfMatch = Annotated[str | None, Header(description="Write only over this `ETag`, or `*`: over any.")]
IfNoneMatch = Annotated[str | None, Header(description="`*`: only if there is no such document.")]


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["documents"])

    @router.put(
        _PATH,
        summary="Create or replace a document",
        responses=problems(412, 413, 503),
        openapi_extra=_UPLOAD,
        status_code=202,
        response_model=DocumentAccepted,
    )
    async def put(
        collection: CollectionName,
        document_id: DocumentId,
        request: Request,
        principal: CurrentPrincipal,
        access_level: Annotated[AccessLevel | None, Query(description="Default: the collection's.")] = None,
        source_version: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        title: Annotated[str | None, Query(max_length=2048)] = None,
        url: Annotated[str | None, Query(max_length=8192)] = None,
        bulk: Annotated[bool, Query(description="Yield to interactive changes; for loading many.")] = False,
        if_match: IfMatch = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """The body with its `Content-Type`, or multipart with a `metadata` part before the `file`."""
        key = _key(principal, collection, document_id)
        await _check_conditions(if_match, if_none_match, key, principal, edge)
        given = DocumentMetadata(access_level=access_level, source_version=source_version, title=title, url=url)
        upload: DocumentUpload = await read_upload(request, given, max_bytes=edge.options.max_document_bytes)
        change = await changed_of(upload, key, blobs=edge.blobs)
        return await _publish(key, change, edge.changes, bulk=bulk)

    @router.delete(
        _PATH,
        summary="Delete a document",
        responses=problems(412, 503),
        status_code=202,
        response_model=DocumentAccepted,
    )
    async def delete(
        collection: CollectionName,
        document_id: DocumentId,
        principal: CurrentPrincipal,
        source_version: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        if_match: IfMatch = None,
    ) -> Response:
        """Its text is out of every answer as soon as the change is admitted. Deleting it twice is deleting it once."""
        key = _key(principal, collection, document_id)
        await _check_conditions(if_match, None, key, principal, edge)
        change = DocumentChanged(change=Change.DELETE, source="http", source_version=source_version)
        return await _publish(key, change, edge.changes)

    @router.get(_PATH, summary="State of a document", response_model=DocumentState, responses=problems(404, 503))
    async def get(
        collection: CollectionName,
        document_id: DocumentId,
        principal: CurrentPrincipal,
        min_position: Annotated[str | None, Query(max_length=8192)] = None,
        wait_ms: Annotated[int, Query(ge=0, le=MAX_WAIT_MS)] = DEFAULT_WAIT_MS,
        until: Until = Until.SEARCHABLE,
    ) -> Response:
        """How far its newest change has come, and what the index shows of it."""
        await wait_for(min_position, wait_ms, until, principal=principal, directory=edge.directory)
        key = _key(principal, collection, document_id)
        record = await edge.directory.get(principal, key.collection, key.document_id)
        if record is None:
            raise not_found(f"document {document_id!r} in collection {collection!r}")
        return json_response(state_of(record), headers={"ETag": _etag(record)})

    @router.get(
        "/collections/{collection}/documents", summary="List documents", response_model=DocumentPage,
        responses=problems(503),
    )  # fmt: skip
    async def documents(
        collection: CollectionName,
        principal: CurrentPrincipal,
        cursor: Annotated[str | None, Query(max_length=8192, description="`next_cursor` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        state: DocumentStage | None = None,
        order: Annotated[str, Query(pattern="^(id|newest)$", description="`newest` is one page only.")] = "id",
    ) -> Response:
        """By document id, or the newest changes. Deleted ones are listed only when asked for by `state`."""
        records = await edge.directory.list_documents(
            principal, collection, after=_after(cursor), limit=limit, stage=state, newest_first=order == "newest"
        )
        more = len(records) == limit and order == "id"
        page = DocumentPage(
            documents=tuple(state_of(record) for record in records),
            next_cursor=records[-1].key.document_id if more else None,
        )
        return json_response(page)

    return router


def state_of(record: DocumentRecord) -> DocumentState:
    failure = None
    if record.failure_reason is not None:
        failure = DocumentFailure(
            reason=record.failure_reason, detail=record.failure_detail, revision=record.failed_revision
        )
    return DocumentState(
        document_id=record.key.document_id,
        collection=record.key.collection,
        state=record.stage.value,
        revision=record.revision,
        applied_revision=record.applied_revision,
        title=record.title,
        url=record.url,
        content_type=record.content_type,
        size_bytes=record.size_bytes,
        passages=record.passages,
        passages_without_vector=record.passages_without_vector,
        access_level=record.access_level,
        allowed_groups=record.allowed_groups,
        metadata=dict(record.metadata),
        updated_at=record.accepted_at,
        failure=failure,
        position=record.position,
        stale=failure is not None and record.passages > 0,
    )


async def _publish(key: DocumentKey, change: DocumentChanged, changes: ChangeLog, *, bulk: bool = False) -> Response:
    position = await changes.publish(key, change, bulk=bulk)
    accepted = DocumentAccepted(document_id=key.document_id, collection=key.collection, position=position.encode())
    return json_response(accepted, status=202, headers={"Location": _location(key)})


async def _check_conditions(
    if_match: str | None, if_none_match: str | None, key: DocumentKey, principal: Principal, edge: Edge
) -> None:
    """Compare with the newest admitted revision. A change that is still on its way through the log is not seen."""
    if if_match is None and if_none_match is None:
        return
    record = await edge.directory.get(principal, key.collection, key.document_id)
    there = record is not None and record.stage is not DocumentStage.DELETED
    etag = _etag(record) if record is not None and there else None
    unmet = if_match is not None and not _matches(if_match, etag)
    if unmet or (if_none_match is not None and _matches(if_none_match, etag)):
        raise ProblemError(412, "precondition-failed", "The document has changed", f"its ETag is {etag or 'none'} now")


def _matches(condition: str, etag: str | None) -> bool:
    if etag is None:
        return False
    return condition.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in condition.split(","))


def _etag(record: DocumentRecord) -> str:
    return f'"{record.revision}"'


def _key(principal: Principal, collection: str, document_id: str) -> DocumentKey:
    try:
        return DocumentKey.of(principal.tenant, collection, document_id)
    except ValueError as error:
        raise invalid_field("path.document_id", str(error)) from error


def _after(cursor: str | None) -> str | None:
    if cursor is not None and "\x00" in cursor:
        raise invalid_field("query.cursor", "has a NUL character")
    return cursor


def _location(key: DocumentKey) -> str:
    return f"/api/v1/collections/{key.collection}/documents/{quote(key.document_id)}"
