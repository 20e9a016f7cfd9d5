"""What a process needs from the outside world: opened in one place, closed in reverse order.

Stores in PostgreSQL cost nothing beside their pool, and are always there. Everything else is opened only where it is
wanted, and its modules are imported only then: an API process needs no parser, an indexer no language model.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.blobs import FolderBlobStore
from infra.generation_plan import generation_planner
from infra.postgres.answers import PostgresAnswerStore
from infra.postgres.backfill import PostgresGenerationBuild
from infra.postgres.catalog import NewGeneration, PostgresCatalog
from infra.postgres.collection_removal import PostgresCollectionRemoval
from infra.postgres.collections import PostgresCollectionStore
from infra.postgres.conversations import PostgresConversationStore
from infra.postgres.documents import PostgresDocumentDirectory
from infra.postgres.erasures import PostgresErasures
from infra.postgres.generations import PostgresGenerationStore
from infra.postgres.history import PostgresHistory
from infra.postgres.jobs import PostgresJobStore
from infra.postgres.ledger import PostgresDocumentLedger
from infra.postgres.manifests import PostgresManifestStore
from infra.postgres.outcomes import PostgresOutcomeStore
from infra.postgres.passages import PostgresPassageStore
from infra.postgres.pool import Pool, open_pool
from infra.postgres.query_log import PostgresQueryLog
from infra.postgres.vector_cache import PostgresVectorCache
from infra.postgres.watched import PostgresWatchedFiles
from infra.settings import Settings
from streams.errors import LeatError, PermanentError
from streams.model import EmbeddingModel, Generation
from streams.ports import Embedder, Parser, QueryEmbedders, SparseEncoder, TextGenerator, TokenCounter

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from infra.index import Index
    from infra.kafka.change_log import KafkaChangeLog
    from infra.kafka.dead_letters import KafkaDeadLetters
    from infra.kafka.lag import GroupLag
    from infra.kafka.log_reader import KafkaLogReader
    from infra.kafka.question_log import KafkaQuestionLog
    from infra.redis_cache import RedisAnswerCache
    from infra.redis_streams import RedisAnswerStream
    from streams.guardrails import Guardrails


class NotOpened(LookupError):
    """A part is used that this process did not ask for: a mistake in its composition root."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What ``open_resources`` has opened."""

    settings: Settings
    pool: Pool
    blobs: FolderBlobStore
    catalog: PostgresCatalog
    ledger: PostgresDocumentLedger
    manifests: PostgresManifestStore
    passages: PostgresPassageStore
    vector_cache: PostgresVectorCache
    answers: PostgresAnswerStore
    conversations: PostgresConversationStore
    outcomes: PostgresOutcomeStore
    directory: PostgresDocumentDirectory
    watched: PostgresWatchedFiles
    collections: PostgresCollectionStore
    generations: PostgresGenerationStore
    build: PostgresGenerationBuild
    jobs: PostgresJobStore
    history: PostgresHistory
    query_log: PostgresQueryLog
    collection_removal: PostgresCollectionRemoval
    erasures: PostgresErasures
    opened: Mapping[str, Any]
    """The parts that were wanted, by the names of ``OPENERS``."""

    @property
    def index(self) -> "Index":
        return self._part("index")  # type: ignore[no-any-return]

    @property
    def sparse(self) -> SparseEncoder:
        return self._part("sparse")  # type: ignore[no-any-return]

    @property
    def parser(self) -> Parser:
        return self._part("parser")  # type: ignore[no-any-return]

    @property
    def counter_of(self) -> Callable[[Generation], TokenCounter]:
        """The token counter of a generation's embedding model."""
        return self._part("counters")  # type: ignore[no-any-return]

    @property
    def bulk_embedder_of(self) -> Callable[[EmbeddingModel], Awaitable[Embedder]]:
        """The embedder of a model, for passages; loaded when it is first asked for."""
        return self._part("bulk_embedders")  # type: ignore[no-any-return]

    @property
    def query_embedders(self) -> QueryEmbedders:
        """The embedders of questions, by model."""
        return self._part("query_embedders")  # type: ignore[no-any-return]

    @property
    def generator(self) -> TextGenerator | None:
        """None: answers are quotations."""
        return self._part("generator")  # type: ignore[no-any-return]

    @property
    def redis(self) -> "Redis":
        return self._part("redis")  # type: ignore[no-any-return]

    @property
    def answer_stream(self) -> "RedisAnswerStream":
        return self._part("answer_stream")  # type: ignore[no-any-return]

    @property
    def answer_cache(self) -> "RedisAnswerCache | None":
        """None: answers are not kept for other askers."""
        return self._part("answer_cache")  # type: ignore[no-any-return]

    @property
    def guardrails(self) -> "Guardrails":
        return self._part("guardrails")  # type: ignore[no-any-return]

    @property
    def change_log(self) -> "KafkaChangeLog":
        return self._part("change_log")  # type: ignore[no-any-return]

    @property
    def question_log(self) -> "KafkaQuestionLog":
        return self._part("question_log")  # type: ignore[no-any-return]

    @property
    def log_reader(self) -> "KafkaLogReader":
        return self._part("log_reader")  # type: ignore[no-any-return]

    @property
    def dead_letters(self) -> "KafkaDeadLetters":
        return self._part("dead_letters")  # type: ignore[no-any-return]

    @property
    def lag(self) -> "GroupLag":
        return self._part("lag")  # type: ignore[no-any-return]

    def _part(self, name: str) -> Any:
        try:
            return self.opened[name]
        except KeyError:
            raise NotOpened(f"'{name}' was not asked for: add it to what this process wants") from None


