"""A pool of connections that speaks in our errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any, Self, TypeAlias, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from pydantic_core import from_json

from streams.errors import PermanentError, TransientError, Unavailable

Row: TypeAlias = asyncpg.Record
Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

T = TypeVar("T")

DEPENDENCY = "postgres"
# A request that finds every connection busy for this long is one too many: say so at once, so that load is shed.
ACQUIRE_TIMEOUT_S = 1.0
# The server gives up on a statement first, and says which; ours is for a server that has stopped talking.
STATEMENT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 15.0
LOCK_TIMEOUT_S = 5.0
IDLE_IN_TRANSACTION_TIMEOUT_S = 30.0

_GONE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    # What asyncpg says when the server's farewell arrives between two statements: its state machine is off the track.
    asyncpg.InternalClientError,
)
_TRY_AGAIN = (
    asyncpg.TransactionRollbackError,  # serialization failures and deadlocks
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's errors into ours: ``Unavailable``, ``TransientError`` or, for a value PostgreSQL cannot hold,
    ``PermanentError("unstorable-value")``. What is left is a bug of ours and passes through.
    """
    try:
        yield
    except _TRY_AGAIN as error:
        raise TransientError(f"postgres: {error}") from error
    except (asyncpg.DataError, asyncpg.exceptions.DataError) as error:
        raise PermanentError("unstorable-value", f"PostgreSQL cannot hold a value of this record: {error}") from error
    except TimeoutError as error:
        raise Unavailable(DEPENDENCY, f"no answer within {COMMAND_TIMEOUT_S:g} s") from error
    except _GONE as error:
        raise Unavailable(DEPENDENCY, str(error) or type(error).__name__) from error
    except asyncpg.InterfaceError as error:
        # asyncpg has one type for a lost connection ("is closed", "has been released", since the pool drops it at once)
        # and for wrong use of one; only the first is the server's doing.
        if "clos" in str(error) or "has been released" in str(error):
            raise Unavailable(DEPENDENCY, str(error)) from error
        raise


class _Connection(asyncpg.Connection):
    """Knows whether a session has anything to forget before the next one uses it."""

    __slots__ = ("_untouched",)

    def leaves_nothing(self) -> None:
        """What follows, until the connection is given back, is one statement outside a transaction that only reads."""
        self._untouched = True

    async def reset(self, *, timeout: float | None = None) -> None:
        """A round trip, after every read: a tenth of a search."""
        if getattr(self, "_untouched", False) and not self.is_in_transaction():
            self._untouched = False
            return
        self._untouched = False
        await super().reset(timeout=timeout)


class Pool:
    """Connections to one database. All errors that leave its context managers are ours."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, patience_s: float | None = None) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._abandoned: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit. Waits ``ACQUIRE_TIMEOUT_S`` for a free one, then raises ``Unavailable``."""
        with translated():
            try:
                connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
            except TimeoutError as error:
                raise Unavailable(
                    DEPENDENCY, f"no free connection within {ACQUIRE_TIMEOUT_S:g} s", retry_after_s=1.0
                ) from error
            try:
                yield connection
            finally:
                # Else giving it back has only the time that acquiring had: too little when the loop is busy.
                await self._pool.release(connection, timeout=COMMAND_TIMEOUT_S)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed when the block ends, rolled back when it raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection:
            connection.leaves_nothing()  # type: ignore[attr-defined] # the proxy knows asyncpg's methods only
            yield connection

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        async def read() -> list[Row]:
            async with self._reading() as connection:
                return await connection.fetch(sql, *values)

        return await self._patiently(read())

    async def fetchrow(self, sql: str, *values: Any) -> Row | None:
        async def read() -> Row | None:
            async with self._reading() as connection:
                return await connection.fetchrow(sql, *values)

        return await self._patiently(read())

    async def fetchval(self, sql: str, *values: Any) -> Any:
        async def read() -> Any:
            async with self._reading() as connection:
                return await connection.fetchval(sql, *values)

        return await self._patiently(read())

    async def execute(self, sql: str, *values: Any) -> int:
        """Run one statement; returns the number of rows it touched."""
        async with self.connection() as connection:
            return affected(await connection.execute(sql, *values))

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement once per row, in order, in one round trip and one transaction."""
        async with self.connection() as connection:
            await connection.executemany(sql, rows)

    async def _patiently(self, reading: Coroutine[Any, Any, T]) -> T:
        """Wait no longer than this pool's patience. Giving a connection of a silent server back takes seconds more:
        nobody waits for that.
        """
        if self._patience_s is None:
            return await reading
        task = asyncio.ensure_future(reading)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._patience_s)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if done:
            return task.result()
        self._abandon(task)
        raise Unavailable(DEPENDENCY, f"no answer within {self._patience_s:g} s", retry_after_s=1.0)

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        def forget(task: asyncio.Task[Any]) -> None:
            self._abandoned.discard(task)
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain

        self._abandoned.add(task)
        task.add_done_callback(forget)
        task.cancel()

    async def close(self) -> None:
        """Wait for connections in use, at most 3 s, then cut them off."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=3.0)
        except TimeoutError:
            self._pool.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_pool(dsn: str, size: int = 8, *, application: str = "leat", patience_s: float | None = None) -> Pool:
    """Connect. Connections beyond the first ones are opened when needed and closed after five idle minutes.

    ``patience_s``: reads outside a transaction give up after this long, for callers that somebody waits for.

    Raises:
        Unavailable: the server does not answer, or refuses us; the message says which.
    """
    with translated():
        pool = await asyncpg.create_pool(
            dsn,
            # Where somebody waits, connections are not opened in the middle of a rush, when that takes longest.
            min_size=1 if patience_s is None else max(1, size // 2),
            max_size=size,
            timeout=5.0,
            command_timeout=COMMAND_TIMEOUT_S,
            init=_prepare_connection,
            connection_class=_Connection,
            statement_cache_size=256,
            server_settings={
                "application_name": application,
                "statement_timeout": _milliseconds(STATEMENT_TIMEOUT_S),
                "lock_timeout": _milliseconds(LOCK_TIMEOUT_S),
                "idle_in_transaction_session_timeout": _milliseconds(IDLE_IN_TRANSACTION_TIMEOUT_S),
                "timezone": "UTC",
                # Our statements are short: compiling one costs more than running it.
                "jit": "off",
            },
        )
    return Pool(pool, patience_s=patience_s)


async def _prepare_connection(connection: Any) -> None:
    """Read and write jsonb as plain Python values. Binary, since COPY takes nothing else."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_jsonb_of, decoder=_value_of_jsonb
    )


# PostgreSQL's binary jsonb is a version byte, then text.
def _jsonb_of(value: Any) -> bytes:
    if isinstance(value, tuple) and all(type(part) is str for part in value):
        return _jsonb_of_path(value)  # a heading path, which neighbouring passages share
    return b"\x01" + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@lru_cache(maxsize=256)
def _jsonb_of_path(path: tuple[str, ...]) -> bytes:
    return _jsonb_of(list(path))


def _value_of_jsonb(raw: bytes) -> Any:
    return from_json(raw[1:])  # a fifth of the time of json.loads, twice for every passage of a search


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def affected(command_tag: str) -> int:
    """Rows touched, from a command tag such as ``INSERT 0 3`` or ``UPDATE 2``."""
    last = command_tag.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0
