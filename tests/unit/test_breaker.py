"""The circuit breaker as a state machine, on a clock of our own."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from infra.breaker import CircuitBreaker, CircuitState, circuits
from streams.errors import CircuitOpen, PermanentError, TransientError, Unavailable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Ignored(Unavailable):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("ollama", clock=clock, ignored=(Ignored,))


def fail(breaker: CircuitBreaker, error: BaseException | None = None, times: int = 1) -> None:
    error = error or TransientError("no")
    for _ in range(times):
        with pytest.raises(type(error)), breaker.attempt():
            raise error


def break_after_the_first_token(breaker: CircuitBreaker) -> None:
    with breaker.attempt() as attempt:
        attempt.answered()
        assert breaker.state is CircuitState.CLOSED
        raise TransientError("cut")


def test_five_failures_in_a_row_open_the_circuit(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    assert breaker.state is CircuitState.CLOSED
    fail(breaker, Unavailable("ollama", "gone"))
    assert breaker.state is CircuitState.OPEN


def test_a_success_forgets_the_failures_before_it(breaker: CircuitBreaker) -> None:
    fail(breaker, times=4)
    with breaker.attempt():
        pass
    fail(breaker, times=4)
    assert breaker.state is CircuitState.CLOSED


def test_refused_requests_cancellations_and_ignored_errors_do_not_count(breaker: CircuitBreaker) -> None:
    for error in (PermanentError("model-refused", "400"), asyncio.CancelledError(), Ignored("ollama", "no model")):
        fail(breaker, error, times=10)
    assert breaker.state is CircuitState.CLOSED


def test_an_open_circuit_refuses_without_asking_and_says_for_how_long(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=5)
    clock.now = 12.0
    with pytest.raises(Unavailable) as refused, breaker.attempt():
        pytest.fail("the dependency was asked")
    assert refused.value.retry_after_s == pytest.approx(18.0)


def test_after_the_pause_exactly_one_probe_passes(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    with breaker.attempt():
        assert breaker.state is CircuitState.HALF_OPEN
        with pytest.raises(Unavailable), breaker.attempt():
            pytest.fail("a second probe")
    assert breaker.state is CircuitState.CLOSED


def test_of_a_hundred_waiters_one_is_the_probe(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    asked = []

    async def call(number: int) -> None:
        with breaker.attempt():
            asked.append(number)
            await asyncio.sleep(0)

    async def all_at_once() -> list[BaseException | None]:
        return await asyncio.gather(*(call(number) for number in range(100)), return_exceptions=True)

    refused = [error for error in asyncio.run(all_at_once()) if isinstance(error, CircuitOpen)]
    assert (len(asked), len(refused)) == (1, 99)


def test_a_probe_that_hangs_opens_the_circuit_again(clock: Clock) -> None:
    breaker = CircuitBreaker("ollama", clock=clock, probe_s=10.0)
    fail(breaker, times=5)
    clock.now = 30.0
    with breaker.attempt():
        clock.now = 40.0
        with pytest.raises(CircuitOpen) as refused, breaker.attempt():
            pytest.fail("asked although the probe hangs")
        assert refused.value.retry_after_s == pytest.approx(30.0)
        assert breaker.state is CircuitState.OPEN
    # What the probe says in the end is no news.
    assert breaker.state is CircuitState.OPEN
    clock.now = 70.0
    with breaker.attempt():
        pass
    assert breaker.state is CircuitState.CLOSED


def test_the_state_is_a_metric_and_listed_per_dependency(clock: Clock) -> None:
    breaker, other = (CircuitBreaker(name, clock=clock) for name in ("a-server", "another"))
    second = CircuitBreaker("a-server", clock=clock)
    fail(breaker, times=5)
    listed = circuits()
    assert (listed["a-server"], listed["another"]) == (CircuitState.OPEN, CircuitState.CLOSED)
    assert REGISTRY.get_sample_value("leat_circuit_state", {"dependency": "a-server"}) == 2
    assert REGISTRY.get_sample_value("leat_circuit_opened_total", {"dependency": "a-server"}) == 1
    assert second.state is other.state is CircuitState.CLOSED


def test_a_failed_probe_opens_the_circuit_for_another_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    fail(breaker)
    clock.now = 59.0
    with pytest.raises(Unavailable), breaker.attempt():
        pytest.fail("asked too early")
    clock.now = 60.0
    with breaker.attempt():
        pass
    assert breaker.state is CircuitState.CLOSED


def test_a_cancelled_probe_leaves_its_place_to_the_next_call(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    fail(breaker, asyncio.CancelledError())
    with breaker.attempt():
        pass
    assert breaker.state is CircuitState.CLOSED


def test_a_probe_that_is_refused_as_a_request_proves_that_the_dependency_lives(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    fail(breaker, Ignored("ollama", "no model"))
    assert breaker.state is CircuitState.CLOSED


def test_a_stream_closes_the_circuit_with_its_first_token_and_still_counts_when_it_breaks(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=5)
    clock.now = 30.0
    with pytest.raises(TransientError):
        break_after_the_first_token(breaker)
    fail(breaker, times=3)
    assert breaker.state is CircuitState.CLOSED
    fail(breaker)
    assert breaker.state is CircuitState.OPEN


def test_what_a_call_from_before_the_pause_says_is_no_news(breaker: CircuitBreaker, clock: Clock) -> None:
    slow = breaker.attempt()
    slow.__enter__()
    fail(breaker, times=5)
    clock.now = 30.0
    with breaker.attempt():
        assert slow.__exit__(TransientError, TransientError("late"), None) is not True
        assert breaker.state is CircuitState.HALF_OPEN
    assert breaker.state is CircuitState.CLOSED
