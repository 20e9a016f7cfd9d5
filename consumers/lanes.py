"""Who goes first in a process: interactive work, then bulk words, then bulk meaning."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

# A load must not starve either: work goes on after this long even if what is more urgent never rests.
LONGEST_YIELD_S = {1: 2.0, 2: 20.0}


class Urgency(IntEnum):
    """The lower, the earlier."""

    INTERACTIVE = 0
    """An edit, a deletion, a question: somebody waits."""
    BULK = 1
    """A load becomes searchable by words."""
    BULK_MEANING = 2
    """A load is embedded. Minutes of work that must not hold up the seconds before it."""


class Lanes:
    """Counts work in progress by urgency; less urgent work waits until there is none that is more urgent."""

    def __init__(self) -> None:
        self._working = [0] * len(Urgency)
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self, urgency: Urgency) -> AsyncIterator[None]:
        """Work of an urgency. Entering waits for what is more urgent."""
        await self.give_way(urgency)
        self._working[urgency] += 1
        try:
            yield
        finally:
            self._working[urgency] -= 1
            async with self._changed:
                self._changed.notify_all()

    async def give_way(self, urgency: Urgency) -> None:
        """Called between slices of work: let more urgent work pass, for ``LONGEST_YIELD_S`` at most."""
        await asyncio.sleep(0)
        if urgency is Urgency.INTERACTIVE or self._is_clear(urgency):
            return
        try:
            async with asyncio.timeout(LONGEST_YIELD_S[urgency]), self._changed:
                await self._changed.wait_for(lambda: self._is_clear(urgency))
        except TimeoutError:
            return

    def _is_clear(self, urgency: Urgency) -> bool:
        return not any(self._working[:urgency])
