"""Named places between two effects, where a fault test may stop the process. Otherwise nothing happens there.

``tests/faults`` watches them in the processes that it starts; nothing else does, and no setting can.
"""

from collections.abc import Callable

POINTS = (
    "consumed",
    "admitted",
    "parsed",
    "chunks-sending",
    "chunks-sent",
    "fence-read",
    "points-written",
    "flipped",
    "outcomes-sent",
    "vectors-cached",
    "vectors-written",
    "garbage-swept",
    "buried",
    "before-commit",
    "log-sending",
    "log-acknowledged",
    "answering",
)
"""In the order in which a change meets them; the last three belong to the HTTP edge and the answerer."""

_watchers: list[Callable[[str], None]] = []


def passing(point: str) -> None:
    """Say that the process is at this point."""
    for watcher in _watchers:
        watcher(point)


def watch(on_pass: Callable[[str], None]) -> None:
    """Have ``on_pass`` called with every point that this process passes; it may never return."""
    _watchers.append(on_pass)
