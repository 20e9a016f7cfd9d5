"""``/api/v1/conversations``: what a user has asked, in order; visible to that user alone."""

import logging
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import invalid_field, not_found
from api.responses import json_response, problems
from schemas.access import Principal
from schemas.api import CONVERSATION_ID, ConversationDetail, ConversationItem, ConversationPage, ConversationTurn
from streams.errors import Unavailable
from streams.model import ConversationSummary

log = logging.getLogger(__name__)

# Turns that one conversation is shown with; older ones are there and are not shown.
SHOWN_TURNS = 500

ConversationId = Annotated[str, Path(max_length=128, pattern=CONVERSATION_ID)]


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1/conversations", tags=["questions"])

    async def delete(conversation_id: str | None, principal: Principal) -> int:
        """From the store, then from the buffers that answers were streamed through."""
        deleted = await edge.conversations.delete(principal, conversation_id)
        try:
            await edge.stream.forget(deleted.question_ids)
        except Unavailable:
            log.warning("answer_streams_not_forgotten", extra={"questions": len(deleted.question_ids)})
        return deleted.conversations

    @router.get("", summary="List your conversations", response_model=ConversationPage, responses=problems(503))
    async def conversations(
        principal: CurrentPrincipal,
        cursor: Annotated[str | None, Query(max_length=128, description="`next_cursor` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        """The most recently used first. A conversation begins with the first question that names its id."""
        before = None
        if cursor is not None:
            before = await edge.conversations.find(principal, cursor)
            if before is None:
                raise invalid_field("query.cursor", "not a cursor of this list")
        found = await edge.conversations.list_conversations(principal, before=before, limit=limit)
        page = ConversationPage(
            conversations=tuple(_item(summary) for summary in found),
            next_cursor=found[-1].conversation_id if len(found) == limit else None,
        )
        return json_response(page)

    @router.delete("", status_code=204, summary="Delete all your conversations", responses=problems(503))
    async def delete_all(principal: CurrentPrincipal) -> Response:
        """With their stored answers."""
        await delete(None, principal)
        return Response(status_code=204)

    @router.get(
        "/{conversation_id}", summary="One conversation", response_model=ConversationDetail,
        responses=problems(404, 503),
    )  # fmt: skip
    async def conversation(conversation_id: ConversationId, principal: CurrentPrincipal) -> Response:
        """Its turns in order. An answer is null once it cites what is deleted, or what you may no longer read."""
        summary = await edge.conversations.find(principal, conversation_id)
        if summary is None:
            raise not_found(f"conversation {conversation_id!r}")
        turns = await edge.conversations.turns(principal, conversation_id, limit=SHOWN_TURNS)
        detail = ConversationDetail(
            **_item(summary).model_dump(),
            turns=tuple(
                ConversationTurn(
                    query_id=turn.question_id,
                    query=turn.query,
                    standalone_query=turn.standalone if turn.standalone != turn.query else None,
                    answer=turn.answer,
                    answered=turn.answered,
                    asked_at=turn.asked_at,
                )
                for turn in turns
            ),
        )
        return json_response(detail)

    @router.delete("/{conversation_id}", status_code=204, summary="Delete a conversation", responses=problems(404, 503))
    async def delete_one(conversation_id: ConversationId, principal: CurrentPrincipal) -> Response:
        """With its stored answers. A question that is under way does not bring it back."""
        if not await delete(conversation_id, principal):
            raise not_found(f"conversation {conversation_id!r}")
        return Response(status_code=204)

    return router


def _item(summary: ConversationSummary) -> ConversationItem:
    return ConversationItem(
        conversation_id=summary.conversation_id,
        title=summary.title,
        questions=summary.turns,
        created_at=summary.created_at,
        updated_at=summary.updated_at,
    )
