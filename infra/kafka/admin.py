"""Creates the topics of ``schemas.topics`` and verifies those that exist. A difference is a refusal, never a repair."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from infra.kafka.connection import connection_kwargs
from infra.settings import Settings
from schemas.topics import TOPICS, Topic, prefixed
from streams.errors import LeatError, Unavailable

log = logging.getLogger(__name__)

# More than asked for is no harm here; less would lose or refuse records.
_AT_LEAST = frozenset({"max.message.bytes", "retention.ms", "min.compaction.lag.ms", "min.insync.replicas"})
# With three replicas an acknowledgement must mean that two have the record: with the brokers' default of one, what was
# acknowledged is lost with its leader whenever the others lag behind.
_REPLICAS_OF_A_CLUSTER, _MIN_INSYNC_REPLICAS = 3, 2
_VISIBLE_TIMEOUT_S = 15.0
# How segments are cut changes nothing that a reader sees.
_NOT_VERIFIED = frozenset({"segment.ms"})


class TopicsRefused(LeatError):
    """Topics in the cluster are not as declared. The message names each difference; a person must decide."""


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """A topic as the cluster has it."""

    name: str
    partitions: int
    config: Mapping[str, str]


async def ensure_topics(settings: Settings, topics: Sequence[Topic] = TOPICS) -> list[str]:
    """Create what is missing, verify what is there; returns the names created now.

    Raises:
        TopicsRefused: an existing topic differs, or the brokers refuse to create one.
        Unavailable: the brokers do not answer.
    """
    names = [prefixed(topic.name, settings.topic_prefix) for topic in topics]
    admin = AIOKafkaAdminClient(**connection_kwargs(settings), request_timeout_ms=15_000)
    try:
        await admin.start()
        existing = await _existing(admin, names)
        # Before anything is created: a cluster that is refused is left as it was.
        _verify(topics, existing, settings)
        missing = [topic for topic, name in zip(topics, names, strict=True) if name not in existing]
        created: list[str] = []
        if missing:
            created = await _create(admin, missing, settings)
            _verify(topics, await _all_of(admin, names), settings)
    except (KafkaError, OSError) as error:
        raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
    finally:
        await admin.close()
    return created


def _verify(topics: Sequence[Topic], existing: Mapping[str, ExistingTopic], settings: Settings) -> None:
    problems = [
        problem
        for topic in topics
        if (found := existing.get(prefixed(topic.name, settings.topic_prefix)))
        for problem in differences(
            topic, found, partitions=settings.partitions, replication_factor=settings.replication_factor
        )
    ]
    if problems:
        raise TopicsRefused("; ".join(problems))


def differences(topic: Topic, found: ExistingTopic, *, partitions: int, replication_factor: int = 1) -> list[str]:
    """One sentence per way in which a topic is not as declared."""
    problems = []
    wanted_partitions = topic.partitions or partitions
    if found.partitions != wanted_partitions:
        problems.append(f"topic '{found.name}' has {found.partitions} partitions, want {wanted_partitions}")
    for name, wanted in _config(topic, replication_factor).items():
        actual = found.config.get(name)
        if name in _NOT_VERIFIED or actual is None or _satisfies(name, actual, wanted):
            continue
        problems.append(f"topic '{found.name}' has {name} '{actual}', want {_phrase(name, wanted)}")
    return problems


def _config(topic: Topic, replication_factor: int) -> dict[str, str]:
    config = topic.config()
    if replication_factor >= _REPLICAS_OF_A_CLUSTER:
        config["min.insync.replicas"] = str(_MIN_INSYNC_REPLICAS)
    return config


def _satisfies(name: str, actual: str, wanted: str) -> bool:
    if name not in _AT_LEAST:
        return actual == wanted
    # -1 is Kafka's word for without end.
    return int(actual) == -1 or int(actual) >= int(wanted)


def _phrase(name: str, wanted: str) -> str:
    return f"at least '{wanted}'" if name in _AT_LEAST else f"'{wanted}'"


async def _existing(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, ExistingTopic]:
    known = set(await admin.list_topics()) & set(names)
    if not known:
        return {}
    described = await admin.describe_topics(sorted(known))
    partitions = {topic["topic"]: len(topic["partitions"]) for topic in described if _is_led(topic)}
    present = set(partitions)
    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(present)]
    )
    configs = {
        resource[3]: {entry[0]: entry[1] for entry in resource[4]}
        for response in responses
        for resource in response.resources
    }
    return {name: ExistingTopic(name, partitions[name], configs[name]) for name in present}


def _is_led(topic: Any) -> bool:
    return topic["error_code"] == 0 and all(partition["leader"] >= 0 for partition in topic["partitions"])


async def _all_of(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, ExistingTopic]:
    """Wait until every topic is known and led: a broker acknowledges a creation before it serves the topic."""
    end = time.monotonic() + _VISIBLE_TIMEOUT_S
    while len(existing := await _existing(admin, names)) < len(names):
        if time.monotonic() > end:
            absent = ", ".join(sorted(set(names) - set(existing)))
            raise Unavailable("kafka", f"created, but not served after {_VISIBLE_TIMEOUT_S:.0f} s: {absent}")
        await asyncio.sleep(0.05)
    return existing


async def _create(admin: AIOKafkaAdminClient, topics: Sequence[Topic], settings: Settings) -> list[str]:
    """Create topics; returns those that nobody else had created in the meantime."""
    new = [
        NewTopic(
            prefixed(topic.name, settings.topic_prefix),
            topic.partitions or settings.partitions,
            settings.replication_factor,
            topic_configs=_config(topic, settings.replication_factor),
        )
        for topic in topics
    ]
    created = []
    response: Any = await admin.create_topics(new, timeout_ms=15_000)
    for name, code, *why in response.topic_errors:
        error = for_code(code)
        if code == 0:
            created.append(name)
            log.info("topic_created", extra={"created_topic": name})
        elif error is not TopicAlreadyExistsError:
            detail = why[0] if why and why[0] else error.__name__
            raise TopicsRefused(f"topic '{name}' cannot be created: {detail}")
    return created
