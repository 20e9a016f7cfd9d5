"""The composition root of the consumers: opens what the roles of this process need, runs them, stops them cleanly."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial

from faststream.kafka import KafkaBroker

from consumers import liveness
from consumers.lanes import Lanes
from consumers.outbox import Outbox
from consumers.wiring import answerer, chunker, embedder, indexer, jobs, recorder
from consumers.wiring.role import Role, Wiring
from infra.kafka.connection import METADATA_MAX_AGE_MS
from infra.kafka.epochs import current_epoch, log_identity
from infra.kafka.security import faststream_security
from infra.local.alive import alive_file
from infra.postgres.crashes import PostgresCrashCounter
from infra.resources import open_resources
from infra.settings import Settings
from infra.telemetry import serving_metrics
from schemas.topics import DEAD_LETTER_HEADROOM_BYTES, MAX_RECORD_BYTES
from streams.epoch import EpochWatch
from streams.topology import ANSWERER, CHUNKER, EMBEDDER, INDEXER, RECORDER

log = logging.getLogger(__name__)

JOBS = "jobs"
"""The role that reindexes, replays and ingests folders: no consumer group, it reads the log by itself."""

ROLES: dict[str, Role] = {
    CHUNKER.name: chunker.ROLE,
    EMBEDDER.name: embedder.ROLE,
    INDEXER.name: indexer.ROLE,
    RECORDER.name: recorder.ROLE,
    ANSWERER.name: answerer.ROLE,
    JOBS: jobs.ROLE,
}

PIPELINE = (CHUNKER.name, EMBEDDER.name, INDEXER.name, RECORDER.name, JOBS)
"""The roles that run in one process on one machine."""

# To finish what is in flight, and then to leave the groups. The launcher kills after 6 s: index and dependencies need
# the rest of its 15 s. What is not finished by then is not committed, and taken over.
DRAIN_S = 4.0
LEAVE_S = 1.0


class StoppedByBug(Exception):
    """A consumer met an error that is ours; the process ends with exit code 70 and is started again."""


async def run(roles: Sequence[str], settings: Settings) -> None:
    """Run consumer roles until SIGTERM or SIGINT.

    Raises:
        StoppedByBug: a consumer met an error that is ours.
        Unavailable: a dependency is not there at the start.
    """
    if unknown := set(roles) - set(ROLES):
        raise ValueError(f"unknown roles {', '.join(sorted(unknown))}; there are {', '.join(sorted(ROLES))}")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with serving_metrics(settings.host, settings.metrics_port):
        async with wired(roles, settings, stop) as wiring:
            log.info("consumers_started", extra={"roles": list(roles)})
            await stop.wait()
    log.info("consumers_stopped", extra={"roles": list(roles)})
    if wiring.bug is not None:
        raise StoppedByBug(str(wiring.bug)) from wiring.bug


@contextlib.asynccontextmanager
async def wired(roles: Sequence[str], settings: Settings, stop: asyncio.Event) -> AsyncIterator[Wiring]:
    """Everything built and subscribed; on leaving, work in flight is finished, then what was opened is closed."""
    chosen = [ROLES[name] for name in roles]
    want = {"lag"}.union(*(role.needs for role in chosen))
    async with open_resources(settings, want=want, process=f"leat-{'+'.join(roles)}"[:63]) as resources:
        broker = make_broker(settings)
        look_up_epoch = partial(current_epoch, settings, resources.pool)
        wiring = Wiring(
            settings=settings,
            resources=resources,
            broker=broker,
            outbox=Outbox(broker, prefix=settings.topic_prefix),
            lanes=Lanes(),
            crashes=await PostgresCrashCounter.load(resources.pool),
            epochs=EpochWatch(await look_up_epoch(), look=look_up_epoch),
            installation=await log_identity(settings, resources.pool),
            stop=stop,
        )
        for role in chosen:
            if role.router is not None:
                broker.include_router(role.router(wiring))
        await broker.start()
        tasks = [asyncio.create_task(work) for role in chosen for work in role.upkeep(wiring)]
        tasks.append(asyncio.create_task(_stay_alive(wiring)))
        for task in tasks:
            task.add_done_callback(wiring.on_done)
        try:
            yield wiring
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            clock = asyncio.get_running_loop().time
            end = clock() + DRAIN_S
            for drain in wiring.drains:
                await drain(max(0.0, end - clock()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broker.stop(), max(LEAVE_S, end - clock()))


def make_broker(settings: Settings) -> KafkaBroker:
    """FastStream's broker with every setting that its defaults would get wrong."""
    return KafkaBroker(
        (settings.kafka_bootstrap_servers or "").split(","),
        security=faststream_security(settings),
        client_id=f"leat-{socket.gethostname()}",
        acks="all",
        enable_idempotence=True,
        max_request_size=MAX_RECORD_BYTES + 2 * DEAD_LETTER_HEADROOM_BYTES,
        max_batch_size=256 * 1024,
        allow_auto_create_topics=False,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        graceful_timeout=DRAIN_S,
        apply_types=False,
        logger=logging.getLogger("faststream"),
        log_level=logging.DEBUG,
    )


async def _stay_alive(wiring: Wiring) -> None:
    """Stop the process when its consumers stand still; touch its file while they do not."""
    settings = wiring.settings
    await liveness.watch(
        list(wiring.deliveries.values()),
        progress=wiring.resources.lag,
        alive_file=alive_file(settings.data_dir, settings.instance_id) if settings.instance_id else None,
        longest_batch_s=settings.kafka_max_poll_interval_ms / 1000,
        on_stalled=wiring.on_bug,
    )
