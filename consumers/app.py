"""The composition root of the consumers: builds what the roles of this process need, runs them, stops them cleanly."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from faststream.kafka import KafkaBroker, KafkaRouter

from consumers import answerer, chunker, embedder, generation_upkeep, indexer, liveness, recorder
from consumers.blob_sweeper import BlobSweeper
from consumers.collection_remover import CollectionRemover, RemoverParts
from consumers.delivery import Delivery, Failure
from consumers.eraser import Eraser, EraserParts
from consumers.jobs import FORGET_AFTER_S, JobRunner
from consumers.lanes import Lanes
from consumers.leftovers import Leftovers
from consumers.log_audit import LogAudit
from consumers.maintenance import Redrive, every, sweep_garbage
from consumers.mender import Mender, MenderParts
from consumers.outbox import Outbox
from consumers.query_log_rebuilder import QueryLogRebuilder
from consumers.reconciler import Reconciler
from consumers.reindexer import Reindexer, ReindexerParts
from consumers.replayer import Replayer, ReplayerParts
from consumers.subscribing import ConsumerSettings
from infra.drift import count_drift
from infra.embedding.questions import BulkAsQuestionEmbedders
from infra.files.directory_job import directory_work
from infra.guardrails import GUARDRAILS
from infra.kafka.connection import METADATA_MAX_AGE_MS
from infra.kafka.epochs import current_epoch, log_identity
from infra.kafka.log_scan import KafkaLogScanner
from infra.kafka.partitioning import home_partition
from infra.kafka.security import faststream_security
from infra.local.alive import alive_file
from infra.postgres.audit import PostgresIndexAudit
from infra.postgres.catalog import CACHE_S
from infra.postgres.crashes import PostgresCrashCounter
from infra.resources import Resources, open_resources
from infra.settings import Settings
from infra.telemetry import serving_metrics
from schemas.pipeline import IndexCommitted
from schemas.topics import DEAD_LETTER_HEADROOM_BYTES, DOCUMENTS, MAX_RECORD_BYTES, Topic
from streams import outcomes
from streams.answering import Answering
from streams.as_of import TimeTravel
from streams.epoch import EpochWatch
from streams.jobs import JobType, JobWork
from streams.parity import Searching
from streams.prompt import DEFAULT_BUDGET_TOKENS, budget_of
from streams.topology import ANSWERER, CHUNKER, EMBEDDER, INDEXER, RECORDER, STAGES, Stage

log = logging.getLogger(__name__)

JOBS = "jobs"
"""The role that reindexes, replays and ingests folders: no consumer group, it reads the log by itself."""

PIPELINE = (CHUNKER.name, EMBEDDER.name, INDEXER.name, RECORDER.name, JOBS)
"""The roles that run in one process on one machine."""

# To finish what is in flight, and then to leave the groups. The launcher kills after 6 s: index and dependencies need
# the rest of its 15 s. What is not finished by then is not committed, and taken over.
DRAIN_S = 4.0
LEAVE_S = 1.0
SWEEP_EVERY_S = 3.0
GIVE_UP_EVERY_S = 10.0
REDRIVE_EVERY_S = 60.0
RECONCILE_EVERY_S = 60.0
FORGET_EVERY_S = 600.0
FORGET_HISTORY_EVERY_S = 60.0
SWEEP_BLOBS_EVERY_S = 6 * 3600.0
ERASE_EVERY_S = 0.5
# By then every process knows that a generation has come or gone: its caches are half as old at most, the rest is for
# work that had begun.
KNOWN_AFTER_S = 2 * CACHE_S + 0.7


class StoppedByBug(Exception):
    """A consumer met an error that is ours; the process ends with exit code 70 and is started again."""


@dataclass(slots=True)
class Wiring:
    """What every stage of this process shares."""

    settings: Settings
    resources: Resources
    broker: KafkaBroker
    outbox: Outbox
    lanes: Lanes
    crashes: PostgresCrashCounter
    epochs: EpochWatch
    installation: str
    stop: asyncio.Event
    bug: BaseException | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    drains: list[Callable[[float], Awaitable[None]]] = field(default_factory=list)
    collecting: dict[Topic, indexer.Words] = field(default_factory=dict)

    def delivery(self, stage: Stage) -> Delivery:
        """The delivery of a stage: its fates, its dead letters, its outcomes."""
        settings = self.settings
        instance = settings.instance_id and f"{settings.instance_id}-{stage.name}"
        self.deliveries[stage.name] = Delivery(
            stage,
            outbox=self.outbox,
            lanes=self.lanes,
            settings=ConsumerSettings(
                prefix=settings.topic_prefix,
                group_instance_id=instance,
                session_timeout_ms=settings.kafka_session_timeout_ms,
                max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
            ),
            crashes=self.crashes,
            on_bug=self.on_bug,
            outcome_of=self.outcome_of,
        )
        return self.deliveries[stage.name]

    def outcome_of(self, failure: Failure) -> IndexCommitted | None:
        """The public outcome of a record that goes to the dead letters."""
        at = datetime.now(UTC)
        epoch = self.epochs.epoch
        found = outcomes.failed(failure.record, failure.error, revision=failure.revision, epoch=epoch, at=at)
        if found is None or found.generation_id is None:
            return found
        # Whoever met the record has looked its generation up: what a generation in the making lacks is no outcome.
        generation = self.resources.catalog.last_seen(found.generation_id)
        return found if generation is None or generation.reports_outcomes else None

    def on_bug(self, error: BaseException) -> None:
        self.bug = self.bug or error
        self.stop.set()

    def on_done(self, task: asyncio.Task[None]) -> None:
        """Upkeep ends when we do; if it ends before, it has met a bug."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("bug_stops_the_process", exc_info=error, extra={"stage": task.get_name()})
            self.on_bug(error)


