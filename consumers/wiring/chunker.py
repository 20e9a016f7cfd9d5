"""The chunker, and what drives changes again that got lost behind it."""

from collections.abc import Sequence

from faststream.kafka import KafkaRouter

from consumers import chunker
from consumers.log_audit import LogAudit
from consumers.maintenance import Redrive, every
from consumers.wiring.role import Role, Upkeep, Wiring
from infra.kafka.log_scan import KafkaLogScanner
from infra.kafka.partitioning import home_partition
from schemas.topics import DOCUMENTS
from streams.topology import CHUNKER

REDRIVE_EVERY_S = 60.0


def _router(wiring: Wiring) -> KafkaRouter:
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


def _upkeep(wiring: Wiring) -> Sequence[Upkeep]:
    resources = wiring.resources
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


ROLE = Role(
    needs=frozenset({"catalog", "ledger", "blobs", "parser", "counters", "log_reader", "lag"}),
    router=_router,
    upkeep=_upkeep,
)
