"""Moments of the past, as clients name them."""

from datetime import UTC, datetime, timedelta

from api.edge import Edge
from api.problems import ProblemError, invalid_field
from schemas.access import Principal
from schemas.positions import Position
from streams.as_of import AsOf, TimeTravel
from streams.errors import PermanentError
from streams.model import Collection

# Clocks of clients differ from ours; what is further ahead was meant otherwise.
MAX_AHEAD = timedelta(seconds=30)


async def moment_of(text: str | None, field: str, principal: Principal, edge: Edge) -> datetime | None:
    """The time that a client means by a time or a position.

    Raises:
        ProblemError: 422, it is neither, lies ahead, or nobody knows any more when it was.
    """
    if text is None:
        return None
    try:
        moment: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        moment = await _accepted_at(text, field, principal, edge)
    if moment is None:
        detail = "nobody knows any more when this position was written: give a time"
        raise ProblemError(422, "position-unknown", "The position is too old", detail)
    if moment.tzinfo is None:
        raise invalid_field(field, "a time needs its zone: 2026-01-31T12:00:00Z")
    if moment > datetime.now(UTC) + MAX_AHEAD:
        raise invalid_field(field, "lies in the future")
    return moment


async def back_to(moment: datetime, principal: Principal, collection: Collection, edge: Edge) -> AsOf:
    """The collection as it was. Raises a problem: ``history-too-short``."""
    return await _travel(edge).to(moment, principal, collection)


def _travel(edge: Edge) -> TimeTravel:
    if edge.time_travel is None:
        raise PermanentError("history-too-short", "this installation keeps no history")
    return edge.time_travel


async def _accepted_at(text: str, field: str, principal: Principal, edge: Edge) -> datetime | None:
    try:
        position = Position.decode(text)
    except ValueError as error:
        raise invalid_field(field, "neither a time nor a position") from error
    if position.key is not None and position.key.tenant != principal.tenant:
        raise invalid_field(field, "not a position of this log")
    return await _travel(edge).history.accepted_at(principal.tenant, position)
