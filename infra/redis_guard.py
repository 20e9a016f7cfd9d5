"""Every command to Redis goes through here: bounded in time, in our errors, and not even tried while Redis is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from infra.breaker import CircuitBreaker
from infra.redis_errors import translated
from streams.errors import Unavailable

DEPENDENCY = "redis"
# A command takes a fraction of a millisecond; a Redis that is silent for this long is down, as far as a reader is
# concerned. Nothing depends on Redis but comfort, so work goes on without it.
COMMAND_S = 2.0
# Commands in flight at once. With the connection that follows the streams, below what the client's pool holds: one too
# many there is an error, which would look like a Redis that is away.
MAX_COMMANDS = 6
# Redis starts within a second and a probe costs nobody anything, so we look again soon: until then streams are polled.
PAUSE_S = 2.0


class RedisGuard:
    """One circuit for all that a process does with Redis."""

    def __init__(self, *, pause_s: float = PAUSE_S) -> None:
        self._breaker = CircuitBreaker(DEPENDENCY, pause_s=pause_s, probe_s=2 * COMMAND_S)
        self._turns = asyncio.Semaphore(MAX_COMMANDS)

    @contextlib.asynccontextmanager
    async def command(self, within_s: float = COMMAND_S) -> AsyncIterator[None]:
        """Around one command or pipeline. A command that is cut off takes its connection along: its reply is nobody's.

        Raises:
            CircuitOpen: Redis was not asked.
            Unavailable: it is away, full, read-only or silent.
        """
        async with self._turns:
            with self._breaker.attempt(), translated():
                try:
                    async with asyncio.timeout(within_s):
                        yield
                except TimeoutError as error:
                    raise Unavailable(DEPENDENCY, f"no answer within {within_s:g} s", retry_after_s=2.0) from error
