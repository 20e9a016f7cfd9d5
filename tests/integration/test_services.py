"""The local services themselves, as tests and ``leat up`` get them."""

import asyncpg
import redis.asyncio as aioredis

from infra.kafka.connection import is_serving
from tests.services import Services


async def test_kafka_postgres_and_redis_answer(services: Services) -> None:
    assert await is_serving({"bootstrap_servers": services.kafka_bootstrap_servers})
    connection = await asyncpg.connect(await services.new_database())
    assert await connection.fetchval("select 1") == 1
    await connection.close()
    client = aioredis.from_url(services.redis_url)
    assert await client.ping()
    await client.aclose()
