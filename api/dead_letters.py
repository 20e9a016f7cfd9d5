"""``/api/v1/dead-letters``: what could not be processed, why, and sending it back."""

import base64
import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth import CurrentPrincipal
from api.edge import Edge
from api.problems import invalid_field, not_found
from api.responses import json_response, problems
from schemas.access import Principal
from schemas.api import DeadLetterItem, DeadLetterPage, ReplayAccepted, ReplayRequest, ReplaysAccepted
from schemas.documents import DocumentKey
from streams.errors import NotFound
from streams.model import DeadLetter

log = logging.getLogger(__name__)

PAGE = 500


def router(edge: Edge) -> APIRouter:
    router = APIRouter(prefix="/api/v1/dead-letters", tags=["operation"])

    async def owned(letter_id: str, principal: Principal) -> DeadLetter:
        letter = await edge.dead_letters.get(letter_id)
        if letter is None or _tenant(letter) not in (None, principal.tenant):
            raise not_found(
                f"there is no dead letter {letter_id!r}; `leat dead-letters list` shows those that there are"
            )
        return letter

    async def send_back(letter: DeadLetter, principal: Principal, request: Request) -> None:
        """One line of the log says who sent what back; a replay that cannot be done leaves none."""
        await edge.dead_letters.replay(letter.letter_id)
        log.info(
            "dead_letter_replayed",
            extra={
                "letter_id": letter.letter_id,
                "reason": letter.reason,
                "topic": letter.topic,
                "partition": letter.partition,
                "offset": letter.offset,
                "revision": letter.revision,
                "subject": principal.subject,
                "request_id": request.scope["leat.request_id"],
            },
        )

    async def open_letters(reason: str | None, principal: Principal) -> AsyncIterator[DeadLetter]:
        before: DeadLetter | None = None
        while True:
            letters = await edge.dead_letters.list_dead_letters(reason=reason, before=before, limit=PAGE)
            for letter in letters:
                if _tenant(letter) in (None, principal.tenant):
                    yield letter
            if len(letters) < PAGE:
                return
            before = letters[-1]

    @router.get("", summary="List dead letters", response_model=DeadLetterPage, responses=problems(503))
    async def dead_letters(
        principal: CurrentPrincipal,
        reason: Annotated[str | None, Query(max_length=100)] = None,
        collection: Annotated[str | None, Query(max_length=63)] = None,
        resolved: Annotated[bool, Query(description="Also those that a later change or a replay has settled.")] = False,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Response:
        """Newest first. Records that name no tenant are shown to every administrator."""
        before = None
        if cursor is not None:
            before = await edge.dead_letters.get(cursor)
            if before is None:
                raise invalid_field("query.cursor", "not a cursor of this list")
        letters = await edge.dead_letters.list_dead_letters(
            include_resolved=resolved, reason=reason, collection=collection, before=before, limit=limit
        )
        mine = [letter for letter in letters if _tenant(letter) in (None, principal.tenant)]
        page = DeadLetterPage(
            dead_letters=tuple(_item(letter) for letter in mine),
            next_cursor=letters[-1].letter_id if len(letters) == limit else None,
        )
        return json_response(page)

    @router.get("/{letter_id}", summary="One dead letter", response_model=DeadLetterItem, responses=problems(404, 503))
    async def dead_letter(letter_id: str, principal: CurrentPrincipal) -> Response:
        """With its original bytes."""
        letter = await owned(letter_id, principal)
        return json_response(_item(letter, await edge.dead_letters.value(letter_id)))

    @router.post(
        "/{letter_id}/replay", status_code=202, summary="Try it again", response_model=ReplayAccepted,
        responses=problems(404, 503),
    )  # fmt: skip
    async def replay(letter_id: str, request: Request, principal: CurrentPrincipal) -> Response:
        """Processed again under its old revision: it never replaces a newer one."""
        await send_back(await owned(letter_id, principal), principal, request)
        return json_response(ReplayAccepted(letter_id=letter_id), status=202)

    @router.post(
        "/replay", status_code=202, summary="Try several again", response_model=ReplaysAccepted,
        responses=problems(404, 503),
    )  # fmt: skip
    async def replay_several(body: ReplayRequest, request: Request, principal: CurrentPrincipal) -> Response:
        """Oldest first, as they died. Twice is harmless: what has been applied already is not applied again."""
        if body.letter_ids is not None:
            letters = [await owned(letter_id, principal) for letter_id in dict.fromkeys(body.letter_ids)]
        else:
            letters = [letter async for letter in open_letters(body.reason, principal)]
            letters.reverse()
        replayed: list[str] = []
        gone: list[str] = []
        for letter in letters:
            try:
                await send_back(letter, principal, request)
                replayed.append(letter.letter_id)
            except NotFound:
                gone.append(letter.letter_id)
        return json_response(ReplaysAccepted(replayed=tuple(replayed), gone=tuple(gone)), status=202)

    return router


def _key(letter: DeadLetter) -> DocumentKey | None:
    try:
        return None if letter.key is None else DocumentKey.parse(letter.key)
    except ValueError:
        return None


def _tenant(letter: DeadLetter) -> str | None:
    key = _key(letter)
    return None if key is None else key.tenant


def _item(letter: DeadLetter, value: bytes | None = None) -> DeadLetterItem:
    key = _key(letter)
    return DeadLetterItem(
        letter_id=letter.letter_id,
        document=None if key is None else str(key),
        reason=letter.reason,
        detail=letter.detail,
        stage=letter.stage,
        attempts=letter.attempts,
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        revision=letter.revision,
        event_id=letter.event_id,
        size_bytes=letter.size_bytes,
        died_at=letter.died_at,
        replayed_at=letter.replayed_at,
        resolved_at=letter.resolved_at,
        value_base64=None if value is None else base64.b64encode(value).decode(),
    )
