"""``AnswerCache`` in Redis."""

from prometheus_client import Counter
from pydantic import ValidationError
from redis.asyncio import Redis

from infra.redis_errors import translated
from infra.redis_guard import RedisGuard
from schemas.answers import Answer

# A cache that takes longer than finding an answer anew is none.
PATIENCE_S = 0.25

LOOKED_UP = Counter("leat_answer_cache_total", "Answers looked for in the cache.", ["result"])


class RedisAnswerCache:
    """Each answer is one string under its key, and gone after ``ttl_s``."""

    def __init__(self, redis: Redis, *, ttl_s: int, guard: RedisGuard | None = None) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._guard = guard or RedisGuard()

    async def get(self, key: str) -> Answer | None:
        async with self._guard.command(PATIENCE_S):
            raw = await self._redis.get(_name(key))
        LOOKED_UP.labels("found" if raw is not None else "missing").inc()
        if raw is None:
            return None
        try:
            return Answer.model_validate_json(raw)
        except ValidationError:
            return None  # kept by another version

    async def put(self, key: str, answer: Answer) -> None:
        async with self._guard.command(PATIENCE_S):
            await self._redis.set(_name(key), answer.model_dump_json(), ex=self._ttl_s)

    async def forget_citing(self, collection: str, document_id: str) -> int:
        """Drop what cites a document, of whichever tenant: keys are digests. Returns how many there were."""
        dropped = 0
        with translated():
            async for name in self._redis.scan_iter(match=_name("*"), count=500):
                raw = await self._redis.get(name)
                if raw is not None and _cites(raw, collection, document_id):
                    dropped += await self._redis.unlink(name)
        return dropped


def _cites(raw: bytes | str, collection: str, document_id: str) -> bool:
    try:
        sources = Answer.model_validate_json(raw).sources
    except ValidationError:
        return True  # kept by another version: nobody can tell
    return any((source.collection, source.document_id) == (collection, document_id) for source in sources)


def _name(key: str) -> str:
    return f"leat:cached-answer:{key}"
