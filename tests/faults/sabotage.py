"""Protections, each with a function that takes it away in this process. A check that still passes then has no teeth.

Also stores that fail on demand (``failing_stores``): not a protection that is off, but a dependency at its worst.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
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


def deaf() -> None:
    """Consumers get no records, and nobody tells them: what several bugs of clients have looked like."""
    from consumers.delivery import Delivery

    async def deliver(self: Delivery, batch: Any, subscription: Any, handler: Any) -> None:
        batch.pause_and_rewind()

    Delivery._deliver = deliver  # type: ignore[method-assign]


def no_dead_letters() -> None:
    """The dead-letter topic takes nothing: its records are as unacknowledged as in an outage."""
    from consumers.outbox import Sending
    from schemas.topics import DEAD_LETTERS, Topic
    from streams.errors import Unavailable

    send = Sending.raw

    async def raw(self: Sending, topic: Topic, **record: Any) -> None:
        if topic == DEAD_LETTERS:
            raise Unavailable("kafka", "an order of the fault harness")
        await send(self, topic, **record)

    Sending.raw = raw  # type: ignore[method-assign]


def misbehaving_parser() -> None:
    """HTML goes to a child process that hangs, breaks down or takes all memory when a document says so."""
    from infra.parsing.parser_process import ParserProcess

    assert ParserProcess.__init__.__kwdefaults__["module"]
    ParserProcess.__init__.__kwdefaults__["module"] = "tests.fakes.bad_parser"


def skewed_clock(seconds: str) -> None:
    """This process's wall clock is ahead or behind: ``datetime.now`` and ``time.time`` in our own modules."""
    import datetime as standard
    import sys
    import time

    shift = float(seconds)

    class Skewed(standard.datetime):
        @classmethod
        def now(cls, tz: standard.tzinfo | None = None) -> standard.datetime:  # type: ignore[override]
            return standard.datetime.now(tz) + standard.timedelta(seconds=shift)

    wall = time.time
    time.time = lambda: wall() + shift
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("consumers", "infra", "streams", "schemas", "api"):
            for attribute, value in list(vars(module).items()):
                if value is standard.datetime:
                    setattr(module, attribute, Skewed)


STORE_FAULTS = (
    "upsert-fails",
    "upsert-unanswered",
    "upsert-half",
    "update_vectors-fails",
    "update_vectors-unanswered",
    "delete-fails",
    "delete-unanswered",
    "flip-fails",
    "flip-unanswered",
    "mark_embedded-unanswered",
)
"""``method-way``: it fails, it takes effect and the answer is lost, or half of it takes effect."""


def failing_stores(orders: str) -> None:
    """Writes of index and manifests fail as the file says: ``fault times``; what has happened is counted down."""
    from infra.index.client import RemoteIndex
    from infra.postgres.manifests import PostgresManifestStore

    file = Path(orders)
    for owner, method in (
        (RemoteIndex, "upsert"),
        (RemoteIndex, "update_vectors"),
        (RemoteIndex, "delete"),
        (PostgresManifestStore, "flip"),
        (PostgresManifestStore, "mark_embedded"),
    ):
        setattr(owner, method, _failing(getattr(owner, method), file))


def _failing(work: Callable[..., Awaitable[Any]], file: Path) -> Callable[..., Awaitable[Any]]:
    from streams.errors import Unavailable

    @wraps(work)
    async def attempt(self: object, *arguments: Any) -> Any:
        method, _, way = _take(file, work.__name__).partition("-")
        if not method or not arguments[-1]:
            return await work(self, *arguments)
        if way == "half":
            await work(self, *arguments[:-1], arguments[-1][: len(arguments[-1]) // 2])
        elif way == "unanswered":
            await work(self, *arguments)
        raise Unavailable("a store", f"{method} {way}: an order of the fault harness")

    return attempt


def _take(file: Path, method: str) -> str:
    """The fault that is ordered for this method, if any."""
    try:
        fault, times = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return ""
    if not fault.startswith(f"{method}-"):
        return ""
    if int(times) > 1:
        file.write_text(f"{fault} {int(times) - 1}")
    else:
        file.unlink()
    return fault