@asynccontextmanager
async def open_resources(
    settings: Settings, *, want: Collection[str] = (), patience_s: float | None = None, process: str = "leat"
) -> AsyncIterator[Resources]:
    """Open what a process needs; on leaving, close it in reverse order. The database is migrated by then.

    ``want`` holds names of ``OPENERS``; names of stores that are always there may be among them. ``patience_s`` bounds
    single reads of the database, where somebody waits for the answer. ``process`` is our name in the database's list
    of sessions.

    Raises:
        Unavailable: a dependency does not answer.
        PermanentError: ``postgres-not-configured`` and the like: a setting is missing.
    """
    if unknown := set(want) - set(OPENERS) - set(Resources.__dataclass_fields__):
        raise NotOpened(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(OPENERS)}")
    if not settings.postgres_dsn:
        raise PermanentError("postgres-not-configured", "give LEAT_POSTGRES_DSN, or start everything with `leat up`")
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            await open_pool(
                settings.postgres_dsn, settings.postgres_pool_size, application=process, patience_s=patience_s
            )
        )
        opening = Opening(settings, pool, stack, hurried=patience_s is not None)
        for name in OPENERS:
            if name in want:
                await opening.part(name)
        yield Resources(
            settings=settings,
            pool=pool,
            blobs=FolderBlobStore(settings.blob_dir or settings.data_dir / "blobs"),
            catalog=PostgresCatalog(pool, new_generation=lambda: new_generation(settings)),
            ledger=PostgresDocumentLedger(pool),
            manifests=PostgresManifestStore(pool),
            passages=PostgresPassageStore(pool),
            vector_cache=PostgresVectorCache(pool),
            answers=PostgresAnswerStore(pool),
            conversations=PostgresConversationStore(pool),
            outcomes=PostgresOutcomeStore(pool),
            directory=PostgresDocumentDirectory(pool),
            watched=PostgresWatchedFiles(pool),
            collections=PostgresCollectionStore(pool, plan=generation_planner(settings)),
            generations=PostgresGenerationStore(pool, plan=generation_planner(settings)),
            build=PostgresGenerationBuild(pool),
            jobs=PostgresJobStore(pool),
            history=PostgresHistory(pool),
            query_log=PostgresQueryLog(pool),
            collection_removal=PostgresCollectionRemoval(pool),
            erasures=PostgresErasures(pool),
            opened=opening.parts,
        )


async def new_generation(settings: Settings) -> NewGeneration:
    """How a collection is indexed that is written to for the first time: with the model and sizes of the settings."""
    from infra.embedding import describe_model

    model = await describe_model(settings, settings.embedder)
    return NewGeneration(
        model=model,
        chunk_tokens=min(settings.chunk_tokens, model.max_tokens),
        chunk_overlap=settings.chunk_overlap,
    )


class Opening:
    """What is open so far, each part once, and what must be closed again."""

    def __init__(self, settings: Settings, pool: Pool, stack: AsyncExitStack, *, hurried: bool) -> None:
        self.settings = settings
        self.hurried = hurried
        """Somebody waits for each single answer: better none than a late one."""
        self.pool = pool
        self.parts: dict[str, Any] = {}
        self._stack = stack

    async def part(self, name: str) -> Any:
        """A part by name, opened now if it is not yet."""
        if name not in self.parts:
            self.parts[name] = await OPENERS[name](self)
        return self.parts[name]

    def closing(self, part: Any) -> Any:
        """Have ``await part.close()`` called at the end."""
        self.at_end(part.close)
        return part

    def at_end(self, close: Callable[[], Awaitable[None]]) -> None:
        self._stack.push_async_callback(close)


async def _index(opening: Opening) -> Any:
    from infra.index import make_index

    return opening.closing(make_index(opening.settings, reconnect_s=1.0 if opening.hurried else 4.0))


async def _sparse(_: Opening) -> Any:
    from infra.sparse import make_sparse_encoder

    return make_sparse_encoder()


async def _parser(opening: Opening) -> Any:
    from infra.parsing import make_parser

    return opening.closing(make_parser(opening.settings))


