"""The jobs that people start, and the upkeep that goes on beside them."""

from collections.abc import Sequence
from functools import partial

from consumers import generation_upkeep
from consumers.blob_sweeper import BlobSweeper
from consumers.collection_remover import CollectionRemover, RemoverParts
from consumers.eraser import Eraser, EraserParts
from consumers.jobs import FORGET_AFTER_S, JobRunner
from consumers.maintenance import every
from consumers.mender import Mender, MenderParts
from consumers.query_log_rebuilder import QueryLogRebuilder
from consumers.reindexer import Reindexer, ReindexerParts
from consumers.replayer import Replayer, ReplayerParts
from consumers.wiring.role import Role, Upkeep, Wiring
from infra.embedding.questions import BulkAsQuestionEmbedders
from infra.files.directory_job import directory_work
from infra.kafka.log_scan import KafkaLogScanner
from infra.postgres.catalog import CACHE_S
from infra.resources import Resources
from schemas.topics import DOCUMENTS
from streams.jobs import JobType, JobWork
from streams.parity import Searching
from streams.topology import CHUNKER

ERASE_EVERY_S = 0.5
RETIRE_EVERY_S = 3.0
MEND_EVERY_S = 60.0
SWEEP_BLOBS_EVERY_S = 6 * 3600.0
FORGET_HISTORY_EVERY_S = 60.0
FORGET_EVERY_S = 600.0
# By then every process knows that a generation has come or gone: its caches are half as old at most, the rest is for
# work that had begun.
KNOWN_AFTER_S = 2 * CACHE_S + 0.7


def _runner(wiring: Wiring) -> JobRunner:
    scanner = KafkaLogScanner(wiring.settings)
    work: dict[JobType, JobWork] = {
        JobType.REINDEX: _reindexer(wiring, scanner),
        JobType.REPLAY: _replayer(wiring, scanner),
        JobType.DELETE_COLLECTION: _remover(wiring, scanner),
        JobType.REBUILD_QUERY_LOG: QueryLogRebuilder(
            wiring.resources.query_log, partial(KafkaLogScanner, wiring.settings)
        ),
        JobType.INGEST_DIRECTORY: directory_work(wiring.settings),
    }
    return JobRunner(wiring.resources.jobs, work)


def _reindexer(wiring: Wiring, scanner: KafkaLogScanner) -> Reindexer:
    resources = wiring.resources
    parts = ReindexerParts(
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
    )
    return Reindexer(parts, outbox=wiring.outbox)


def _replayer(wiring: Wiring, scanner: KafkaLogScanner) -> Replayer:
    resources = wiring.resources
    chunker_here = wiring.deliveries.get(CHUNKER.name)
    parts = ReplayerParts(
        catalog=resources.catalog,
        ledger=resources.ledger,
        build=resources.build,
        scanner=scanner,
        epochs=wiring.epochs,
        receive=None if chunker_here is None else chunker_here.handler_of(DOCUMENTS),
        lag=resources.lag.read,
    )
    return Replayer(parts, outbox=wiring.outbox)


def _remover(wiring: Wiring, scanner: KafkaLogScanner) -> CollectionRemover:
    resources = wiring.resources
    parts = RemoverParts(
        removal=resources.collection_removal,
        scanner=scanner,
        epochs=wiring.epochs,
        remove_generation=lambda generation: generation_upkeep.remove(
            generation, resources.generations, resources.index
        ),
        announce_s=KNOWN_AFTER_S,
    )
    return CollectionRemover(parts, outbox=wiring.outbox)


def _mender(wiring: Wiring) -> Mender:
    resources = wiring.resources
    parts = MenderParts(
        standing=resources.generations.standing,
        build=resources.build,
        log_reader=resources.log_reader,
        epochs=wiring.epochs,
        lag=resources.lag.read,
    )
    return Mender(parts, outbox=wiring.outbox)


def _eraser(wiring: Wiring) -> Eraser:
    resources = wiring.resources
    return Eraser(
        EraserParts(
            store=resources.erasures,
            changes=resources.change_log,
            scanner=KafkaLogScanner(wiring.settings),
            blobs=resources.blobs,
            forget_streams=resources.answer_stream.forget,
            forget_remembered=partial(_forget_remembered, resources),
        )
    )


def _upkeep(wiring: Wiring) -> Sequence[Upkeep]:
    resources = wiring.resources
    retire = partial(generation_upkeep.retire_and_purge, resources.generations, resources.index)
    sweeper = BlobSweeper(resources.blobs, KafkaLogScanner(wiring.settings))
    return [
        _runner(wiring).run(),
        every(ERASE_EVERY_S, _eraser(wiring).run, name="erase"),
        every(RETIRE_EVERY_S, retire, name="retire"),
        every(MEND_EVERY_S, _mender(wiring).run, name="mend"),
        every(SWEEP_BLOBS_EVERY_S, sweeper.run, name="sweep-blobs"),
        every(FORGET_HISTORY_EVERY_S, partial(_forget_history, resources), name="forget-history"),
        every(FORGET_EVERY_S, partial(_forget_old, resources), name="forget"),
    ]


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


ROLE = Role(
    needs=frozenset(
        {
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
        }
    ),
    upkeep=_upkeep,
)