async def run(roles: Sequence[str], settings: Settings) -> None:
    """Run consumer roles until SIGTERM or SIGINT.

    Raises:
        StoppedByBug: a consumer met an error that is ours.
        Unavailable: a dependency is not there at the start.
    """
    known = {stage.name for stage in STAGES} | {JOBS}
    if unknown := set(roles) - known:
        raise ValueError(f"unknown roles {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
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
    async with open_resources(settings, want=_wanted(roles), process=f"leat-{'+'.join(roles)}"[:63]) as resources:
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
        for role in roles:
            if role in _ROUTERS:
                broker.include_router(_ROUTERS[role](wiring))
        await broker.start()
        tasks = [asyncio.create_task(work) for role in roles for work in _upkeep(role, wiring)]
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


def _chunker(wiring: Wiring) -> KafkaRouter:
    resources, settings = wiring.resources, wiring.settings
    parts = chunker.ChunkerParts(
        catalog=resources.catalog,
        ledger=resources.ledger,
        blobs=resources.blobs,
        parser=resources.parser,
        counter_of=resources.counter_of,
        log_reader=resources.log_reader,
        home_of=lambda key: home_partition(key, settings.partitions),
        epochs=wiring.epochs,
        max_document_bytes=settings.max_document_bytes,
    )
    return chunker.router(wiring.delivery(CHUNKER), parts, outbox=wiring.outbox, lanes=wiring.lanes)


def _embedder(wiring: Wiring) -> KafkaRouter:
    resources = wiring.resources
    parts = embedder.EmbedderParts(
        catalog=resources.catalog,
        ledger=resources.ledger,
        cache=resources.vector_cache,
        embedder_of=resources.bulk_embedder_of,
    )
    return embedder.router(wiring.delivery(EMBEDDER), parts, outbox=wiring.outbox, lanes=wiring.lanes)


def _indexer(wiring: Wiring) -> KafkaRouter:
    parts = _indexer_parts(wiring.resources)
    return indexer.router(wiring.delivery(INDEXER), parts, outbox=wiring.outbox, collecting=wiring.collecting)


def _indexer_parts(resources: Resources) -> indexer.IndexerParts:
    return indexer.IndexerParts(
        catalog=resources.catalog,
        manifests=resources.manifests,
        cache=resources.vector_cache,
        index=resources.index,
        sparse=resources.sparse,
    )


def _recorder(wiring: Wiring) -> KafkaRouter:
    return recorder.router(
        wiring.delivery(RECORDER), outcomes=wiring.resources.outcomes, queries=wiring.resources.query_log
    )


def _answerer(wiring: Wiring) -> KafkaRouter:
    resources, settings = wiring.resources, wiring.settings
    answering = Answering(
        catalog=resources.catalog,
        embedders=resources.query_embedders,
        sparse=resources.sparse,
        index=resources.index,
        passages=resources.passages,
        answers=resources.answers,
        stream=resources.answer_stream,
        generator=resources.generator,
        worker=settings.instance_id or f"{socket.gethostname()}-{os.getpid()}",
        conversations=resources.conversations,
        cache=resources.answer_cache,
        guardrails=resources.guardrails,
        on_guardrail=lambda name: GUARDRAILS.labels(name).inc(),
        time_travel=TimeTravel(resources.history, resources.vector_cache, resources.index, resources.sparse),
        installation=wiring.installation,
        grace_s=settings.answer_grace_s,
        budget_tokens=budget_of(settings.ollama_num_ctx) if settings.generator == "ollama" else DEFAULT_BUDGET_TOKENS,
    )
    return answerer.router(wiring.delivery(ANSWERER), answering, outbox=wiring.outbox, drains=wiring.drains)


def _jobs(wiring: Wiring) -> JobRunner:
    resources, outbox = wiring.resources, wiring.outbox
    scanner = KafkaLogScanner(wiring.settings)
    chunker_here = wiring.deliveries.get(CHUNKER.name)
    reindexer = Reindexer(
        ReindexerParts(
            catalog=resources.catalog,
            generations=resources.generations,
            build=resources.build,
            generation_of=resources.generations.by_id,
            dispose=lambda generation: generation_upkeep.dispose(
                generation, resources.generations, resources.index, known_after_s=KNOWN_AFTER_S
            ),
            scanner=scanner,
            log_reader=resources.log_reader,
            searching=Searching(
                embedders=BulkAsQuestionEmbedders(resources.bulk_embedder_of),
                sparse=resources.sparse,
                index=resources.index,
                passages=resources.passages,
            ),
            epochs=wiring.epochs,
            lag=resources.lag.read,
            announce_s=KNOWN_AFTER_S,
        ),
        outbox=outbox,
    )
    replayer = Replayer(
        ReplayerParts(
            catalog=resources.catalog,
            ledger=resources.ledger,
            build=resources.build,
            scanner=scanner,
            epochs=wiring.epochs,
            receive=None if chunker_here is None else chunker_here.handler_of(DOCUMENTS),
            lag=resources.lag.read,
        ),
        outbox=outbox,
    )
    remover = CollectionRemover(
        RemoverParts(
            removal=resources.collection_removal,
            scanner=scanner,
            epochs=wiring.epochs,
            remove_generation=lambda generation: generation_upkeep.remove(
                generation, resources.generations, resources.index
            ),
            announce_s=KNOWN_AFTER_S,
        ),
        outbox=outbox,
    )
    work: dict[JobType, JobWork] = {
        JobType.REINDEX: reindexer,
        JobType.REPLAY: replayer,
        JobType.DELETE_COLLECTION: remover,
        JobType.REBUILD_QUERY_LOG: QueryLogRebuilder(resources.query_log, partial(KafkaLogScanner, wiring.settings)),
        JobType.INGEST_DIRECTORY: directory_work(wiring.settings),
    }
    return JobRunner(resources.jobs, work)


_ROUTERS: dict[str, Callable[[Wiring], KafkaRouter]] = {
    CHUNKER.name: _chunker,
    EMBEDDER.name: _embedder,
    INDEXER.name: _indexer,
    RECORDER.name: _recorder,
    ANSWERER.name: _answerer,
}


def _upkeep(role: str, wiring: Wiring) -> list[Coroutine[Any, Any, None]]:
    """Work of a role that no record asks for."""
    resources = wiring.resources
    if role == INDEXER.name:
        sweep = partial(sweep_garbage, resources.manifests, resources.index)
        audit = PostgresIndexAudit(resources.pool)
        reconciler = Reconciler(_indexer_parts(resources), audit, on_drift=count_drift)
        leftovers = Leftovers(
            wiring.collecting,
            commits=wiring.deliveries[INDEXER.name],
            upstream=[CHUNKER.group_of(topic, wiring.settings.topic_prefix) for topic in CHUNKER.reads],
            lag=resources.lag.read,
            ends=resources.lag.ends,
        )
        return [
            every(SWEEP_EVERY_S, sweep, name="sweep"),
            every(GIVE_UP_EVERY_S, leftovers.run, name="give up torn revisions"),
            every(RECONCILE_EVERY_S, reconciler.run, name="reconcile"),
        ]
    if role == CHUNKER.name:
        handler = wiring.deliveries[CHUNKER.name].handler_of(DOCUMENTS)
        redrive = Redrive(resources.directory, log_reader=resources.log_reader, handler=handler, lag=resources.lag.read)
        audit_of_log = LogAudit(
            KafkaLogScanner(wiring.settings),
            catalog=resources.catalog,
            ledger=resources.ledger,
            epochs=wiring.epochs,
            home_of=lambda key: home_partition(key, wiring.settings.partitions),
            handler=handler,
            lag=resources.lag.read,
        )
        return [
            every(REDRIVE_EVERY_S, redrive.run, name="redrive"),
            every(REDRIVE_EVERY_S, audit_of_log.run, name="audit of the log"),
        ]
    if role == JOBS:
        retire = partial(generation_upkeep.retire_and_purge, resources.generations, resources.index)
        mender = Mender(
            MenderParts(
                standing=resources.generations.standing,
                build=resources.build,
                log_reader=resources.log_reader,
                epochs=wiring.epochs,
                lag=resources.lag.read,
            ),
            outbox=wiring.outbox,
        )
        eraser = Eraser(
            EraserParts(
                store=resources.erasures,
                changes=resources.change_log,
                scanner=KafkaLogScanner(wiring.settings),
                blobs=resources.blobs,
                forget_streams=resources.answer_stream.forget,
                forget_remembered=partial(_forget_remembered, resources),
            )
        )
        return [
            _jobs(wiring).run(),
            every(ERASE_EVERY_S, eraser.run, name="erase"),
            every(SWEEP_EVERY_S, retire, name="retire"),
            every(REDRIVE_EVERY_S, mender.run, name="mend"),
            every(
                SWEEP_BLOBS_EVERY_S,
                BlobSweeper(resources.blobs, KafkaLogScanner(wiring.settings)).run,
                name="sweep-blobs",
            ),
            every(FORGET_HISTORY_EVERY_S, partial(_forget_history, resources), name="forget-history"),
            every(FORGET_EVERY_S, partial(_forget_old, resources), name="forget"),
        ]
    return []


async def _forget_remembered(resources: Resources, collection: str, document_id: str) -> int:
    cache = resources.answer_cache
    return 0 if cache is None else await cache.forget_citing(collection, document_id)


async def _forget_history(resources: Resources) -> None:
    while await resources.history.forget_old():
        pass


async def _forget_old(resources: Resources) -> None:
    await resources.query_log.forget_old()
    await resources.vector_cache.evict()
    await resources.jobs.forget_finished(older_than_s=FORGET_AFTER_S)


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


def _wanted(roles: Sequence[str]) -> set[str]:
    return {part for role in roles for part in _NEEDS[role]} | {"lag"}


_NEEDS: dict[str, set[str]] = {
    CHUNKER.name: {"catalog", "ledger", "blobs", "parser", "counters", "log_reader", "lag"},
    EMBEDDER.name: {"catalog", "ledger", "vector_cache", "bulk_embedders"},
    INDEXER.name: {"catalog", "manifests", "vector_cache", "index", "sparse"},
    RECORDER.name: {"outcomes"},
    JOBS: {
        "jobs",
        "generations",
        "build",
        "index",
        "sparse",
        "bulk_embedders",
        "log_reader",
        "lag",
        "change_log",
        "answer_stream",
        "answer_cache",
    },
    ANSWERER.name: {
        "catalog",
        "query_embedders",
        "sparse",
        "index",
        "passages",
        "answers",
        "answer_stream",
        "answer_cache",
        "conversations",
        "guardrails",
        "generator",
    },
}
