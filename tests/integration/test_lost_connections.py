"""A connection to the brokers that uvloop has closed, and that aiokafka has not noticed yet."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

from infra.event_loop import run_on_uvloop
from tests.services import Services

WAIT_S = 5.0


async def metadata_after_a_lost_connection(bootstrap_servers: str) -> bool:
    """Whether new metadata comes when a connection is closed in the moment before it is used."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, metadata_max_age_ms=300_000)
    await client.bootstrap()
    try:
        get_connection = client._get_conn

        async def closed_meanwhile(node_id: Any) -> AIOKafkaConnection:
            client._get_conn = get_connection
            connection = await get_connection(node_id)
            connection._writer.transport.abort()
            await asyncio.sleep(0)  # closed by now; the task that reads from it has not run yet
            return connection

        client._get_conn = closed_meanwhile
        for _ in range(2):  # the first update meets the closed connection
            try:
                await asyncio.wait_for(client.force_metadata_update(), WAIT_S)
            except TimeoutError:
                return False
        return True
    finally:
        client._sync_task.cancel()
        await asyncio.gather(client._sync_task, return_exceptions=True)
        client._sync_task = None
        await client.close()


@pytest.mark.parametrize(
    ("run", "comes"),
    [(run_on_uvloop, True), (uvloop.run, False)],
    ids=["as our processes run", "without: the day this passes, infra/event_loop.py can go"],
)
async def test_metadata_is_updated_after_a_connection_was_closed(
    services: Services,
    run: Callable[[Coroutine[Any, Any, bool]], bool],
    comes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", AIOKafkaConnection.send)  # as it is, afterwards
    found = await asyncio.to_thread(run, metadata_after_a_lost_connection(services.kafka_bootstrap_servers))
    assert found is comes
