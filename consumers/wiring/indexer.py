"""The indexer, and what keeps the index true to its tables."""

from collections.abc import Sequence
from functools import partial

from faststream.kafka import KafkaRouter

from consumers import indexer
from consumers.leftovers import Leftovers
from consumers.maintenance import every, sweep_garbage
from consumers.reconciler import Reconciler
from consumers.wiring.role import Role, Upkeep, Wiring
from infra.drift import count_drift
from infra.postgres.audit import PostgresIndexAudit
from infra.resources import Resources
from streams.topology import CHUNKER, INDEXER

SWEEP_EVERY_S = 3.0
GIVE_UP_EVERY_S = 10.0
RECONCILE_EVERY_S = 60.0


def _router(wiring: Wiring) -> KafkaRouter:
    parts = _parts(wiring.resources)
    return indexer.router(wiring.delivery(INDEXER), parts, outbox=wiring.outbox, collecting=wiring.collecting)


def _parts(resources: Resources) -> indexer.IndexerParts:
    return indexer.IndexerParts(
        catalog=resources.catalog,
        manifests=resources.manifests,
        cache=resources.vector_cache,
        index=resources.index,
        sparse=resources.sparse,
    )


def _upkeep(wiring: Wiring) -> Sequence[Upkeep]:
    resources = wiring.resources
    sweep = partial(sweep_garbage, resources.manifests, resources.index)
    audit = PostgresIndexAudit(resources.pool)
    reconciler = Reconciler(_parts(resources), audit, on_drift=count_drift)
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


ROLE = Role(
    needs=frozenset({"catalog", "manifests", "vector_cache", "index", "sparse"}), router=_router, upkeep=_upkeep
)
