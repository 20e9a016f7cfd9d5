"""Brokers of a check's own: one behind a fault proxy, or three that replicate (KRaft, about 180 MB each)."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals

from infra.local.kafka import LocalKafka, new_cluster_id
from infra.local.ports import free_ports
from infra.local.progress import Lines
from tests.faults.proxy import Proxy
from tests.services import tools_dir

_REPLICATED = {
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class Broker(LocalKafka):
    """A broker with properties of its own, that can be hurt."""

    def __init__(self, folder: Path, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(folder / "kafka", tools_dir(), log_dir=folder / "logs", progress=Lines())
        self.properties = dict(properties or {})

    @property
    def port(self) -> int:
        return self._port

    @property
    def segments(self) -> list[Path]:
        """The files that hold its records, in a folder ``topic-partition`` each."""
        return sorted((self._directory / "log").rglob("*.log"))

    @property
    def controller_port(self) -> int:
        return self._controller_port

    def join(self, cluster_id: str) -> None:
        """Become a member of a cluster, before the first start."""
        self._cluster_id = cluster_id

    def signal(self, number: Signals) -> None:
        assert self.child is not None
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)

    async def kill(self) -> None:
        self.signal(SIGKILL)
        assert self.child is not None
        await self.child.wait()

    def _write_properties(self) -> Path:
        path = super()._write_properties()
        lines = path.read_text(encoding="utf-8").splitlines()
        written = dict(line.split("=", 1) for line in lines if line) | self.properties
        path.write_text("".join(f"{name}={value}\n" for name, value in written.items()), encoding="utf-8")
        return path


@asynccontextmanager
async def one_broker(folder: Path) -> AsyncIterator[Broker]:
    broker = Broker(folder)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


@asynccontextmanager
async def proxied_broker(folder: Path) -> AsyncIterator[tuple[Broker, Proxy]]:
    """A broker with a second listener that clients reach through the proxy alone; its address is the proxy's."""
    [behind, before] = free_ports(2)
    broker = Broker(folder)
    broker.properties = {
        "listeners": f"PLAINTEXT://127.0.0.1:{broker.port},PROXIED://127.0.0.1:{behind},"
        f"CONTROLLER://127.0.0.1:{broker.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker.port},PROXIED://127.0.0.1:{before}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    proxy = Proxy("127.0.0.1", behind, listen_port=before)
    await broker.start()
    await proxy.up()
    try:
        yield broker, proxy
    finally:
        await proxy.down()
        await broker.stop()


@asynccontextmanager
async def three_brokers(folder: Path) -> AsyncIterator[list[Broker]]:
    """Replication 3, min ISR 2: every record is on two brokers before it is acknowledged."""
    brokers, cluster_id = [Broker(folder / f"broker-{number}") for number in (1, 2, 3)], new_cluster_id()
    voters = ",".join(f"{number}@127.0.0.1:{broker.controller_port}" for number, broker in enumerate(brokers, 1))
    for number, broker in enumerate(brokers, 1):
        broker.join(cluster_id)
        broker.properties = {**_REPLICATED, "node.id": str(number), "controller.quorum.voters": voters}
    try:
        await asyncio.gather(*(broker.start() for broker in brokers))
        yield brokers
    finally:
        for broker in brokers:
            if broker.child is not None and broker.child.exit_code is None:
                await broker.kill()
