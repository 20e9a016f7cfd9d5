"""Notice while running that the log has started anew: its offsets begin again."""

from collections.abc import Awaitable, Callable


class EpochWatch:
    """The epoch of the documents topic, looked up again whenever a partition's offsets go back.

    Going back is also what a rewind or a rebalance looks like: then the look-up finds the same epoch.
    """

    def __init__(self, epoch: int, *, look: Callable[[], Awaitable[int]]) -> None:
        self._epoch = epoch
        self._look = look
        self._newest: dict[int, int] = {}

    @property
    def epoch(self) -> int:
        """As last known."""
        return self._epoch

    async def at(self, partition: int, offset: int) -> int:
        """The epoch in which this record was read."""
        if offset <= self._newest.get(partition, -1):
            self._epoch = await self._look()
            self._newest.clear()
        self._newest[partition] = offset
        return self._epoch
