"""Reading an uploaded document: raw or multipart, small or large."""

import base64
from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api.problems import ProblemError, invalid_field, translate
from schemas.api import DocumentMetadata
from schemas.documents import MAX_INLINE_BYTES, ContentReference, DocumentChanged, DocumentKey
from streams.ports import BlobStore

# A record may have 1 MiB. Text that is small in bytes can be large in JSON (control characters take six).
MAX_EVENT_BYTES = 768 * 1024
MAX_METADATA_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class DocumentUpload:
    data: bytes
    content_type: str | None
    given: DocumentMetadata


async def read_upload(request: Request, given: DocumentMetadata, *, max_bytes: int) -> DocumentUpload:
    """The body of a PUT; ``given`` is what the query parameters say, a ``metadata`` part says more.

    Raises:
        ProblemError: too large, empty, or a part that is not as it should be.
    """
    content_type = request.headers.get("content-type")
    if (content_type or "").lower().startswith("multipart/form-data"):
        upload = await _multipart(request, given)
    else:
        # curl's default for --data-binary, which never says anything about a document.
        stated = None if content_type == "application/x-www-form-urlencoded" else content_type
        upload = DocumentUpload(await request.body(), stated, given)
    if len(upload.data) > max_bytes:
        raise ProblemError(413, "too-large", "The document is too large", f"at most {max_bytes} bytes are accepted")
    if not upload.data.strip():
        raise ProblemError(422, "empty-document", "The document is empty", "send its content as the body, or delete it")
    return upload


async def changed_of(upload: DocumentUpload, key: DocumentKey, *, blobs: BlobStore) -> DocumentChanged:
    """The event for the log. Large content is durable in the blob store before an event names it."""
    about = upload.given.model_dump(exclude={"content_type"}, exclude_none=True)
    about |= {"source": "http", "content_type": upload.given.content_type or upload.content_type}
    if len(upload.data) <= MAX_INLINE_BYTES:
        change = _inline(upload.data, about)
        if len(change.model_dump_json(exclude_none=True)) <= MAX_EVENT_BYTES:
            return change
    sha256 = await blobs.put(key.tenant, upload.data)
    return DocumentChanged(content_reference=ContentReference(sha256=sha256, size_bytes=len(upload.data)), **about)


def _inline(data: bytes, about: dict[str, object]) -> DocumentChanged:
    """As text where that is the same bytes for sure, so that people can read the topic; else as base64."""
    content_type = str(about["content_type"] or "").lower()
    charset = content_type.partition("charset=")[2].strip(" \"'") or "utf-8"
    try:
        text = data.decode() if charset in ("utf-8", "utf8", "us-ascii") else None
    except UnicodeDecodeError:
        text = None
    if text is not None and "\x00" not in text:
        return DocumentChanged.model_validate({**about, "text": text})
    return DocumentChanged.model_validate({**about, "content_base64": base64.b64encode(data)})


async def _multipart(request: Request, given: DocumentMetadata) -> DocumentUpload:
    try:
        async with request.form(max_files=2, max_fields=8, max_part_size=MAX_METADATA_BYTES) as form:
            metadata = form.get("metadata")
            files = [part for part in form.values() if isinstance(part, UploadFile) and part is not metadata]
            if not files:
                raise invalid_field("body.file", "a multipart upload needs a part with a file name and the content")
            return DocumentUpload(await files[0].read(), files[0].content_type, await _metadata(metadata, given))
    except HTTPException as error:
        raise ProblemError(400, "bad-multipart", "The multipart body can not be read", str(error.detail)) from error


async def _metadata(part: UploadFile | str | None, given: DocumentMetadata) -> DocumentMetadata:
    """The ``metadata`` part, and the query parameters for what it does not say."""
    if part is None:
        return given
    raw = part if isinstance(part, str) else (await part.read()).decode(errors="replace")
    try:
        metadata = DocumentMetadata.model_validate_json(raw)
    except ValidationError as error:
        problem = translate(error)
        detail = f"metadata: {problem.detail}"
        raise ProblemError(422, problem.kind, problem.title, detail, errors=problem.errors) from None
    missing = given.model_dump(exclude_none=True, exclude_unset=True, exclude=metadata.model_fields_set)
    return metadata.model_copy(update=missing)
