"""Ends a consumer process that stands still, and shows that the others are alive.

Two ways to hang, two ways out: a consumer that no longer gets its records is found here, and the process stops as after
a bug; an event loop that is blocked touches its file no more, and whoever supervises the process starts it again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from consumers.delivery import Delivery
from consumers.progress import Work
from streams.errors import Unavailable
from streams.liveness import ProgressWatch, Standing

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0


class Stalled(Exception):
    """Consumers with records before them do not move; a restart helps."""


class Progress(Protocol):
    """Asks the brokers how far a group is on some partitions."""

    async def of(self, group: str, topic: str, partitions: Iterable[int]) -> tuple[int, int]:
        """Sum of the committed offsets, and how many records follow them."""
        ...


async def watch(
    deliveries: Iterable[Delivery],
    *,
    progress: Progress,
    alive_file: Path | None,
    longest_batch_s: float,
    on_stalled: Callable[[BaseException], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look for ever. ``alive_file`` is touched at every look; brokers that do not answer are no reason to stop."""
    watched = ProgressWatch(longest_batch_s=longest_batch_s)
    clock = asyncio.get_running_loop().time
    while True:
        if alive_file is not None:
            await asyncio.to_thread(_touch, alive_file)
        try:
            standings = [
                await _standing(work, progress) for delivery in deliveries for work in delivery.subscriptions()
            ]
        except Unavailable:
            standings = []
        if stalled := watched.stalled(standings, clock()):
            log.critical("consumers_stand_still", extra={"groups": stalled})
            on_stalled(Stalled(f"no movement of {', '.join(stalled)}"))
            return
        await sleep(LOOK_EVERY_S)


async def _standing(work: Work, progress: Progress) -> Standing:
    done, behind = await progress.of(work.group, work.topic, work.partitions) if work.partitions else (0, 0)
    return Standing(work.group, done, behind, work.busy_since, work.held)


def _touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
