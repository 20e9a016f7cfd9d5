"""Apache Kafka itself, one node, as a child process."""

import asyncio
import base64
import os
import uuid
from contextlib import suppress
from pathlib import Path

from infra.local.ports import accepts, deadline, free_ports
from infra.local.process import Child, stop_leftover
from infra.local.progress import Progress
from infra.local.tools import fetched, java, kafka_jars
from streams.errors import Unavailable

# On a machine that is busy with something else as well.
_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 5.0
_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.awt.headless=true")

# Sessions: after a kill -9 the same node must wait until its old session has expired; the defaults make that 12 s.
# Rebalances: no waiting for more members. Offsets: an idle group must not forget for ten years.
# Static voters: a changed port needs no vote.
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
num.partitions=1
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
message.max.bytes=2097152
replica.fetch.max.bytes=4194304
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=5256000
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.max.session.timeout.ms=1800000
"""


class LocalKafka:
    """One broker at an address that is fixed from the beginning; the log is kept in ``directory``."""

    name = "kafka"

    def __init__(self, directory: Path, tools_dir: Path, *, log_dir: Path, progress: Progress) -> None:
        self._directory = directory
        self._tools_dir = tools_dir
        self._log_dir = log_dir
        self._progress = progress
        self._port, self._controller_port = free_ports(2)
        self._cluster_id = new_cluster_id()
        self.child: Child | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start, and return when it serves.

        Raises:
            MissingPart: no Java, or no jars and no way to get them.
            Unavailable: it ended or did not serve in time; the message names the log.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        pid_file = self._directory / "process.json"
        await asyncio.to_thread(stop_leftover, pid_file)
        jars = await fetched(kafka_jars, self._tools_dir, self._progress)
        java_binary = await asyncio.to_thread(java)
        properties = self._write_properties()
        if not (self._directory / "log" / "meta.properties").exists():
            await self._format(java_binary, jars, properties)
        self.child = await Child.spawn(
            self.name,
            [*self._java(java_binary, jars), "kafka.Kafka", properties],
            log_file=self._log_dir / "kafka.out",
            env=_environment(),
            pid_file=pid_file,
        )
        await self._wait_until_serving()

    async def stop(self) -> None:
        """End it in good order: a clean stop takes two seconds and saves five at the next start."""
        if self.child is not None:
            await self.child.stop(_STOP_TIMEOUT_S)

    def _write_properties(self) -> Path:
        path = self._directory / "server.properties"
        log_dir = (self._directory / "log").resolve()
        path.write_text(
            _PROPERTIES.format(port=self._port, controller_port=self._controller_port, log_dir=log_dir),
            encoding="utf-8",
        )
        return path

    def _java(self, binary: Path, jars: Path) -> list[str]:
        logging = [f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.xml')}"]
        logging += [f"-Dleat.log={(self._log_dir / 'kafka.log').resolve()}"]
        return [str(binary), *_JVM, *logging, "-cp", f"{jars}/*"]

    async def _format(self, binary: Path, jars: Path, properties: Path) -> None:
        arguments = ["kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(properties)]
        child = await Child.spawn(
            "kafka-format",
            [*self._java(binary, jars), *arguments],
            log_file=self._log_dir / "kafka.out",
            env=_environment(),
        )
        if await child.wait() != 0:
            raise Unavailable("Kafka", f"its folder could not be formatted, see {self._log_dir / 'kafka.out'}")

    async def _wait_until_serving(self) -> None:
        from infra.kafka.connection import is_serving

        assert self.child is not None
        end = deadline(_START_TIMEOUT_S)
        while True:
            if self.child.exit_code is not None:
                raise Unavailable("Kafka", f"it ended with {self.child.exit_code}, see {self._log_dir / 'kafka.log'}")
            if await accepts("127.0.0.1", self._port) and await is_serving(
                {"bootstrap_servers": self.bootstrap_servers}
            ):
                return
            if deadline(0) > end:
                with suppress(ProcessLookupError):
                    await self.stop()
                raise Unavailable("Kafka", f"not up after {_START_TIMEOUT_S:.0f} s, see {self._log_dir / 'kafka.log'}")
            await asyncio.sleep(0.05)


def new_cluster_id() -> str:
    """A cluster's id as Kafka wants it."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # The command line would take a hyphen for an option.
    return "A" + cluster_id[1:] if cluster_id.startswith("-") else cluster_id


def _environment() -> dict[str, str]:
    """The JVM reads options from these variables; a developer's settings for other programs are not ours."""
    unwanted = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}
