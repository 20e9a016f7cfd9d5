"""Kafka, PostgreSQL and Redis: those with a given address are used, the others are started here."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from infra.local.kafka import LocalKafka
from infra.local.postgres import LocalPostgres
from infra.local.progress import Progress
from infra.local.redis import LocalRedis
from infra.settings import Settings


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What of the three is ours; None: an address is given."""

    kafka: LocalKafka | None
    postgres: LocalPostgres | None
    redis: LocalRedis | None

    @classmethod
    def of(cls, settings: Settings, data_dir: Path, progress: Progress) -> "Dependencies":
        """Those that the settings give no address of. Nothing is used because it happens to run here."""
        logs, tools = data_dir / "logs", settings.tools_dir.absolute()
        return cls(
            None
            if settings.kafka_bootstrap_servers
            else LocalKafka(data_dir / "kafka", tools, log_dir=logs, progress=progress),
            None if settings.postgres_dsn else LocalPostgres(data_dir / "postgres", log_dir=logs, progress=progress),
            None if settings.redis_url else LocalRedis(data_dir / "redis", tools, log_dir=logs, progress=progress),
        )

    @property
    def ours(self) -> list[LocalKafka | LocalPostgres | LocalRedis]:
        return [unit for unit in (self.kafka, self.postgres, self.redis) if unit is not None]

    async def start(self) -> None:
        """Start ours, all at once. If one fails, those that did start still run: stop them."""
        results = await asyncio.gather(*(unit.start() for unit in self.ours), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def stop(self) -> None:
        """Stop ours, all at once."""
        await asyncio.gather(*(unit.stop() for unit in self.ours), return_exceptions=True)

    def addresses(self) -> dict[str, str]:
        """Settings that lead to ours, by field name."""
        found = {}
        if self.kafka is not None:
            found["kafka_bootstrap_servers"] = self.kafka.bootstrap_servers
        if self.postgres is not None:
            found["postgres_dsn"] = self.postgres.dsn
        if self.redis is not None:
            found["redis_url"] = self.redis.url
        return found
