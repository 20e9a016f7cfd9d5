"""Read your writes: wait until the change at a position has had its effect."""

import asyncio
import time

from api.problems import ProblemError, invalid_field
from schemas.access import Principal
from schemas.api import DocumentStateSeen, Until
from schemas.positions import Position
from streams.model import WaitState, WaitVerdict
from streams.ports import DocumentDirectory

# A change is typically searchable some 30 ms after it was accepted: look often at first, then less and less.
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.1


async def wait_for(
    min_position: str | None, wait_ms: int, until: Until, *, principal: Principal, directory: DocumentDirectory
) -> DocumentStateSeen | None:
    """What has become of the change at a position, once that is known. Superseded and failed count as known.

    Raises:
        ProblemError: ``position-not-reached`` (503) after ``wait_ms``; or the position is not one.
    """
    if min_position is None:
        return None
    position = _position(min_position, principal)
    if position is None:
        return None
    give_up_at = time.monotonic() + wait_ms / 1000
    pause_s = FIRST_PAUSE_S
    while True:
        state = await directory.wait_state(position)
        if _reached(state, until):
            assert position.key is not None
            return DocumentStateSeen(
                document_id=position.key.document_id, state=state.verdict.value, reason=state.reason
            )
        remaining_s = give_up_at - time.monotonic()
        if remaining_s <= 0:
            raise ProblemError(
                503,
                "position-not-reached",
                "The change is not there yet",
                f"it is {state.verdict.value} after {wait_ms} ms; wait longer, or ask again",
                headers={"Retry-After": "1"},
            )
        await asyncio.sleep(min(pause_s, remaining_s))
        pause_s = min(LONGEST_PAUSE_S, pause_s * 1.4)


def _position(text: str, principal: Principal) -> Position | None:
    """None for a position without a document: the newest one that some answer included has had its effect."""
    try:
        position = Position.decode(text)
    except ValueError as error:
        raise invalid_field("min_position", str(error)) from error
    if position.key is not None and position.key.tenant != principal.tenant:
        raise invalid_field("min_position", "not a position of this log")
    return None if position.key is None else position


def _reached(state: WaitState, until: Until) -> bool:
    if state.verdict is WaitVerdict.PENDING:
        return False
    return not (state.verdict is WaitVerdict.SEARCHABLE and until is Until.EMBEDDED)
