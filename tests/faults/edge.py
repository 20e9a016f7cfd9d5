"""An API process of the installation under test, and a client for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx

from infra.local.ports import free_ports
from tests.faults.harness import Leat, eventually

TOKEN = "a-token-for-tests"


def edge_settings() -> dict[str, object]:
    """What ``installation`` must know for an API process."""
    [port] = free_ports(1)
    return {"api_token": TOKEN, "port": port}


@asynccontextmanager
async def serving(leat: Leat, *, timeout_s: float = 10.0, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """Start the API, wait until it is ready; the client outlives its deaths. ``settings`` are this process's own."""
    leat.start("api", **settings)
    url, headers = f"http://127.0.0.1:{leat.settings.port}", {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s, trust_env=False) as client:
        await ready(client)
        yield client


async def ready(client: httpx.AsyncClient, *, within_s: float = 60.0) -> None:
    async def serves() -> bool:
        with suppress(httpx.HTTPError):
            return (await client.get("/readyz")).status_code == 200
        return False

    await eventually(serves, within_s=within_s, what="API")
