"""Seats for readers of streams: so many in a process, so many for one user. Who finds none is told when to come again.

A stream costs a connection and its buffers for as long as its answer takes; without a limit one user, or one broken
client that reconnects without closing, takes the process away from everybody.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter as Metric

from api.problems import ProblemError
from schemas.access import Principal

REFUSED = Metric("leat_sse_refused_total", "Streams refused since there was no seat left.", ["limit"])

# An answer takes some seconds; by then somebody has left.
RETRY_AFTER_S = 2


class Seat:
    """One reader's place, from before its question is asked until its stream is over."""

    def __init__(self, seats: "Seats", who: tuple[str, str]) -> None:
        self._seats: Seats | None = seats
        self._who = who

    def leave(self) -> None:
        """Once or more often."""
        if self._seats is not None:
            self._seats._free(self._who)
            self._seats = None


class Seats:
    """The seats of this process; ``per_user`` None: as many as there are."""

    def __init__(self, in_all: int, *, per_user: int | None = None) -> None:
        self._in_all = in_all
        self._per_user = per_user
        self._taken: Counter[tuple[str, str]] = Counter()
        self._count = 0

    @property
    def taken(self) -> int:
        return self._count

    @contextmanager
    def reserved(self, principal: Principal) -> Iterator[Seat]:
        """A seat that is given back if what is done meanwhile fails; else its stream gives it back.

        Raises:
            ProblemError: 429, the user has as many as one may have; 503, there is none left.
        """
        who = (principal.tenant, principal.subject)
        if self._per_user is not None and self._taken[who] >= self._per_user:
            REFUSED.labels("user").inc()
            detail = f"{self._per_user} streams of yours are open"
            raise _refused(429, "too-many-streams", "Too many streams at once", detail)
        if self._count >= self._in_all:
            REFUSED.labels("process").inc()
            raise _refused(503, "unavailable", "Try again in a moment", f"all {self._in_all} streams are taken")
        self._taken[who] += 1
        self._count += 1
        seat = Seat(self, who)
        try:
            yield seat
        except BaseException:
            seat.leave()
            raise

    def _free(self, who: tuple[str, str]) -> None:
        self._count -= 1
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]


def _refused(status: int, kind: str, title: str, detail: str) -> ProblemError:
    return ProblemError(status, kind, title, detail, headers={"Retry-After": str(RETRY_AFTER_S)})
