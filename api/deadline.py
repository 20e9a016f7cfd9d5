"""How long the caller is going to wait: said in a header, kept to by us and by whoever works on the question."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Header

from api.problems import ProblemError

HEADER = "X-Request-Timeout-Ms"
MAX_MS = 3_600_000


def _timeout_s(
    x_request_timeout_ms: Annotated[
        int | None,
        Header(alias=HEADER, ge=1, le=MAX_MS, description="Milliseconds after which the answer is of no use any more."),
    ] = None,
) -> float | None:
    return None if x_request_timeout_ms is None else x_request_timeout_ms / 1000


RequestTimeout = Annotated[float | None, Depends(_timeout_s)]
"""Seconds; None: the caller has not said."""


@asynccontextmanager
async def within(timeout_s: float | None) -> AsyncIterator[None]:
    """Work that nobody waits for any more is stopped.

    Raises:
        ProblemError: ``expired`` (504), the time is over.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise expired(f"not done within the {HEADER} of the request") from error


def expired(detail: str) -> ProblemError:
    return ProblemError(504, "expired", "No answer in time", detail)
