"""Redis' errors in our words."""

import contextlib
from collections.abc import Iterator

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streams.errors import Unavailable


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises ``Unavailable`` for a Redis that is away, full or loading. What is left is a bug of ours."""
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError) as error:
        raise Unavailable("redis", str(error) or type(error).__name__, retry_after_s=2.0) from error
    except RedisError as error:
        if isinstance(error, ResponseError) and str(error).startswith(
            ("LOADING", "READONLY", "OOM", "MASTERDOWN", "MISCONF")
        ):
            raise Unavailable("redis", str(error), retry_after_s=2.0) from error
        raise
    except RuntimeError as error:
        # uvloop's word for writing to a socket that was reset, where asyncio says ConnectionResetError.
        if "handler is closed" not in str(error):
            raise
        raise Unavailable("redis", "connection reset", retry_after_s=2.0) from error
