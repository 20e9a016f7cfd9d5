"""The answer stream on a real Redis: fenced writing, resumption at every cut, one connection for many readers."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from infra import redis_hub, redis_streams
from infra.redis_streams import YIELD_EVERY, RedisAnswerStream
from streams.cancelling import cancelled
from streams.errors import StaleAttempt, StreamLost
from tests.pipeline import eventually

ODD_TOKENS = ["a\rb", "a\nb", "a\r\nb", "nul\x00", "\u2028\u2029", "🦊👩‍👩‍👧", "data: x", "id: 7\n\n", "", "é" * 300]


@pytest.fixture
async def redis(services) -> AsyncIterator[Redis]:
    client = Redis.from_url(services.redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def stream(redis) -> AsyncIterator[RedisAnswerStream]:
    stream = RedisAnswerStream(redis)
    yield stream
    await stream.close()


def a_question_id() -> str:
    return f"q-{secrets.token_hex(6)}"


def tokens(count: int) -> list[tuple[str, str]]:
    return [("token", json.dumps({"text": f"{n} "})) for n in range(count)]


async def collect(stream: RedisAnswerStream, question_id: str, after: str | None = None) -> list[tuple[str, str, str]]:
    async with asyncio.timeout(60):
        return [entry async for entry in stream.read(question_id, after=after)]


async def test_events_arrive_in_order_and_byte_exact(stream):
    question_id = a_question_id()
    events = [("token", json.dumps({"text": text})) for text in ODD_TOKENS] + [("done", "{}")]
    attempt = await stream.begin(question_id, "worker-a")
    await stream.append(question_id, attempt, 1, events)

    received = await collect(stream, question_id)

    assert [(event, data) for _, event, data in received] == events
    assert [json.loads(data)["text"] for _, event, data in received if event == "token"] == ODD_TOKENS
    assert [event_id for event_id, _, _ in received] == [f"1-{n}" for n in range(1, len(events) + 1)]


async def test_a_reader_follows_what_is_written_later(stream):
    question_id = a_question_id()
    reader = asyncio.create_task(collect(stream, question_id))
    attempt = await stream.begin(question_id, "worker-a")
    for seq, event in enumerate([*tokens(50), ("done", "{}")], start=1):
        await stream.append(question_id, attempt, seq, [event])
    assert len(await reader) == 51


async def test_resuming_at_every_cut_loses_and_repeats_nothing(services, stream, redis):
    question_id = a_question_id()
    events = [*tokens(199), ("done", "{}")]
    await stream.append(question_id, await stream.begin(question_id, "worker-a"), 1, events)
    whole = await collect(stream, question_id)
    other_process = RedisAnswerStream(redis)
    for cut in range(len(whole) + 1):
        after = whole[cut - 1][0] if cut else None
        assert whole[:cut] + await collect(other_process, question_id, after) == whole
    await other_process.close()


async def test_a_worker_that_was_taken_over_can_not_write_any_more(stream):
    question_id = a_question_id()
    first = await stream.begin(question_id, "worker-a")
    await stream.append(question_id, first, 1, tokens(3))
    second = await stream.begin(question_id, "worker-b")
    with pytest.raises(StaleAttempt):
        await stream.append(question_id, first, 4, tokens(1))
    await stream.append(question_id, second, 1, [*tokens(2), ("done", "{}")])

    received = await collect(stream, question_id)
    assert [event_id for event_id, _, _ in received] == ["1-1", "1-2", "1-3", "2-0", "2-1", "2-2", "2-3"]
    assert received[3][1] == "restart"
    assert json.loads(received[3][2]) == {"reason": "worker-lost", "attempt": 2}


async def test_appending_twice_is_appending_once(stream):
    question_id = a_question_id()
    attempt = await stream.begin(question_id, "worker-a")
    await stream.append(question_id, attempt, 1, tokens(3))
    await stream.append(question_id, attempt, 2, [*tokens(4), ("done", "{}")])
    assert [event_id for event_id, _, _ in await collect(stream, question_id)] == [f"1-{n}" for n in range(1, 7)]


async def test_a_reader_that_has_seen_the_end_gets_nothing_more(stream):
    question_id = a_question_id()
    await stream.append(question_id, await stream.begin(question_id, "w"), 1, [*tokens(1), ("done", "{}")])
    assert await collect(stream, question_id, "1-2") == []


async def test_a_hole_is_never_skipped_silently(stream, redis):
    question_id = a_question_id()
    attempt = await stream.begin(question_id, "w")
    await stream.append(question_id, attempt, 1, [*tokens(10), ("done", "{}")])
    await redis.xdel(f"answer:{question_id}", "1-5")
    with pytest.raises(StreamLost):
        await collect(stream, question_id, "1-3")
    await redis.delete(f"answer:{question_id}")
    with pytest.raises(StreamLost):
        await collect(stream, question_id, "1-3")


@pytest.mark.parametrize("after", ["x", "1", "1-", "-1", "1-2-3", "٣-١", "9" * 30 + "-1"])
async def test_an_id_that_is_none_is_refused(stream, after):
    with pytest.raises(ValueError, match="not an event id"):
        await collect(stream, a_question_id(), after)


async def test_many_readers_share_one_connection(services):
    name = f"t{secrets.token_hex(4)}"
    redis = Redis.from_url(services.redis_url, client_name=name)
    stream = RedisAnswerStream(redis)
    questions = [a_question_id() for _ in range(60)]
    readers = [asyncio.create_task(collect(stream, question)) for question in questions for _ in range(3)]
    for question in questions:
        await eventually(lambda question=question: stream.attended(question))  # type: ignore[misc]

    async def write(question: str) -> None:
        attempt = await stream.begin(question, "w")
        for seq, event in enumerate([*tokens(20), ("done", "{}")], start=1):
            await stream.append(question, attempt, seq, [event])

    await asyncio.gather(*(write(question) for question in questions))
    received = await asyncio.gather(*readers)
    assert all(len(events) == 21 for events in received)
    connections = [c for c in await redis.client_list() if c["name"] == name]
    assert len(connections) <= 8
    await stream.close()
    await redis.aclose()


async def test_a_new_stream_is_followed_at_once_while_others_are_idle(services, monkeypatch):
    """Not when the wait for the streams that are followed already comes to its end, which is made a minute here."""
    monkeypatch.setattr(redis_hub, "BLOCK_MS", 60_000)
    name = f"t{secrets.token_hex(4)}"
    redis = Redis.from_url(services.redis_url, client_name=name, socket_timeout=90)
    stream = RedisAnswerStream(redis)
    idle = asyncio.create_task(collect(stream, a_question_id()))

    async def waits() -> bool:
        return any(c["name"] == name and c["cmd"] == "xread" and "b" in c["flags"] for c in await redis.client_list())

    await eventually(waits)
    question_id = a_question_id()
    attempt = await stream.begin(question_id, "w")
    await stream.append(question_id, attempt, 1, tokens(1))
    async with asyncio.timeout(20):
        reader = stream.read(question_id, after=None)
        assert (await anext(reader))[0] == "1-1"  # it has read what there was, and follows from here on
        await stream.append(question_id, attempt, 2, [("done", "{}")])
        assert [event_id async for event_id, _, _ in reader] == ["1-2"]
    idle.cancel()
    await asyncio.gather(idle, return_exceptions=True)
    await stream.close()
    await redis.aclose()


async def test_a_long_replay_leaves_the_event_loop_to_others(stream, monkeypatch):
    question_id = a_question_id()
    attempt = await stream.begin(question_id, "w")
    for start in range(0, 15_000, 1000):
        await stream.append(question_id, attempt, start + 1, tokens(1000))
    await stream.append(question_id, attempt, 15_001, [("done", "{}")])

    assert await most_events_between_turns(stream, question_id) <= YIELD_EVERY
    # Teeth: a replay that yields nowhere but at its own reads keeps the loop for longer.
    monkeypatch.setattr(redis_streams, "YIELD_EVERY", 10**9)
    assert await most_events_between_turns(stream, question_id) > YIELD_EVERY


async def most_events_between_turns(stream: RedisAnswerStream, question_id: str) -> int:
    """How many events a replay hands out, at most, until another task of the loop has its turn."""
    since = most = 0

    async def another() -> None:
        nonlocal since
        while True:
            since = 0
            await asyncio.sleep(0)

    other = asyncio.create_task(another())
    count = 0
    async for _ in stream.read(question_id, after=None):
        count, since = count + 1, since + 1
        most = max(most, since)
    other.cancel()
    assert count == 15_001
    return most


async def test_readers_count_as_present_while_they_read(stream):
    question_id = a_question_id()
    assert not await stream.attended(question_id)
    reader = stream.read(question_id, after=None)
    waiting = asyncio.ensure_future(anext(reader))
    async with asyncio.timeout(30):
        while not await stream.attended(question_id):
            await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await reader.aclose()
    async with asyncio.timeout(30):
        while await stream.attended(question_id):
            await asyncio.sleep(0.01)


async def test_a_stop_is_seen_by_the_worker(stream):
    question_id = a_question_id()
    assert not await stream.stop_requested(question_id)
    await stream.stop(question_id)
    assert await stream.stop_requested(question_id)


async def test_connections_that_redis_drops_are_made_again_without_a_hole(stream, redis):
    question_id = a_question_id()
    reader = asyncio.create_task(collect(stream, question_id))
    attempt = await stream.begin(question_id, "w")
    for seq in range(1, 41):
        await stream.append(question_id, attempt, seq, tokens(1))
        if seq % 10 == 0:
            await redis.client_kill_filter(_type="normal", skipme=True)
    await stream.append(question_id, attempt, 41, [("done", "{}")])
    assert [event_id for event_id, _, _ in await reader] == [f"1-{n}" for n in range(1, 42)]


async def test_a_reader_that_hangs_up_while_it_arrives_is_counted_out(stream):
    """Wherever it is by then; else the model would work on for nobody."""
    questions = [a_question_id() for _ in range(40)]
    for turns, question_id in enumerate(questions):
        arriving = asyncio.ensure_future(anext(stream.read(question_id, after=None)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancelled(arriving)

    async def deserted() -> bool:
        return not any([await stream.attended(question_id) for question_id in questions])

    await eventually(deserted, within_s=40)
