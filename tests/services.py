"""Kafka, PostgreSQL and Redis for integration tests, started once per run.

Given addresses win (``LEAT_TEST_KAFKA``, ``LEAT_TEST_POSTGRES``, ``LEAT_TEST_REDIS``), then containers where a Docker
engine answers, then the same local processes as ``leat up`` starts.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from infra.local.kafka import LocalKafka
from infra.local.postgres import LocalPostgres
from infra.local.progress import Lines
from infra.local.redis import LocalRedis
from infra.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Services:
    kafka_bootstrap_servers: str
    postgres_dsn: str
    """Of a user that may create databases."""
    redis_url: str

    async def new_database(self) -> str:
        """An empty database; returns its DSN."""
        import asyncpg

        name = f"test_{uuid.uuid4().hex[:12]}"
        connection = await asyncpg.connect(self.postgres_dsn)
        try:
            await connection.execute(f"create database {name}")
        finally:
            await connection.close()
        return urlunsplit(urlsplit(self.postgres_dsn)._replace(path=f"/{name}"))

    def new_prefix(self) -> str:
        """A prefix of topics, groups or keys that no other test has."""
        return f"t{uuid.uuid4().hex[:10]}"

    def settings(self, **overrides: object) -> Settings:
        """Settings that point at these services; with a topic prefix of their own unless one is given."""
        given: dict[str, object] = {
            "kafka_bootstrap_servers": self.kafka_bootstrap_servers,
            "postgres_dsn": self.postgres_dsn,
            "redis_url": self.redis_url,
            "topic_prefix": self.new_prefix(),
            "partitions": 3,
        }
        return Settings(_env_file=None, **(given | overrides))  # type: ignore[arg-type, call-arg]


@asynccontextmanager
async def running_services(directory: Path) -> AsyncIterator[Services]:
    """The three of them, for as long as the context lasts."""
    async with AsyncExitStack() as stack:
        kafka, postgres, redis = await asyncio.gather(
            _kafka(directory, stack), _postgres(directory, stack), _redis(directory, stack)
        )
        yield Services(kafka, postgres, redis)


async def _kafka(directory: Path, stack: AsyncExitStack) -> str:
    if given := os.environ.get("LEAT_TEST_KAFKA"):
        return given
    if _docker_answers():
        from testcontainers.kafka import KafkaContainer

        container = KafkaContainer().with_kraft()
        await asyncio.to_thread(container.start)
        stack.callback(container.stop)
        return str(container.get_bootstrap_server())
    kafka = LocalKafka(directory / "kafka", tools_dir(), log_dir=directory / "logs", progress=Lines())
    stack.push_async_callback(kafka.stop)
    await kafka.start()
    return kafka.bootstrap_servers


async def _postgres(directory: Path, stack: AsyncExitStack) -> str:
    if given := os.environ.get("LEAT_TEST_POSTGRES"):
        return given
    if _docker_answers():
        from testcontainers.postgres import PostgresContainer

        container = PostgresContainer("postgres:18", driver=None)
        await asyncio.to_thread(container.start)
        stack.callback(container.stop)
        return str(container.get_connection_url())
    postgres = LocalPostgres(directory / "postgres", log_dir=directory / "logs", progress=Lines(), durable=False)
    stack.push_async_callback(postgres.stop)
    await postgres.start()
    return postgres.dsn


async def _redis(directory: Path, stack: AsyncExitStack) -> str:
    if given := os.environ.get("LEAT_TEST_REDIS"):
        return given
    if _docker_answers():
        from testcontainers.redis import RedisContainer

        container = RedisContainer("redis:7")
        await asyncio.to_thread(container.start)
        stack.callback(container.stop)
        return f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
    redis = LocalRedis(directory / "redis", tools_dir(), log_dir=directory / "logs", progress=Lines())
    stack.push_async_callback(redis.stop)
    await redis.start()
    return redis.url


def tools_dir() -> Path:
    """Where Kafka's jars are kept between runs."""
    return Path(os.environ.get("LEAT_TOOLS_DIR", REPOSITORY / ".leat" / "tools"))


def _docker_answers() -> bool:
    """Whether an engine answers; the command line client alone proves nothing."""
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return False
    import docker

    try:
        return bool(docker.from_env(timeout=3).ping())
    except docker.errors.DockerException:
        return False
