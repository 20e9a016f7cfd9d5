"""``/api/v1/sources``: the text at a citation, in its document."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import invalid_field, not_found
from api.responses import json_response, problems
from schemas.api import SourceText
from schemas.documents import Name
from streams.model import HydratedPassage

# Code points on either side of the citation; one or two passages of a typical model.
CONTEXT = 1200
MAX_RANGE = 20_000


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1", tags=["search"])

    @router.get("/sources", summary="The text at a citation", response_model=SourceText, responses=problems(404, 503))
    async def source(
        principal: CurrentPrincipal,
        document_id: Annotated[str, Query(min_length=1, max_length=4096)],
        start: Annotated[int, Query(ge=0, description="Code points.")],
        end: Annotated[int, Query(ge=0, description="Code points.")],
        collection: Name = "default",
        revision: Annotated[
            int | None,
            Query(ge=0, le=2**63 - 1, description="Of the citation: its text is shown while history has it."),
        ] = None,
    ) -> Response:
        """The text around a range, as far as whoever asks may read the document now.

        Of the cited revision, while history has it; otherwise the present text, in which the range may lie elsewhere.
        """
        if not start < end <= start + MAX_RANGE or end > 2**31 - CONTEXT - 1:
            raise invalid_field("query.end", f"want start < end, at most {MAX_RANGE} code points apart")
        if "\x00" in document_id:
            raise invalid_field("query.document_id", "has a NUL character")
        place = {"start": start, "end": end, "context": CONTEXT}
        passages = await edge.directory.excerpt(principal, collection, document_id, **place)
        current = revision is None or (bool(passages) and passages[0].revision == revision)
        if revision is not None and not current and edge.time_travel is not None:
            history = edge.time_travel.history
            passages = await history.excerpt(principal, collection, document_id, revision, **place) or passages
        if not passages:
            raise not_found("the document, or this part of it, is gone")
        return json_response(text_around(passages, start=start, end=end, current=current))

    return router


def text_around(passages: list[HydratedPassage], *, start: int, end: int, current: bool) -> SourceText:
    """Join passages of one revision, which overlap and may leave out what is between them, into one piece of text."""
    text, text_start = "", passages[0].start
    position = text_start
    for passage in passages:
        if passage.start > position:
            # Between passages there are only blank lines and the like; keep offsets right, and words apart.
            text += "\n".rjust(passage.start - position)
            position = passage.start
        if passage.end > position:
            text += passage.text[position - passage.start :]
            position = passage.end
    cited = next((passage for passage in passages if passage.end > start), passages[-1])
    return SourceText(
        document_id=cited.key.document_id,
        collection=cited.key.collection,
        title=cited.title,
        url=cited.url,
        revision=cited.revision,
        current=current,
        text=text,
        text_start=text_start,
        text_end=text_start + len(text),
        start=max(start, text_start),
        end=min(end, text_start + len(text)),
        heading_path=cited.heading_path,
        page=cited.page,
    )
