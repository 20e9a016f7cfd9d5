"""Our own processes as children of a test: two API processes and answerers, as ``leat run`` starts them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from pydantic import SecretStr

from infra.local.ports import free_ports
from infra.local.roles import RoleProcess, role_environment
from infra.settings import Settings

READY_WITHIN_S = 180.0


class Event(NamedTuple):
    id: str
    name: str
    data: dict


def environment(settings: Settings) -> dict[str, str]:
    """Settings that were given, as the environment of a process."""
    given: dict[str, str] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        given[f"LEAT_{name.upper()}"] = str(value.get_secret_value() if isinstance(value, SecretStr) else value)
    return given


class ApiProcess:
    """One API process and its address."""

    def __init__(self, settings: Settings, name: str) -> None:
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._token = settings.api_token.get_secret_value() if settings.api_token else ""
        self._role = a_role(settings, name, "api", arguments=("--port", str(self.port)))

    async def start(self) -> None:
        await self._role.start()
        async with self.client() as client, asyncio.timeout(READY_WITHIN_S):
            while True:
                try:
                    if (await client.get("/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        await self._role.stop()

    @property
    def pid(self) -> int:
        assert self._role.child is not None
        return self._role.child.pid

    @property
    def exit_code(self) -> int | None:
        assert self._role.child is not None
        return self._role.child.exit_code

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=500)
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=60, limits=limits, trust_env=False)


def a_role(settings: Settings, name: str, role: str, *, arguments: tuple[str, ...] = ()) -> RoleProcess:
    env = role_environment(environment(settings))
    return RoleProcess(name, (role,), arguments=arguments, env=env, data_dir=settings.data_dir)


@asynccontextmanager
async def running(*processes: RoleProcess | ApiProcess) -> AsyncIterator[None]:
    try:
        await asyncio.gather(*(process.start() for process in processes))
        yield
    finally:
        await asyncio.gather(*(process.stop() for process in processes))


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    """An independent reader of SSE: events as they arrive; comments have the name ``:``."""
    fields: dict[str, str] = {}
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for raw in lines:
            name, _, value = raw.decode().partition(":")
            value = value.removeprefix(" ")
            if raw and not name:
                yield Event("", ":", {"text": value})
            elif raw:
                fields[name] = value
            else:
                if "data" in fields:
                    yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                fields = {}


def log_of(settings: Settings, name: str) -> Path:
    return settings.data_dir / "logs" / f"{name}.log"