async def _counters(opening: Opening) -> Any:
    from infra.embedding import make_token_counter

    settings = opening.settings
    counters: dict[str, TokenCounter] = {}

    def counter_of(generation: Generation) -> TokenCounter:
        name = generation.model.name
        if name not in counters:
            counters[name] = make_token_counter(settings, name)
        return counters[name]

    return counter_of


async def _bulk_embedders(opening: Opening) -> Any:
    from infra.embedding import make_embedder

    settings = opening.settings
    embedders: dict[str, Embedder] = {}

    async def embedder_of(model: EmbeddingModel) -> Embedder:
        if model.fingerprint not in embedders:
            embedder = make_embedder(settings, model.name, purpose="bulk", model=model)
            embedders[model.fingerprint] = opening.closing(embedder)
        return embedders[model.fingerprint]

    return embedder_of


async def _query_embedders(opening: Opening) -> Any:
    from infra.embedding import describe_model
    from infra.embedding.questions import QuestionEmbedders

    embedders = QuestionEmbedders(opening.settings, closing=opening.closing)
    # Most collections have this one: it loads while the rest starts. A server that is away is tried when asked for.
    with suppress(LeatError):
        await embedders.of(await describe_model(opening.settings, opening.settings.embedder))
    return embedders


async def _generator(opening: Opening) -> Any:
    from infra.generation import make_generator

    generator = make_generator(opening.settings)
    return None if generator is None else opening.closing(generator)


async def _redis(opening: Opening) -> Any:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import ConstantBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError

    if not opening.settings.redis_url:
        raise PermanentError("redis-not-configured", "give LEAT_REDIS_URL, or start everything with `leat up`")
    # An answerer and an API process each need a handful: one for reading streams, a few for commands.
    # Tried again at once: after a restart of Redis, every connection is found dead by the command that uses it.
    again = Retry(ConstantBackoff(0.05), 2, supported_errors=(RedisConnectionError,))
    redis = Redis.from_url(opening.settings.redis_url, max_connections=10, socket_connect_timeout=2.0, retry=again)
    opening.at_end(redis.aclose)
    return redis


async def _redis_guard(_: Opening) -> Any:
    from infra.redis_guard import RedisGuard

    return RedisGuard()


async def _answer_stream(opening: Opening) -> Any:
    from infra.redis_streams import RedisAnswerStream

    redis, guard = await opening.part("redis"), await opening.part("redis_guard")
    return opening.closing(RedisAnswerStream(redis, ttl_s=opening.settings.answer_ttl_s, guard=guard))


async def _answer_cache(opening: Opening) -> Any:
    from infra.redis_cache import RedisAnswerCache

    if not (ttl_s := opening.settings.answer_cache_ttl_s):
        return None
    redis, guard = await opening.part("redis"), await opening.part("redis_guard")
    return RedisAnswerCache(redis, ttl_s=ttl_s, guard=guard)


async def _guardrails(opening: Opening) -> Any:
    from infra.guardrails import load_guardrails

    return load_guardrails(opening.settings.guardrails_file)


async def _change_log(opening: Opening) -> Any:
    from infra.kafka.change_log import KafkaChangeLog
    from infra.kafka.connection import connection_kwargs
    from infra.kafka.epochs import current_epoch

    settings = opening.settings
    epoch = await current_epoch(settings, opening.pool)
    return opening.closing(KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix, epoch=epoch))


async def _question_log(opening: Opening) -> Any:
    from infra.kafka.connection import connection_kwargs
    from infra.kafka.question_log import KafkaQuestionLog

    return opening.closing(KafkaQuestionLog(connection_kwargs(opening.settings), opening.settings.topic_prefix))


async def _log_reader(opening: Opening) -> Any:
    from infra.kafka.connection import connection_kwargs
    from infra.kafka.log_reader import KafkaLogReader

    return opening.closing(KafkaLogReader(connection_kwargs(opening.settings), opening.settings.topic_prefix))


async def _dead_letters(opening: Opening) -> Any:
    from infra.kafka.connection import connection_kwargs
    from infra.kafka.dead_letters import KafkaDeadLetters

    return opening.closing(KafkaDeadLetters(connection_kwargs(opening.settings), opening.settings.topic_prefix))


async def _lag(opening: Opening) -> Any:
    from infra.kafka.lag import GroupLag

    return opening.closing(GroupLag(opening.settings))


OPENERS: dict[str, Callable[[Opening], Awaitable[Any]]] = {
    "index": _index,
    "sparse": _sparse,
    "parser": _parser,
    "counters": _counters,
    "bulk_embedders": _bulk_embedders,
    "query_embedders": _query_embedders,
    "generator": _generator,
    "redis": _redis,
    "redis_guard": _redis_guard,
    "answer_stream": _answer_stream,
    "answer_cache": _answer_cache,
    "guardrails": _guardrails,
    "change_log": _change_log,
    "question_log": _question_log,
    "log_reader": _log_reader,
    "dead_letters": _dead_letters,
    "lag": _lag,
}
