"""The recorder."""

from faststream.kafka import KafkaRouter

from consumers import recorder
from consumers.wiring.role import Role, Wiring
from streams.topology import RECORDER


def _router(wiring: Wiring) -> KafkaRouter:
    return recorder.router(
        wiring.delivery(RECORDER), outcomes=wiring.resources.outcomes, queries=wiring.resources.query_log
    )


ROLE = Role(needs=frozenset({"outcomes"}), router=_router)
