"""How every Kafka client of ours connects."""

import ssl
from collections.abc import Collection
from typing import Any

from infra.settings import Settings
from streams.errors import PermanentError

# aiokafka looks for brokers only among those that it has heard of last, never again at the given addresses (KIP-899):
# if it heard of one only, while others were away, and that one dies, it waits until that one is back. Check A08 waited
# 34 s with two of three brokers serving. And a consumer whose topic was deleted and made again has no partitions until
# it looks. The default is five minutes.
METADATA_MAX_AGE_MS = 10_000


def connection_kwargs(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of any aiokafka client (producer, consumer, admin): addresses, security.

    Raises:
        PermanentError: ``kafka-not-configured``, no brokers are given.
    """
    if not settings.kafka_bootstrap_servers:
        raise PermanentError(
            "kafka-not-configured", "give LEAT_KAFKA_BOOTSTRAP_SERVERS, or start everything with `leat up`"
        )
    kwargs: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    if "SSL" in settings.kafka_security_protocol:
        cafile = settings.kafka_ssl_cafile
        kwargs["ssl_context"] = ssl.create_default_context(cafile=None if cafile is None else str(cafile))
    if settings.kafka_security_protocol.startswith("SASL"):
        password = settings.kafka_sasl_password
        kwargs |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": None if password is None else password.get_secret_value(),
        }
    return kwargs


async def is_serving(kwargs: dict[str, Any], *, timeout_ms: int = 2000) -> bool:
    """Whether a broker answers and the cluster has a leader to talk to."""
    return await obstacle(kwargs, timeout_ms=timeout_ms) is None


async def obstacle(kwargs: dict[str, Any], topics: Collection[str] = (), *, timeout_ms: int = 2000) -> str | None:
    """What keeps records from being appended to these topics, as far as the brokers can say; None: nothing."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaClient(**kwargs, request_timeout_ms=timeout_ms)
    try:
        await client.bootstrap()
        if not client.cluster.brokers():
            return "no broker answers"
        if not topics:
            return None
        cluster = await client.fetch_all_metadata()
        led = {topic for topic in topics if cluster.available_partitions_for_topic(topic)}
        missing = ", ".join(sorted(set(topics) - led))
        return f"topic {missing} is not there, or has no leader" if missing else None
    except (KafkaError, OSError):
        return "no broker answers"
    finally:
        await client.close()
