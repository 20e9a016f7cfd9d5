"""Retries stay within their budget, are few, and do not come all at once."""

import random
from collections import Counter

import pytest

from streams import retrying
from streams.errors import CircuitOpen, PermanentError, TransientError, Unavailable
from streams.retrying import MAX_ATTEMPTS, RetryBudget, pause_s, persistently


class Dependency:
    """Fails the calls that it is told to, and counts them."""

    def __init__(self, fails: float = 1.0, error: Exception | None = None) -> None:
        self.calls = 0
        self._fails, self._error = fails, error or Unavailable("index", "away")
        self._random = random.Random(7)

    async def call(self) -> str:
        self.calls += 1
        if self._random.random() < self._fails:
            raise self._error
        return "answer"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSE_S", (0.0001, 0.001))


async def ask(dependency: Dependency, times: int, budget: RetryBudget) -> int:
    answered = 0
    for _ in range(times):
        try:
            await persistently(dependency.call, budget=budget)
            answered += 1
        except (Unavailable, TransientError):
            pass
    return answered


async def test_a_dependency_that_fails_every_call_is_called_a_fifth_more_and_three_times() -> None:
    dependency = Dependency()
    assert await ask(dependency, 1000, RetryBudget()) == 0
    assert dependency.calls <= 1.2 * 1000 + 3


async def test_without_a_budget_it_would_be_flooded() -> None:
    dependency = Dependency()
    await ask(dependency, 1000, RetryBudget(share=10.0, saved=1e6, most=1e6))
    assert dependency.calls == MAX_ATTEMPTS * 1000


async def test_one_failure_in_ten_costs_less_than_one_answer_in_a_hundred() -> None:
    dependency = Dependency(fails=0.1)
    assert await ask(dependency, 2000, RetryBudget()) >= 0.99 * 2000
    assert dependency.calls <= 1.2 * 2000 + 3


async def test_one_call_has_three_attempts_at_most() -> None:
    dependency = Dependency()
    assert await ask(dependency, 1, RetryBudget(saved=3.0)) == 0
    assert dependency.calls == MAX_ATTEMPTS


async def test_what_can_never_succeed_is_tried_once() -> None:
    dependency = Dependency(error=PermanentError("no", "never"))
    with pytest.raises(PermanentError):
        await persistently(dependency.call, budget=RetryBudget())
    assert dependency.calls == 1


async def test_an_open_circuit_is_not_waited_for_longer_than_somebody_waits() -> None:
    dependency = Dependency(error=CircuitOpen("ollama", "resting", retry_after_s=30.0))
    with pytest.raises(CircuitOpen):
        await persistently(dependency.call, budget=RetryBudget(), patience_s=5.0)
    assert dependency.calls == 1


async def test_with_nobody_waiting_it_goes_on_until_the_dependency_is_back() -> None:
    dependency = Dependency(fails=0.9)
    budget = RetryBudget(saved=0.0, share=0.0)
    assert await persistently(dependency.call, budget=budget, somebody_waits=False) == "answer"
    assert dependency.calls > MAX_ATTEMPTS


def test_pauses_grow_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "PAUSE_S", (0.4, 5.0))
    pauses = [pause_s(1) for _ in range(2000)]
    assert 0.2 <= min(pauses) < max(pauses) <= 0.4
    buckets = Counter(int(pause * 50) for pause in pauses)
    assert max(buckets.values()) <= 3 * 2000 / len(buckets)
    assert pause_s(2) >= 0.6 > 0.4
    assert pause_s(9) <= 5.0
