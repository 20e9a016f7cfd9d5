"""Upkeep of the indexer: gives up revisions of which parts are missing for good, so that they hold up no offset.

A chunker that dies between two parts publishes the revision again when it is back, unless a newer one is known by then,
or the content is gone. The parts that it had published would be held, and lag stand above zero, until a revision of the
same document came by in the same lane. What is given up needlessly is not lost: it is unapplied, and driven again.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from schemas.topics import Topic
from streams.assemble import Incomplete

log = logging.getLogger(__name__)


class Collecting(Protocol):
    """A handler that collects the parts of revisions."""

    def incomplete(self) -> frozenset[Incomplete]: ...

    def give_up(self, given: Iterable[Incomplete]) -> Mapping[int, int]:
        """Drop these; returns what is still held, as lowest offset per partition."""
        ...


class Commits(Protocol):
    """What is needed of ``consumers.delivery.Delivery``."""

    def delivered(self, topic: Topic) -> Mapping[int, int]: ...

    async def release(self, topic: Topic, holding: Mapping[int, int]) -> None: ...


class Leftovers:
    """Looks from time to time; gives up what nothing has been added to since the look before."""

    def __init__(
        self,
        collecting: Mapping[Topic, Collecting],
        *,
        commits: Commits,
        upstream: Sequence[str],
        lag: Callable[[], Awaitable[Mapping[str, int]]],
        ends: Callable[[Topic], Awaitable[Mapping[int, int]]],
    ) -> None:
        """``upstream``: the groups that publish parts; ``ends``: the end offset per partition of a topic."""
        self._collecting = collecting
        self._commits = commits
        self._upstream = upstream
        self._lag = lag
        self._ends = ends
        self._before: dict[Topic, frozenset[Incomplete]] = {}

    async def run(self) -> None:
        """One look. Nothing is given up while a part may still come: in the topic, or from upstream."""
        now = {topic: handler.incomplete() for topic, handler in self._collecting.items()}
        still = {topic: found & self._before.get(topic, frozenset()) for topic, found in now.items()}
        self._before = now
        if not any(still.values()):
            return
        # Upstream first: what it has finished is in the topic before we ask where the topic ends.
        lag = await self._lag()
        if any(lag.get(group, 0) for group in self._upstream):
            return
        for topic, found in still.items():
            if found:
                await self._give_up(topic, found)

    async def _give_up(self, topic: Topic, found: frozenset[Incomplete]) -> None:
        ends, delivered = await self._ends(topic), self._commits.delivered(topic)
        torn = [one for one in found if delivered.get(one.partition, -1) >= ends[one.partition]]
        if not torn:
            return
        log.warning("torn_revisions_given_up", extra={"of_topic": topic.name, "revisions": len(torn)})
        await self._commits.release(topic, self._collecting[topic].give_up(torn))
