"""``AnswerCache`` in Redis."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from prometheus_client import Counter
from pydantic import ValidationError
from redis.asyncio import Redis

from infra.redis_errors import translated
from schemas.answers import Answer
from streams.errors import Unavailable

T = TypeVar("T")

# A cache that takes longer than finding an answer anew is none.
PATIENCE_S = 0.25

LOOKED_UP = Counter("leat_answer_cache_total", "Answers looked for in the cache.", ["result"])


class RedisAnswerCache:
    """Each answer is one string under its key, and gone after ``ttl_s``."""

    def __init__(self, redis: Redis, *, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    async def get(self, key: str) -> Answer | None:
        raw = await self._call(self._redis.get(_name(key)))
        LOOKED_UP.labels("found" if raw is not None else "missing").inc()
        if raw is None:
            return None
        try:
            return Answer.model_validate_json(raw)
        except ValidationError:
            return None  # kept by another version

    async def put(self, key: str, answer: Answer) -> None:
        await self._call(self._redis.set(_name(key), answer.model_dump_json(), ex=self._ttl_s))

    async def _call(self, command: Awaitable[T]) -> T:
        with translated():
            try:
                async with asyncio.timeout(PATIENCE_S):
                    return await command
            except TimeoutError as error:
                raise Unavailable("Redis", f"no answer within {PATIENCE_S:g} s") from error


def _name(key: str) -> str:
    return f"leat:cached-answer:{key}"
