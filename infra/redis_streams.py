"""``AnswerStream`` in Redis: a Redis Stream per question, entries under the explicit ids ``attempt-seq``.

Redis refuses ids that do not grow. That is the whole fence: once attempt 2 has written its ``restart`` as ``2-0``,
nothing of attempt 1 can be appended any more, whatever its worker believes.

Sequence numbers have no holes: attempt 1 begins at ``1-1``, later ones at ``n-0`` with ``restart``. So a reader notices
by itself when entries are missing (trimmed, expired, or lost with a Redis that came back without them).
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from infra.redis_guard import RedisGuard
from infra.redis_hub import Entry, EventId, StreamHub, Tail, entry_of
from infra.redis_presence import ReaderPresence
from schemas.answers import TERMINAL_EVENTS, QuestionAsked, RestartEvent, StreamEventName
from streams.errors import CircuitOpen, StaleAttempt, StreamLost, Unavailable
from streams.ports import Asker

BEGINNING = EventId(0, 0)
PAGE = 256
# A replay that never truly waits starves every other request of the process, even after its reader has left.
YIELD_EVERY = 64
# How long a reader waits for a Redis that went away before it is told to read the stored answer instead.
OUTAGE_S = 3.0
OUTAGE_PAUSE_S = 0.2


class RedisAnswerStream:
    """The ``AnswerStream`` port on Redis 6.2 or newer.

    ``ttl_s`` after its last event a stream is forgotten; longer than ``max_events`` it loses its oldest events, which a
    reader that resumes there is told (``StreamLost``).
    """

    def __init__(
        self, redis: Redis, *, ttl_s: int = 3600, max_events: int = 20_000, guard: RedisGuard | None = None
    ) -> None:
        self._redis = redis
        self._guard = guard or RedisGuard()
        self._ttl_s = ttl_s
        self._max_events = max_events
        self._hub = StreamHub(redis)
        self._presence = ReaderPresence(redis, self._guard)

    async def begin(self, question_id: str, owner: str) -> int:
        """Start a new attempt: 1, 2, …; from 2 on its ``restart`` shuts out all earlier ones."""
        async with self._guard.command(), self._redis.pipeline(transaction=True) as pipe:
            pipe.incr(f"{_key(question_id)}:attempt")
            pipe.expire(f"{_key(question_id)}:attempt", self._ttl_s)
            pipe.set(f"{_key(question_id)}:owner", owner, ex=self._ttl_s)
            replies = await pipe.execute()
        attempt = int(replies[0])
        if attempt > 1:
            restart = RestartEvent(attempt=attempt).model_dump_json()
            await self.append(question_id, attempt, 0, [(StreamEventName.RESTART.value, restart)])
        return attempt

    async def append(self, question_id: str, attempt: int, seq: int, events: Sequence[tuple[str, str]]) -> None:
        """Append in one round trip. Appending the same events once more changes nothing."""
        key = _key(question_id)
        async with self._guard.command():
            async with self._redis.pipeline(transaction=False) as pipe:
                for number, (event, data) in enumerate(events, start=seq):
                    pipe.xadd(
                        key,
                        {"e": event, "d": data},
                        id=f"{attempt}-{number}",
                        maxlen=self._max_events,
                        approximate=True,
                    )
                pipe.expire(key, self._ttl_s)
                pipe.xrevrange(key, count=1)
                *replies, _, newest = await pipe.execute(raise_on_error=False)
            refused = [reply for reply in replies if isinstance(reply, Exception)]
            for error in refused:
                if not (isinstance(error, ResponseError) and "equal or smaller" in str(error)):
                    raise error
            if isinstance(newest, Exception):
                raise newest
        # Refused and still our own attempt: a repetition after a lost reply; the entries are there.
        if refused and entry_of(*newest[0]).id.attempt != attempt:
            raise StaleAttempt(f"attempt {attempt} of question {question_id} has been taken over")

    async def read(self, question_id: str, *, after: str | None) -> AsyncGenerator[tuple[str, str, str], None]:
        """Replay what is behind ``after``, then follow. See the port for the errors."""
        position = EventId.parse(after) if after else BEGINNING
        async with (
            self._presence.reading(question_id),
            contextlib.aclosing(self._entries(_key(question_id), position)) as entries,
        ):
            count = 0
            async for entry in entries:
                _check_continuity(position, entry.id)
                position = entry.id
                yield str(entry.id), entry.event, entry.data
                if entry.event in TERMINAL_EVENTS:
                    return
                count += 1
                if count % YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    async def announce(self, question: QuestionAsked) -> None:
        """Kept as long as a stream that ends at the question's deadline would be."""
        remaining_s = max(0.0, (question.deadline_at - datetime.now(UTC)).total_seconds())
        asker = {
            "tenant": question.principal.tenant,
            "subject": question.principal.subject,
            "deadline_at": question.deadline_at.isoformat(),
        }
        async with self._guard.command():
            await self._redis.set(
                f"{_key(question.question_id)}:asker", json.dumps(asker), ex=self._ttl_s + int(remaining_s)
            )

    async def asker(self, question_id: str) -> Asker | None:
        async with self._guard.command():
            raw = await self._redis.get(f"{_key(question_id)}:asker")
        if raw is None:
            return None
        asker = json.loads(raw)
        return Asker(asker["tenant"], asker["subject"], datetime.fromisoformat(asker["deadline_at"]))

    async def exists(self, question_id: str) -> bool:
        async with self._guard.command():
            return bool(await self._redis.exists(_key(question_id)))

    async def forget(self, question_ids: Sequence[str]) -> None:
        """Drop the keys of these questions."""
        names = ("", ":asker", ":attempt", ":owner", ":stop")
        keys = [f"{_key(question_id)}{name}" for question_id in question_ids for name in names]
        if keys:
            async with self._guard.command():
                await self._redis.unlink(*keys)

    async def stop(self, question_id: str) -> None:
        async with self._guard.command():
            await self._redis.set(f"{_key(question_id)}:stop", "1", ex=self._ttl_s)

    async def stop_requested(self, question_id: str) -> bool:
        async with self._guard.command():
            return bool(await self._redis.exists(f"{_key(question_id)}:stop"))

    async def attended(self, question_id: str) -> bool:
        async with self._guard.command():
            return await self._presence.anyone(question_id)

    async def check(self) -> None:
        """Raises ``Unavailable`` when Redis does not answer."""
        async with self._guard.command():
            await self._redis.echo("leat")

    async def close(self) -> None:
        """Stop following; the client belongs to whoever made it."""
        await self._presence.close()
        await self._hub.close()

    async def _entries(self, key: str, position: EventId) -> AsyncGenerator[Entry, None]:
        """Entries behind ``position``: from the tail where it reaches back far enough, else page by page from Redis."""
        tail: Tail | None = None
        # With a position behind us the first page includes it, which proves that the stream is still the one we knew.
        losses, proven, outage = 0, position == BEGINNING, _Outage()
        try:
            while True:
                if tail is not None and tail.losses != losses:
                    losses, proven = tail.losses, position == BEGINNING
                batch = tail.behind(position) if tail is not None and proven else None
                full = False
                if batch is None:
                    try:
                        batch = await self._page(key, position, inclusive=not proven)
                        full = len(batch) >= PAGE
                        if not proven:
                            if batch and batch[0].id == position and batch[0].event in TERMINAL_EVENTS:
                                return  # the reader has seen the end
                            batch, proven = _without_known(batch, position), True
                        if not full and tail is None:
                            tail = await self._joined(key, batch[-1].id if batch else position)
                            losses = tail.losses
                        outage.over()
                    except Unavailable as error:
                        # Known to be away, and nothing shown yet that could be gone on with: the store is quicker.
                        hopeless = isinstance(error, CircuitOpen) and position == BEGINNING
                        if hopeless or outage.lasts_too_long():
                            raise
                        await asyncio.sleep(OUTAGE_PAUSE_S)
                        proven = position == BEGINNING
                        continue
                for entry in batch:
                    position = entry.id
                    yield entry
                if not batch and not full and tail is not None and tail.losses == losses:
                    await tail.change()
        finally:
            if tail is not None:
                self._hub.leave(tail)

    async def _joined(self, key: str, position: EventId) -> Tail:
        async with self._guard.command():
            return await self._hub.join(key, position)

    async def _page(self, key: str, position: EventId, *, inclusive: bool) -> list[Entry]:
        bound = str(position) if inclusive else f"({position}"
        async with self._guard.command():
            raw: Any = await self._redis.xrange(key, min=bound, count=PAGE)
        return [entry_of(raw_id, fields) for raw_id, fields in raw]


class _Outage:
    """How long Redis has been away for one reader."""

    def __init__(self) -> None:
        self._since: float | None = None

    def over(self) -> None:
        self._since = None

    def lasts_too_long(self) -> bool:
        now = time.monotonic()
        self._since = self._since or now
        return now - self._since > OUTAGE_S


def _key(question_id: str) -> str:
    return f"answer:{question_id}"


def _check_continuity(position: EventId, following: EventId) -> None:
    """Raise ``StreamLost`` when entries are missing between two ids."""
    same_attempt = following.attempt == position.attempt and following.seq == position.seq + 1
    next_attempt = following.attempt > position.attempt and following.seq == (1 if following.attempt == 1 else 0)
    if not (same_attempt or next_attempt):
        raise StreamLost(f"nothing between {position} and {following}")


def _without_known(page: list[Entry], position: EventId) -> list[Entry]:
    """Drop ``position`` itself from an inclusive page; a page that does not continue it is another stream's."""
    if not page:
        raise StreamLost(f"the stream ends before {position}")
    if page[0].id == position:
        return page[1:]
    _check_continuity(position, page[0].id)
    return page
