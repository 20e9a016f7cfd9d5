"""Two lanes in one process: bulk work yields to interactive work between its slices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.pipeline import Lane

# Bulk work goes on after this long even if the interactive lane never rests: a load must not starve either.
LONGEST_YIELD_S = 2.0


class Lanes:
    """Counts interactive work in progress; bulk work waits until there is none."""

    def __init__(self) -> None:
        self._interactive = 0
        self._clear = asyncio.Event()
        self._clear.set()

    @asynccontextmanager
    async def turn(self, lane: Lane) -> AsyncIterator[None]:
        """Work in a lane. Entering the bulk lane waits for the interactive one."""
        if lane is Lane.BULK:
            await self.give_way()
            yield
            return
        self._interactive += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._interactive -= 1
            if not self._interactive:
                self._clear.set()

    async def give_way(self) -> None:
        """Called by bulk work between slices: let interactive work pass, two seconds at most."""
        await asyncio.sleep(0)
        if not self._clear.is_set():
            try:
                await asyncio.wait_for(self._clear.wait(), LONGEST_YIELD_S)
            except TimeoutError:
                return
