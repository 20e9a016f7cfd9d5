"""Who reads an answer's stream, across processes: a lease per process that is renewed while a reader is here."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator

from redis.asyncio import Redis

from infra.redis_guard import RedisGuard
from streams.errors import Unavailable

log = logging.getLogger(__name__)

# A process that died stops counting as a reader after LEASE_S. Renewed three times within it, so that one lost renewal
# makes no reader vanish.
LEASE_S = 9.0
RENEW_EVERY_S = 3.0


def readers_key(question_id: str) -> str:
    return f"answer:{question_id}:readers"


class ReaderPresence:
    """Announces the streams that have readers in this process."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._redis = redis
        self._guard = guard
        self._process = secrets.token_hex(6)
        self._readers: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        # One announcement at a time: a thousand readers arriving together must not open a thousand connections.
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def reading(self, question_id: str) -> AsyncIterator[None]:
        """There is a reader inside. One whose arrival is cut off departs as well: nobody else would count it out."""
        self._readers[question_id] += 1
        try:
            await self._arrive(question_id)
            yield
        finally:
            self._depart(question_id)

    async def anyone(self, question_id: str) -> bool:
        """Whether a reader is present in any process. To be called under the guard; raises the client's errors."""
        return bool(await self._redis.zcount(readers_key(question_id), time.time(), "+inf"))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=1.0)

    async def _arrive(self, question_id: str) -> None:
        """Announce the first reader. Redis being away refuses nobody: the lease is renewed when it is back."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew_for_ever(), name="answer-stream-presence")
        if self._readers[question_id] == 1:
            await self._renew([question_id])

    def _depart(self, question_id: str) -> None:
        """Count a reader out; the last one takes the lease along, in the background since its task may be ending."""
        self._readers[question_id] -= 1
        if self._readers[question_id] <= 0:
            del self._readers[question_id]
            farewell = asyncio.get_running_loop().create_task(self._withdraw(question_id))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    async def _renew_for_ever(self) -> None:
        while self._readers:
            await asyncio.sleep(RENEW_EVERY_S)
            await self._renew(list(self._readers))

    async def _renew(self, question_ids: Iterable[str]) -> None:
        with _forgiving():
            async with self._turn, self._guard.command(), self._redis.pipeline(transaction=False) as pipe:
                for question_id in question_ids:
                    pipe.zadd(readers_key(question_id), {self._process: time.time() + LEASE_S})
                    pipe.expire(readers_key(question_id), int(LEASE_S * 2))
                await pipe.execute()

    async def _withdraw(self, question_id: str) -> None:
        with _forgiving():
            async with self._turn:
                if question_id in self._readers:  # it has come back meanwhile
                    return
                async with self._guard.command():
                    await self._redis.zrem(readers_key(question_id), self._process)


@contextlib.contextmanager
def _forgiving() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        log.warning("answer_stream_presence_unknown", extra={"cause": error.detail})
