"""A circuit breaker: stops asking a dependency that keeps failing, and finds out with one probe when it is back.

A pure state machine over a clock. Not for threads: it belongs to one event loop and never awaits. Its state is a
metric, and ``circuits`` lists those of the process.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from weakref import WeakSet

from prometheus_client import Counter, Gauge

from streams.errors import CircuitOpen, TransientError, Unavailable

STATE = Gauge("leat_circuit_state", "0: calls pass; 1: one probe is under way; 2: calls are refused.", ["dependency"])
OPENED = Counter("leat_circuit_opened_total", "How often a circuit was opened.", ["dependency"])

PAUSE_S = 30.0
# Longer than any call of ours may take: a probe that has not ended by then counts as failed.
PROBE_S = 60.0


class CircuitState(StrEnum):
    CLOSED = "closed"
    """Calls pass; failures in a row are counted."""
    OPEN = "open"
    """Calls are refused until the pause is over."""
    HALF_OPEN = "half-open"
    """One call, the probe, is under way; all others are refused."""


_SEVERITY = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}


class CircuitBreaker:
    """Opens after ``max_failures`` failures in a row, and lets one probe through every ``pause_s`` from then on.

    What counts as a failure of the dependency is ``TransientError`` and ``Unavailable``, except the types in
    ``ignored`` (a server that says "no such model" works). Nothing else counts, and a cancellation least of all.
    """

    def __init__(
        self,
        dependency: str,
        *,
        max_failures: int = 5,
        pause_s: float = PAUSE_S,
        probe_s: float = PROBE_S,
        ignored: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dependency = dependency
        self._max_failures = max_failures
        self._pause_s = pause_s
        self._probe_s = probe_s
        self._ignored = ignored
        self._clock = clock
        self._state = CircuitState.CLOSED
        self._failures = 0
        self._opened_at = 0.0
        self._probed_at = 0.0
        self._era = 0
        """Grows with every change of state: what comes of a call that began in an earlier one is no news."""
        _ALL.add(self)
        STATE.labels(dependency).set(0)

    @property
    def dependency(self) -> str:
        return self._dependency

    @property
    def state(self) -> CircuitState:
        return self._state

    @contextmanager
    def attempt(self) -> Iterator["Attempt"]:
        """Around one call. ``Attempt.answered`` may report early that the dependency lives, as a stream does.

        Raises:
            CircuitOpen: the dependency is not asked; ``retry_after_s`` says for how long.
        """
        attempt = Attempt(self, self._admit())
        try:
            yield attempt
        except BaseException as error:
            if isinstance(error, TransientError | Unavailable) and not isinstance(error, self._ignored):
                self._failed(attempt)
            elif isinstance(error, Exception):
                attempt.answered()
            else:
                self._abandoned(attempt)
            raise
        self._succeeded(attempt)

    def _admit(self) -> int:
        if self._state is CircuitState.CLOSED:
            return self._era
        if self._state is CircuitState.HALF_OPEN and self._clock() - self._probed_at >= self._probe_s:
            self._open()  # the probe hangs
        left_s = self._opened_at + self._pause_s - self._clock()
        if self._state is CircuitState.HALF_OPEN or left_s > 0:
            detail = f"{self._failures} calls in a row failed; the next try is due"
            raise CircuitOpen(self._dependency, detail, retry_after_s=max(left_s, 1.0))
        self._probed_at = self._clock()
        return self._enter(CircuitState.HALF_OPEN)

    def _open(self) -> None:
        self._opened_at = self._clock()
        OPENED.labels(self._dependency).inc()
        self._enter(CircuitState.OPEN)

    def _enter(self, state: CircuitState) -> int:
        self._state = state
        self._era += 1
        STATE.labels(self._dependency).set(_SEVERITY[state])
        return self._era

    def _answered(self, attempt: "Attempt") -> None:
        if attempt.era == self._era and self._state is CircuitState.HALF_OPEN:
            self._failures = 0
            attempt.era = self._enter(CircuitState.CLOSED)

    def _succeeded(self, attempt: "Attempt") -> None:
        self._answered(attempt)
        if attempt.era == self._era:
            self._failures = 0

    def _failed(self, attempt: "Attempt") -> None:
        if attempt.era != self._era:
            return
        self._failures += 1
        if self._state is CircuitState.HALF_OPEN or self._failures >= self._max_failures:
            self._open()

    def _abandoned(self, attempt: "Attempt") -> None:
        """The probe was cancelled before it learned anything: the next call is the probe."""
        if attempt.era == self._era and self._state is CircuitState.HALF_OPEN:
            self._enter(CircuitState.OPEN)


class Attempt:
    """One admitted call."""

    def __init__(self, breaker: CircuitBreaker, era: int) -> None:
        self._breaker = breaker
        self.era = era

    def answered(self) -> None:
        """The dependency lives: closes a half-open circuit, whatever comes of this call."""
        self._breaker._answered(self)


_ALL: WeakSet[CircuitBreaker] = WeakSet()


def circuits() -> dict[str, CircuitState]:
    """State per dependency of this process; of several circuits to one dependency, the worst."""
    found: dict[str, CircuitState] = {}
    for breaker in sorted(_ALL, key=lambda one: _SEVERITY[one.state]):
        found[breaker.dependency] = breaker.state
    return found
