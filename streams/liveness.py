"""Alive is who moves: with records to read, and nothing else to wait for, a consumer that stands still is not alive."""

from collections.abc import Iterable
from dataclasses import dataclass

# With work before it, a healthy consumer commits every few seconds at the latest; a broker that restarts takes 5 to
# 15 s to serve again, and a rebalance a session timeout.
STILL_S = 45.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one consumer has come."""

    name: str
    done: int
    """Sum of the offsets that it has committed; any change is movement."""
    behind: int
    """Records of its partitions that are not committed."""
    busy_since: float | None = None
    """When it was handed the batch that it works on; None: it waits for records."""
    held: bool = False
    """A dependency is down, and it knows: a restart would not help."""


class ProgressWatch:
    """Remembers when each consumer last moved."""

    def __init__(self, *, longest_batch_s: float, still_s: float = STILL_S) -> None:
        """``longest_batch_s``: how long work on one batch may take before the brokers take its partitions away."""
        self._longest_batch_s = longest_batch_s
        self._still_s = still_s
        self._moved: dict[str, tuple[int, float]] = {}

    def stalled(self, standings: Iterable[Standing], now: float) -> tuple[str, ...]:
        """Names of those that should move and do not. ``now`` in seconds, of the clock of ``busy_since``."""
        return tuple(standing.name for standing in standings if self._is_stalled(standing, now))

    def _is_stalled(self, standing: Standing, now: float) -> bool:
        done, moved_at = self._moved.get(standing.name, (-1, now))
        if standing.done != done or standing.behind <= 0 or standing.held:
            self._moved[standing.name] = (standing.done, now)
            return False
        if standing.busy_since is not None:
            return now - standing.busy_since > self._longest_batch_s
        return now - moved_at > self._still_s
