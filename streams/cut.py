"""From a document change and its content to the passages of every live generation."""

import posixpath
from collections.abc import Callable, Sequence
from datetime import datetime

from schemas.access import AccessLevel
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.pipeline import DocumentAttributes, DocumentChunked, Origin
from streams.chunk import chunk
from streams.crash import passing
from streams.errors import NotFound, UnreadableDocument
from streams.formats import read_as
from streams.model import Content, Generation, GenerationState, ParsedDocument
from streams.parts import parts_of
from streams.ports import BlobStore, Parser, TokenCounter
from streams.storable import storable_document


async def content_of(changed: DocumentChanged, key: DocumentKey, *, blobs: BlobStore, max_bytes: int) -> Content:
    """The content of an upsert, wherever it travels.

    Raises:
        UnreadableDocument: ``content-missing``, the blob that it refers to does not exist; ``document-too-large``, it
            refers to more than ``max_bytes``.
        PermanentError: ``blob-corrupt``.
    """
    if changed.text is not None:
        return Content(changed.text.encode(), changed.content_type, key.document_id)
    if changed.content_base64 is not None:
        return Content(changed.content_base64, changed.content_type, key.document_id)
    reference = changed.content_reference
    if reference is None:
        raise UnreadableDocument("content-missing", "the upsert carries no content")
    if reference.size_bytes > max_bytes:
        raise UnreadableDocument("document-too-large", f"{reference.size_bytes} bytes; the limit is {max_bytes}")
    try:
        data = await blobs.get(key.tenant, reference.sha256)
    except NotFound as error:
        detail = f"no blob {reference.sha256[:12]}… in the store: publish the document again"
        raise UnreadableDocument("content-missing", detail) from error
    return Content(data, changed.content_type, key.document_id)


async def cut(
    changed: DocumentChanged,
    content: Content,
    *,
    key: DocumentKey,
    revision: int,
    origin: Origin,
    access: tuple[AccessLevel, tuple[str, ...]],
    generations: Sequence[Generation],
    parser: Parser,
    counter_of: Callable[[Generation], TokenCounter],
    now: Callable[[], datetime],
) -> list[DocumentChunked]:
    """Parse once per way of reading, cut once per generation, and pack into records; parts of a generation in order.

    Raises:
        UnreadableDocument: no parser can read it; retrying cannot help. What only a generation that does not serve
            cannot read is left out: it is a failure of that generation alone.
    """
    records: list[DocumentChunked] = []
    for parsers in dict.fromkeys(generation.parsers for generation in generations):
        alike = [generation for generation in generations if generation.parsers == parsers]
        told = read_as(content, parsers)
        try:
            parsed = storable_document(await parser.parse(told))
        except UnreadableDocument:
            if len(alike) == len(generations) or any(g.state is GenerationState.SERVING for g in alike):
                raise
            continue
        passing("parsed")
        attributes = _attributes(changed, parsed, content, key, access)
        for generation in alike:
            passages = chunk(
                parsed,
                max_tokens=generation.chunk_tokens,
                overlap=generation.chunk_overlap,
                counter=counter_of(generation),
            )
            head = DocumentChunked(
                key=key,
                generation_id=generation.generation_id,
                revision=revision,
                change=Change.UPSERT,
                origin=origin,
                attributes=attributes,
                chunked_at=now(),
            )
            records.extend(parts_of(head, passages))
    return records


def deletion(
    key: DocumentKey,
    *,
    revision: int,
    origin: Origin,
    generations: Sequence[Generation],
    at: datetime,
    change: Change = Change.DELETE,
) -> list[DocumentChunked]:
    """One record per generation that takes the document's passages away; ``change`` is what its outcome will say."""
    return [
        DocumentChunked(
            key=key,
            generation_id=generation.generation_id,
            revision=revision,
            change=change,
            origin=origin,
            chunked_at=at,
        )
        for generation in generations
    ]


def _attributes(
    changed: DocumentChanged,
    parsed: ParsedDocument,
    content: Content,
    key: DocumentKey,
    access: tuple[AccessLevel, tuple[str, ...]],
) -> DocumentAttributes:
    level, groups = access
    return DocumentAttributes(
        title=changed.title or parsed.title or posixpath.basename(key.document_id),
        url=changed.url,
        content_type=parsed.content_type,
        size_bytes=len(content.data),
        metadata={**parsed.metadata, **changed.metadata},
        access_level=level,
        allowed_groups=groups,
    )
