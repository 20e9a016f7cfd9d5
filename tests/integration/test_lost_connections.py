"""A connection to the brokers that uvloop has closed, and that aiokafka has not noticed yet."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection

from infra.event_loop import run_on_uvloop
from tests.services import Services

FAR_S = 60.0


@pytest.fixture(autouse=True)
def unchanged_afterwards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("send", "_send_sasl_token"):
            patch.setattr(AIOKafkaConnection, name, getattr(AIOKafkaConnection, name))
        yield


async def updated_after_a_lost_connection(bootstrap_servers: str) -> bool:
    """Whether new metadata comes when a connection was closed in the moment before it was used.

    Raises:
        RuntimeError: the task that brings metadata has ended with it.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, metadata_max_age_ms=300_000)
    await client.bootstrap()
    updating = client._sync_task
    try:
        get_connection = client._get_conn

        async def closed_meanwhile(node_id: Any) -> AIOKafkaConnection:
            client._get_conn = get_connection
            connection = await get_connection(node_id)
            connection._writer.transport.abort()
            await asyncio.sleep(0)  # closed by now; the task that reads from it has not run yet
            return connection

        client._get_conn = closed_meanwhile
        for _ in range(20):  # the first update meets the closed connection, and says that it has failed
            waiting = asyncio.ensure_future(client.force_metadata_update())
            await asyncio.wait({waiting, updating}, timeout=FAR_S, return_when=asyncio.FIRST_COMPLETED)
            if updating.done():
                await updating
            if waiting.result():
                return True
            await asyncio.sleep(0.1)
        return False
    finally:
        updating.cancel()
        await asyncio.gather(updating, return_exceptions=True)
        client._sync_task = None
        await client.close()


async def test_metadata_is_updated_after_a_connection_was_closed(services: Services) -> None:
    work = updated_after_a_lost_connection(services.kafka_bootstrap_servers)
    assert await asyncio.to_thread(run_on_uvloop, work)


async def test_aiokafka_does_not_expect_it_by_itself(services: Services) -> None:
    """The day this fails, ``infra/event_loop.py`` can go."""
    work = updated_after_a_lost_connection(services.kafka_bootstrap_servers)
    with pytest.raises(RuntimeError, match="handler is closed"):
        await asyncio.to_thread(uvloop.run, work)


async def test_an_error_of_aiokafkas_own_stays_as_it_is(services: Services) -> None:
    async def asked_for_what_no_broker_has() -> bool:
        client = AIOKafkaClient(bootstrap_servers=services.kafka_bootstrap_servers)
        await client.bootstrap()
        try:
            connection = await client._get_conn(client.get_random_node())
            with pytest.raises(NotImplementedError):
                connection.send(_Unknown())
            return bool(connection.connected())
        finally:
            await client.close()

    assert await asyncio.to_thread(run_on_uvloop, asked_for_what_no_broker_has())


class _Unknown:
    def prepare(self, versions: Any) -> Any:
        raise NotImplementedError
