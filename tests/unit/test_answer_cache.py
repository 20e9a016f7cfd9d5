"""Who gets a remembered answer, and who does not (check D07)."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.access import AccessLevel, Principal
from schemas.answers import Answer, RetrievalOptions
from streams.answer_cache import Circumstances, digest, normalised, recall, remember
from streams.errors import Unavailable
from streams.model import EmbeddingModel, Freshness, Generation, GenerationState
from tests.fakes.conversations import InMemoryAnswerCache
from tests.fakes.edge import a_passage

MODEL = EmbeddingModel("hash", "hash-v1", 8, 256)
FRESH = Freshness("p1", 0.0)
SEED = 20260131


class Store:
    """Says whether the documents are unchanged."""

    def __init__(self) -> None:
        self.answer = True
        self.asked: list[object] = []

    async def unchanged(self, principal, generation_id, seen) -> bool:
        self.asked.append(seen)
        return self.answer


def a_generation(generation_id: int = 1, **changes) -> Generation:
    generation = Generation(
        generation_id=generation_id, tenant="t", collection="default", number=generation_id,
        state=GenerationState.SERVING, model=MODEL, chunk_tokens=256, chunk_overlap=50,
    )  # fmt: skip
    return replace(generation, **changes)


def asked(question: str = "How long?", **changes) -> Circumstances:
    given = Circumstances(
        question=question,
        principal=Principal(tenant="t", subject="ann", clearance=AccessLevel.INTERNAL, groups=("a", "b")),
        options=RetrievalOptions(),
        generation=a_generation(),
        writer="extractive",
        guardrails="g1",
    )
    return replace(given, **changes)


def an_answer(**changes) -> Answer:
    answer = Answer(
        query_id="q", request_id="r", query="How long?", answer="For 7 days [1].", answered=True,
        sources=(a_passage(),), took_ms=1.0, timestamp=datetime.now(UTC), position="p1",
    )  # fmt: skip
    return answer.model_copy(update=changes)


PRINCIPALS = {
    "tenant": ["t", "t/", "t2", ""],
    "clearance": list(AccessLevel),
    "groups": [(), ("a",), ("a", "b"), ("a,b",), ('a","b',), ("ab",), ("b",)],
    "every_group": [False, True],
}
OTHERS = {
    "question": ["How long?", "How", "How long?|internal", "", "t"],
    "writer": ["extractive", "ollama:llama3.1/512", "extractive/512"],
    "guardrails": ["g1", "g2"],
    "installation": ["", "i2"],
    "generation": [
        a_generation(), a_generation(2), a_generation(chunk_tokens=128),
        a_generation(model=EmbeddingModel("hash", "hash-v2", 8, 256)),
    ],
    "options": [
        RetrievalOptions(), RetrievalOptions(top_k=6), RetrievalOptions(filters={"a": "b"}),
        RetrievalOptions(filters={"a": ["b"]}), RetrievalOptions(collection="other"), RetrievalOptions(threshold=0.2),
    ],
}  # fmt: skip


def drawn(dice: random.Random) -> Circumstances:
    principal = Principal(subject=dice.choice("abc"), **{name: dice.choice(of) for name, of in PRINCIPALS.items()})
    return Circumstances(principal=principal, **{name: dice.choice(of) for name, of in OTHERS.items()})


def without_subject(one: Circumstances) -> Circumstances:
    return replace(one, principal=one.principal.model_copy(update={"subject": "-"}))


def test_5000_pairs_share_an_answer_only_if_nothing_that_decides_it_differs():
    dice = random.Random(SEED)
    same = 0
    for _ in range(5000):
        one = drawn(dice)
        # Differing in one thing, or in many, or in none but who asks.
        name = dice.choice([*PRINCIPALS, *OTHERS, "everything", "subject"])
        if name in PRINCIPALS:
            other = replace(one, principal=one.principal.model_copy(update={name: dice.choice(PRINCIPALS[name])}))
        elif name in OTHERS:
            other = replace(one, **{name: dice.choice(OTHERS[name])})
        elif name == "subject":
            other = replace(one, principal=one.principal.model_copy(update={"subject": "somebody else"}))
        else:
            other = drawn(dice)
        equal = without_subject(one) == without_subject(other)
        same += equal
        assert (one.key() == other.key()) == equal, f"seed {SEED}: {one} and {other}"
    assert same > 100


def test_the_parts_of_a_key_can_not_run_into_each_other():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", "") != digest("a")
    # The teeth: joined with a delimiter they would.
    assert "|".join(("a|b", "c")) == "|".join(("a", "b|c"))


@pytest.mark.parametrize("other", ["how  LONG?", " How long? ", "Ｈow long?"])
def test_spellings_of_a_question_share_an_answer(other):
    assert normalised(other) == normalised("How long?")
    assert asked(other).key() == asked().key()


def test_waiting_for_a_position_does_not_make_another_question():
    assert asked(options=RetrievalOptions(min_position="p", wait_ms=1)).key() == asked().key()


async def test_a_remembered_answer_comes_back_marked():
    cache, store = InMemoryAnswerCache(), Store()
    await remember(asked(), an_answer(), cache=cache)
    answer = await recall(asked(), FRESH, cache=cache, passages=store)
    assert answer.cached
    assert answer.answer == "For 7 days [1]."
    assert len(store.asked[0]) == 1


async def test_an_answer_whose_documents_have_changed_is_not_given_again():
    cache, store = InMemoryAnswerCache(), Store()
    await remember(asked(), an_answer(), cache=cache)
    store.answer = False
    assert await recall(asked(), FRESH, cache=cache, passages=store) is None


@pytest.mark.parametrize("changes", [{"degraded": True}, {"answered": False}, {"cached": True}])
async def test_what_may_soon_be_better_is_not_remembered(changes):
    cache = InMemoryAnswerCache()
    await remember(asked(), an_answer(**changes), cache=cache)
    assert cache.answers == {}


async def test_without_cache_or_store_there_is_no_remembered_answer():
    class Away(InMemoryAnswerCache):
        async def get(self, key: str) -> None:
            raise Unavailable("Redis", "down")

    assert await recall(asked(), FRESH, cache=Away(), passages=Store()) is None


async def test_a_remembered_answer_says_how_old_its_view_is():
    cache, store = InMemoryAnswerCache(), Store()
    made_at = datetime.now(UTC) - timedelta(seconds=10)
    await remember(asked(), an_answer(timestamp=made_at), cache=cache)
    level = await recall(asked(), FRESH, cache=cache, passages=store)
    assert level.behind_ms == 0
    newer = await recall(asked(), Freshness("p2", 5.0), cache=cache, passages=store)
    assert 10_000 <= newer.behind_ms < 12_000
    assert newer.position == "p1"
