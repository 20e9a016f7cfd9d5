"""Retries that cannot turn an outage into a flood: few per call, few in all, and never all at the same moment."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from streams.errors import CircuitOpen, TransientError, Unavailable

T = TypeVar("T")

MAX_ATTEMPTS = 3
PAUSE_S = (0.3, 5.0)
"""First and longest pause between attempts; the second is three times the first, and so on."""
# Somebody waits in front of a screen: after this long without a store, say so and let them ask again.
PATIENCE_S = 5.0


@dataclass(slots=True)
class RetryBudget:
    """A token bucket: every first attempt earns a share of a retry.

    So a dependency that fails every call gets 1.2 times as many calls as it would without retries, and three more; one
    that fails every tenth call costs hardly any answer.
    """

    share: float = 0.2
    saved: float = 3.0
    most: float = 3.0

    def earn(self) -> None:
        self.saved = min(self.most, self.saved + self.share)

    def spend(self) -> bool:
        """Whether there is a retry left; it is gone then."""
        if self.saved < 1.0:
            return False
        self.saved -= 1.0
        return True


def pause_s(attempt: int) -> float:
    """How long to wait after the n-th failed attempt: growing, and spread so that callers do not come back together."""
    first, longest = PAUSE_S
    return float(min(longest, first * 3 ** (attempt - 1)) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret


async def persistently(
    call: Callable[[], Awaitable[T]],
    *,
    budget: RetryBudget,
    somebody_waits: bool = True,
    patience_s: float = PATIENCE_S,
) -> T:
    """Call, and call again where that makes sense while a dependency is away.

    With somebody waiting: ``MAX_ATTEMPTS`` at most, as far as the budget allows, none later than ``patience_s``. Else
    until cancelled, at growing pauses; there are never many such calls at once.

    Raises:
        Unavailable, TransientError: what the last attempt died of.
    """
    budget.earn()
    give_up_at = time.monotonic() + patience_s
    attempt = 1
    while True:
        try:
            return await call()
        except (Unavailable, TransientError) as error:
            wait_s = pause_s(attempt)
            if isinstance(error, CircuitOpen):
                wait_s = max(wait_s, error.retry_after_s)
            pointless = attempt >= MAX_ATTEMPTS or time.monotonic() + wait_s > give_up_at
            if somebody_waits and (pointless or not budget.spend()):
                raise
        await asyncio.sleep(wait_s)
        attempt += 1
