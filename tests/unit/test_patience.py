"""How long a model is waited for."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from infra.generation.patience import OVERSLEPT_S, Patience
from streams.errors import TransientError, Unavailable


async def parts(*when: asyncio.Event) -> AsyncIterator[int]:
    for number, event in enumerate(when):
        await event.wait()
        yield number


async def followed(patience: Patience, *when: asyncio.Event) -> list[int]:
    deadline = patience.deadline()
    return [part async for part in patience.follow(parts(*when), server="model", deadline=deadline)]


def ready() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_what_comes_in_time_comes() -> None:
    assert await followed(Patience(5, 5, 5), ready(), ready()) == [0, 1]


async def test_a_model_without_a_first_word_is_not_there() -> None:
    with pytest.raises(Unavailable, match="no first token"):
        await followed(Patience(0.01, 5, 5), asyncio.Event())


async def test_a_model_that_stops_in_the_middle_has_failed() -> None:
    with pytest.raises(TransientError, match="in the middle"):
        await followed(Patience(5, 0.01, 5), ready(), asyncio.Event())


async def test_the_deadline_ends_a_wait_before_its_pause_does() -> None:
    with pytest.raises(TransientError):
        await followed(Patience(60, 60, 0.01), ready(), asyncio.Event())


@pytest.mark.parametrize("first", [True, False])
async def test_a_process_that_was_stopped_itself_looks_again(first: bool) -> None:
    """The word has come while we were away; our timer goes off before we have read it."""
    late = asyncio.Event()
    when = (late,) if first else (ready(), late)
    following = asyncio.create_task(followed(Patience(0.05, 0.05, 60), *when))
    await asyncio.sleep(0)
    time.sleep(OVERSLEPT_S + 0.2)  # noqa: ASYNC251 - as a stopped process, or one without a processor
    asyncio.get_running_loop().call_later(0.001, late.set)
    assert await following == list(range(len(when)))
