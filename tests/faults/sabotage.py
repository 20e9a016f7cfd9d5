"""Protections, each with a function that takes it away in this process. A check that still passes then has no teeth."""

from collections.abc import Sequence
from typing import Any


def commit_first() -> None:
    """Commit the offsets before the effects: what a default acknowledgement policy does."""
    from consumers.delivery import Delivery

    attempt = Delivery._deliver

    async def deliver(self: Delivery, batch: Any, subscription: Any, handler: Any) -> None:
        await batch.commit({})
        await attempt(self, batch, subscription, handler)

    Delivery._deliver = deliver  # type: ignore[method-assign]


def no_fence() -> None:
    """Let any revision replace any other: last writer wins."""
    from infra.postgres import manifests

    fence = "where m.applied_revision < $6"
    assert fence in manifests._FENCE
    manifests._FENCE = manifests._FENCE.replace(fence, "where true")


def outage_is_permanent() -> None:
    """Bury what an outage stopped."""
    from consumers.delivery import Delivery, Handled
    from streams.errors import PermanentError, Unavailable
    from streams.records import Record

    call = Delivery._call

    async def calling(self: Delivery, records: Sequence[Record], handler: Any) -> Handled:
        try:
            return await call(self, records, handler)
        except Unavailable as error:
            raise PermanentError("unavailable", str(error)) from error

    Delivery._call = calling  # type: ignore[method-assign]
