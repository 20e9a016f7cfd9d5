"""The composition root of the HTTP edge: builds what the routes need, serves them, stops cleanly."""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Generator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import uvicorn
from fastapi import FastAPI

from api.administration import Administration
from api.admission import RouteClass
from api.auth import LocalAuthenticator
from api.connection import connection_with
from api.edge import Edge, EdgeOptions
from api.routes import build_api, wrapped
from api.seats import Seats
from api.sse import SseOptions
from infra.breaker import circuits
from infra.files.directory_job import allowed_directory
from infra.kafka.connection import connection_kwargs, is_serving
from infra.kafka.dead_letters import KafkaDeadLetters
from infra.kafka.lag import GroupLag
from infra.postgres.outcomes import PostgresOutcomeStore
from infra.resources import Resources, open_resources
from infra.settings import Settings
from streams.answering import DEFAULT_COLLECTION
from streams.as_of import TimeTravel
from streams.errors import LeatError, PermanentError, Unavailable
from streams.model import DeadLetter

log = logging.getLogger(__name__)

WANTED = (
    "query_embedders", "sparse", "index", "answer_stream", "question_log", "change_log", "dead_letters", "lag",
)  # fmt: skip
DEFAULT_PORT = 8765
# Between saying "not ready" and refusing connections: load balancers ask about every second.
NOTICE_S = 0.5
# For requests in flight, streams' closing words included; the launcher kills after 6 s.
SHUTDOWN_S = 5
LAG_CACHE_S = 1.0
STREAMS_PER_USER = 5
# A database that says nothing for this long is down, as far as a request is concerned: 503 within a second.
PATIENCE_S = 0.9


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        PermanentError: a setting is missing.
        Unavailable: a dependency is not there at the start.
    """
    async with open_resources(settings, want=WANTED, patience_s=PATIENCE_S, process="leat-api") as resources:
        closing = asyncio.Event()
        edge = edge_of(settings, resources, closing)
        await _warm_up(edge, settings.tenant)
        config = uvicorn.Config(
            wrapped(build_api(edge), edge),
            host=settings.host,
            port=settings.port or DEFAULT_PORT,
            http=connection_with(settings.sse_send_timeout_s),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        log.info("api_serving", extra={"host": config.host, "port": config.port})
        await Server(config, closing).serve()
        log.info("api_stopped")


def create_app(settings: Settings, resources: Resources) -> FastAPI:
    """The application without its outer layers, for documents about it and for tests."""
    return build_api(edge_of(settings, resources, asyncio.Event()))


def edge_of(settings: Settings, resources: Resources, closing: asyncio.Event) -> Edge:
    """What the routes need, from what is open."""
    if settings.api_token is None:
        raise PermanentError("api-token-not-configured", "give LEAT_API_TOKEN, or start everything with `leat up`")
    stream = resources.answer_stream
    return Edge(
        authenticator=LocalAuthenticator(settings.api_token.get_secret_value(), tenant=settings.tenant),
        catalog=resources.catalog,
        embedders=resources.query_embedders,
        sparse=resources.sparse,
        index=resources.index,
        passages=resources.passages,
        answers=resources.answers,
        conversations=resources.conversations,
        stream=stream,
        questions=resources.question_log,
        changes=resources.change_log,
        blobs=resources.blobs,
        directory=resources.directory,
        status=resources.directory,
        dead_letters=DeadLetterTray(resources.outcomes, resources.dead_letters),
        time_travel=TimeTravel(resources.history, resources.vector_cache, resources.index, resources.sparse),
        administration=Administration(
            collections=resources.collections,
            generations=resources.generations,
            jobs=resources.jobs,
            erasures=resources.erasures,
            allowed_directory=partial(allowed_directory, settings),
        ),
        lag=RecentLag(resources.lag).read,
        checks={
            "kafka": lambda: _check_kafka(settings),
            "postgres": lambda: _check_postgres(resources),
            "redis": stream.check,
            "index": resources.index.check,
        },
        dispensable=frozenset({"redis"}),
        seats=Seats(settings.max_streams, per_user=_streams_per_user(settings)),
        circuits=circuits,
        options=EdgeOptions(
            version=_version(),
            local=settings.mode == "local",
            max_document_bytes=settings.max_document_bytes,
            answer_timeout_s=settings.answer_timeout_s,
            limits={
                RouteClass.SEARCHES: settings.max_searches,
                RouteClass.QUESTIONS: settings.max_questions,
                RouteClass.CHANGES: settings.max_changes,
                RouteClass.READS: settings.max_reads,
            },
            sse=SseOptions(settings.sse_heartbeat_s, settings.sse_send_timeout_s, closing),
        ),
    )


class DeadLetterTray:
    """``DeadLetterDesk``: the projection for looking, the topic for bytes and for sending back."""

    def __init__(self, outcomes: PostgresOutcomeStore, letters: KafkaDeadLetters) -> None:
        self._outcomes = outcomes
        self._letters = letters
        self.list_dead_letters = outcomes.list_dead_letters

    async def get(self, letter_id: str) -> DeadLetter | None:
        return await self._outcomes.get(letter_id)

    async def value(self, letter_id: str) -> bytes | None:
        return (await self._letters.read(*_place(letter_id))).value

    async def replay(self, letter_id: str) -> None:
        await self._letters.retry(*_place(letter_id))
        await self._outcomes.mark_replayed([letter_id])


class RecentLag:
    """The lag of all groups, asked for once a second however many ask."""

    def __init__(self, lag: GroupLag) -> None:
        self._lag = lag
        self._turn = asyncio.Lock()
        self._read_at = -LAG_CACHE_S
        self._value: Mapping[str, int] = {}

    async def read(self) -> Mapping[str, int]:
        async with self._turn:
            if time.monotonic() - self._read_at >= LAG_CACHE_S:
                self._value = await self._lag.read()
                self._read_at = time.monotonic()
            return self._value


class Server(uvicorn.Server):
    """Ends in order: not ready any more, then no new connections, streams closed with a word, then the rest.

    uvicorn's own handling raises the signal once more at the end, which would end the process before its resources are
    closed.
    """

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_to_stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _begin_to_stop(self) -> None:
        if self._closing.is_set():
            self.force_exit = True  # asked twice: now
        self._closing.set()
        asyncio.get_running_loop().call_later(NOTICE_S, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


async def _warm_up(edge: Edge, tenant: str) -> None:
    """The first question should not be the slow one."""
    with contextlib.suppress(LeatError):
        collection = await edge.catalog.collection(tenant, DEFAULT_COLLECTION)
        embedder = await edge.embedders.of(collection.serving.model)
        if embedder is not None:
            await embedder.embed_query("warm up")


async def _check_kafka(settings: Settings) -> None:
    if not await is_serving(connection_kwargs(settings), timeout_ms=700):
        raise Unavailable("kafka", "no broker answers")


async def _check_postgres(resources: Resources) -> None:
    await resources.pool.fetchval("select 1")


def _streams_per_user(settings: Settings) -> int | None:
    """One's own machine has one administrator, who asks from many windows, scripts and tests at once."""
    if settings.max_streams_per_user is not None:
        return settings.max_streams_per_user or None
    return None if settings.mode == "local" else STREAMS_PER_USER


def _place(letter_id: str) -> tuple[int, int]:
    partition, _, offset = letter_id.partition("-")
    return int(partition), int(offset)


def _version() -> str:
    try:
        return version("leat")
    except PackageNotFoundError:
        return "0"
