"""One blocking Redis connection per process that follows all open streams.

A connection per reader would exhaust Redis at a thousand readers. Instead one ``XREAD BLOCK`` names every stream that
has a reader here; what arrives is kept in a short in-memory tail per stream, from which readers take at their own pace.
A slow reader costs nothing: it falls off the tail and pages through Redis.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra.redis_errors import translated
from streams.errors import Unavailable

log = logging.getLogger(__name__)

# Shorter than any sensible socket timeout of the client (default 5 s), which would otherwise end the wait as an error.
BLOCK_MS = 1500
READ_COUNT = 256
# Entries kept per stream for its readers here; a reader further behind pages through Redis.
TAIL_LENGTH = 1024
# Above this many streams the command line itself is long (40 bytes a stream): let entries gather for a moment.
CROWDED = 64
CROWDED_PAUSE_S = 0.004
RECONNECT_PAUSE_S = 0.2


class EventId(NamedTuple):
    """``attempt-seq``: the id of a Redis Stream entry and of an SSE event."""

    attempt: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Raises ``ValueError`` on anything but two numbers joined by a hyphen."""
        attempt, hyphen, seq = text.partition("-")
        if not (hyphen and attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit()):
            raise ValueError(f"not an event id: {text[:50]!r}")
        parsed = cls(int(attempt), int(seq))
        if max(parsed) >= 2**63:
            raise ValueError(f"not an event id: {text[:50]!r}")
        return parsed

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"


class Entry(NamedTuple):
    id: EventId
    event: str
    data: str


def entry_of(raw_id: bytes | str, fields: dict[Any, Any]) -> Entry:
    """An entry as the client returns it, whether or not it decodes responses."""
    values = {_text(name): _text(value) for name, value in fields.items()}
    return Entry(EventId.parse(_text(raw_id)), values["e"], values["d"])


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


class Tail:
    """The newest entries of one stream, shared by its readers in this process."""

    def __init__(self, key: str, floor: EventId) -> None:
        self.key = key
        self.readers = 0
        self.losses = 0
        """How often the connection was lost; a reader that sees it grow checks its position again."""
        self._floor = floor
        self._entries: deque[Entry] = deque()
        self._changed = asyncio.Event()

    @property
    def last(self) -> EventId:
        return self._entries[-1].id if self._entries else self._floor

    def behind(self, position: EventId) -> list[Entry] | None:
        """Entries behind ``position``; None when the tail does not reach back that far."""
        if position < self._floor:
            return None
        if not self._entries or self._entries[-1].id <= position:
            return []
        return [entry for entry in self._entries if entry.id > position]

    def extend(self, entries: list[Entry]) -> None:
        self._entries.extend(entries)
        while len(self._entries) > TAIL_LENGTH:
            self._floor = self._entries.popleft().id
        self._notify()

    def lose(self) -> None:
        self.losses += 1
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def change(self) -> None:
        """Wait until entries arrive or the connection is lost."""
        await self._changed.wait()


class StreamHub:
    """Follows the streams that have readers in this process, over one connection."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tails: dict[str, Tail] = {}
        # A stream of our own in the same XREAD: an entry in it ends the wait, so that a new stream is followed at once.
        self._wake_key = f"answer-hub:{secrets.token_hex(8)}"
        self._wake_id = "0-0"
        self._waiting = False
        self._task: asyncio.Task[None] | None = None

    async def join(self, key: str, position: EventId) -> Tail:
        """Follow a stream from ``position``. Call ``leave`` once for every ``join``."""
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail(key, position)
            tail.readers = 1
            try:
                await self._wake()
            except BaseException:
                self.leave(tail)
                raise
        else:
            tail.readers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="answer-stream-hub")
        return tail

    def leave(self, tail: Tail) -> None:
        tail.readers -= 1
        if tail.readers == 0 and self._tails.get(tail.key) is tail:
            del self._tails[tail.key]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _wake(self) -> None:
        if not self._waiting:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self._wake_key, {"w": "1"}, maxlen=1, approximate=False)
            pipe.expire(self._wake_key, 3600)
            await pipe.execute()

    async def _follow(self) -> None:
        while self._tails:
            try:
                with translated():
                    await self._read_once()
            except (RedisError, Unavailable) as error:
                log.warning("answer_stream_reconnecting", extra={"error": type(error).__name__})
                for tail in self._tails.values():
                    tail.lose()
                await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _read_once(self) -> None:
        asked = dict(self._tails)
        positions: dict[Any, Any] = {key: str(tail.last) for key, tail in asked.items()}
        positions[self._wake_key] = self._wake_id
        self._waiting = True
        try:
            reply = await self._redis.xread(positions, count=READ_COUNT, block=BLOCK_MS)
        finally:
            self._waiting = False
        for raw_key, raw_entries in _streams_of(reply):
            key = _text(raw_key)
            if key == self._wake_key:
                self._wake_id = _text(raw_entries[-1][0])
                continue
            tail = asked[key]
            # A tail that was left and joined anew while we waited starts elsewhere: it is asked for again at once.
            if self._tails.get(key) is tail:
                tail.extend([entry_of(raw_id, fields) for raw_id, fields in raw_entries])
        if len(asked) > CROWDED:
            await asyncio.sleep(CROWDED_PAUSE_S)


def _streams_of(reply: Any) -> list[tuple[Any, Any]]:
    """RESP2 answers with a list of pairs, RESP3 with a mapping whose values are lists of pages."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return [(key, [entry for page in pages for entry in page]) for key, pages in reply.items()]
    return list(reply)
