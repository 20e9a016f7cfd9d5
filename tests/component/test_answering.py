"""One question from the log to its end, on fakes: streamed, stored, stopped, taken over, failed."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from consumers.answerer import Answerer, Unfinished
from infra.guardrails import load_guardrails
from schemas.access import AccessLevel, Principal
from schemas.answers import AnswerCompleted, AnswerFailed, QuestionAsked, RetrievalOptions
from streams import retrying, work_out
from streams.answering import Answering
from streams.errors import PermanentError, StaleAttempt, Unavailable
from streams.guardrails import Guardrail, Guardrails, Mode, Place
from streams.records import Record
from streams.respond import respond
from streams.retrieve import Retrieval
from tests.fakes.conversations import InMemoryAnswerCache, InMemoryConversationStore
from tests.fakes.edge import FakeEmbedders, FakeSparse, a_passage, an_answer
from tests.fakes.index import InMemoryIndex
from tests.fakes.stores import InMemoryAnswerStore, InMemoryCatalog, InMemoryPassageStore, World
from tests.fakes.streams import InMemoryAnswerStream

ASKER = Principal(subject="someone")
PIECES = ("Records ", "are kept ", "for 7 days [1].")
# Half an hour of pieces at the pace below: an answer that ends was ended, and ends as "timeout" at its deadline.
ENDLESS = ("x ",) * 100_000


class Script:
    """A composition that yields given pieces, and may wait or break."""

    def __init__(self, pieces=PIECES, *, pause_s: float = 0.0, error: Exception | None = None) -> None:
        self.text, self.answered, self.confidence = "", True, 0.8
        self.quotes = {1: "kept for 7 days"}
        self.guardrails_triggered, self.degraded, self.degraded_reason, self.incomplete = (), False, None, False
        self.generator = "script"
        self.pieces, self.pause_s, self.error = pieces, pause_s, error
        self.closed = False

    async def _pieces(self) -> AsyncIterator[str]:
        try:
            for piece in self.pieces:
                await asyncio.sleep(self.pause_s)
                self.text += piece
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces()


@pytest.fixture
def script(monkeypatch) -> Script:
    """What retrieval and composition come to; turn it before asking."""
    script = Script()

    async def retrieve(*_: object, **__: object) -> Retrieval:
        return Retrieval(passages=(a_passage(1), a_passage(2)), generation=1)

    monkeypatch.setattr(work_out, "retrieve", retrieve)
    monkeypatch.setattr(work_out, "compose", lambda *_, **__: script)
    return script


@pytest.fixture
def tools() -> Answering:
    world = World()
    return Answering(
        catalog=InMemoryCatalog(world),
        embedders=FakeEmbedders(),
        sparse=FakeSparse(),
        index=InMemoryIndex(),
        passages=InMemoryPassageStore(world),
        answers=InMemoryAnswerStore(),
        stream=InMemoryAnswerStream(),
        generator=None,
        worker="worker-a",
        grace_s=30.0,
    )


def a_question(question_id: str = "q1", *, within_s: float = 30, **changes) -> QuestionAsked:
    now = datetime.now(UTC)
    question = QuestionAsked(
        question_id=question_id,
        request_id="r1",
        query="How long?",
        principal=ASKER,
        asked_at=now,
        deadline_at=now + timedelta(seconds=within_s),
    )
    return question.model_copy(update=changes)


def events(tools: Answering, question_id: str = "q1") -> list[tuple[str, dict]]:
    return [(name, json.loads(data)) for _, name, data in tools.stream.entries[question_id]]


async def first_token(tools: Answering, question_id: str = "q1") -> None:
    async with asyncio.timeout(60):
        while "token" not in [name for name, _ in events(tools, question_id)]:
            await asyncio.sleep(0.01)


async def test_tokens_together_are_the_stored_answer(script, tools):
    event = await respond(a_question(), tools=tools)
    assert isinstance(event, AnswerCompleted)
    seen = events(tools)
    assert [name for name, _ in seen][:2] == ["meta", "sources"]
    assert "".join(data["text"] for name, data in seen if name == "token") == event.answer.answer
    assert seen[-1] == ("done", json.loads(event.answer.model_dump_json()))
    stored = await tools.answers.find(ASKER, "q1")
    assert stored.answer == event.answer
    assert [source.quote for source in event.answer.sources] == ["kept for 7 days", None]


async def test_a_redelivered_question_is_not_answered_twice(script, tools):
    first = await respond(a_question(), tools=tools)
    script.pieces = ("something else",)
    second = await respond(a_question(), tools=tools)
    assert second.answer == first.answer
    names = [name for name, _ in events(tools)]
    assert names.count("done") == 2
    assert "restart" in names


async def test_an_expired_question_fails_without_work(script, tools):
    event = await respond(a_question(within_s=-1), tools=tools)
    assert isinstance(event, AnswerFailed)
    assert event.reason == "expired"
    assert events(tools)[-1][0] == "failed"
    assert (await tools.answers.find(ASKER, "q1")).state == "failed"


async def test_the_deadline_ends_an_answer_and_the_model(script, tools):
    script.pause_s = 600
    event = await respond(a_question(within_s=1), tools=tools)
    assert event.reason == "timeout"
    assert script.closed


async def test_a_stop_ends_the_model_long_before_the_answer_does(script, tools):
    script.pieces, script.pause_s = ENDLESS, 0.02
    answering = asyncio.create_task(respond(a_question(background=True), tools=tools))
    await first_token(tools)
    await tools.stream.stop("q1")
    event = await answering
    assert event.reason == "stopped"
    assert script.closed
    assert events(tools)[-1] == ("failed", {"reason": "stopped", "detail": event.detail, "retryable": False})


async def test_an_answer_that_nobody_reads_is_given_up_after_the_grace_time(script, tools):
    script.pieces, script.pause_s = ENDLESS, 0.02
    event = await respond(a_question(), tools=replace(tools, grace_s=0))
    assert event.reason == "abandoned"


async def test_an_answer_in_the_background_needs_no_reader(script, tools):
    script.pieces, script.pause_s = ("x ",) * 15, 0.1
    event = await respond(a_question(background=True), tools=replace(tools, grace_s=0))
    assert isinstance(event, AnswerCompleted)


async def test_a_worker_that_was_taken_over_stops(script, tools):
    script.pieces, script.pause_s = ENDLESS, 0.02
    answering = asyncio.create_task(respond(a_question(background=True), tools=tools))
    await first_token(tools)
    await tools.stream.begin("q1", "worker-b")
    with pytest.raises(StaleAttempt):
        await answering
    assert script.closed
    assert await tools.answers.find(ASKER, "q1") is None


async def test_a_cancellation_that_a_client_turns_into_an_outage_leaves_no_answer_without_an_end(script, tools):
    """As Redis' client does now and then: the look for a wish to stop would go on for ever, and hold its answer."""
    looking, swallowed = asyncio.Event(), 0

    async def stop_requested(question_id):
        nonlocal swallowed
        looking.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed += 1
            if swallowed > 1:
                raise
            raise Unavailable("redis", "Connection closed by server") from None

    script.pieces, script.pause_s = ("x ",) * 20, 0.05
    tools.stream.stop_requested = stop_requested
    async with asyncio.timeout(10):
        event = await respond(a_question(background=True), tools=tools)
    assert looking.is_set()
    assert swallowed
    assert isinstance(event, AnswerCompleted)
    assert events(tools)[-1][0] == "done"


async def test_an_answer_that_was_stored_by_a_sleeper_meanwhile_is_the_one_that_is_given(script, tools):
    """The stream ends with what is stored, and is told to begin again before it."""
    question = a_question(background=True)
    await tools.stream.begin("q1", "a worker that sleeps")
    script.pause_s = 0.05
    answering = asyncio.create_task(respond(question, tools=tools))
    async with asyncio.timeout(5):
        while not any(name == "token" for name, _ in events(tools)):
            await asyncio.sleep(0.01)
    await tools.answers.save(question, an_answer(question, "The sleeper's words."), 1)
    event = await answering
    assert event.answer.answer == "The sleeper's words."
    names = [name for name, _ in events(tools)]
    behind = events(tools)[len(names) - 1 - names[::-1].index("restart") :]
    assert "".join(data["text"] for name, data in behind if name == "token") == "The sleeper's words."
    assert behind[-1][1]["answer"] == "The sleeper's words."


async def test_whoever_was_taken_over_at_the_very_end_announces_nothing(script, tools):
    """Its end is refused by the stream; the worker that has the question now tells everybody."""
    append = tools.stream.append

    async def append_unless_it_is_the_end(question_id, attempt, seq, written):
        if any(name == "done" for name, _ in written):
            await tools.stream.begin(question_id, "worker-b")
        await append(question_id, attempt, seq, written)

    tools.stream.append = append_unless_it_is_the_end
    with pytest.raises(StaleAttempt):
        await respond(a_question(), tools=tools)


async def test_without_redis_the_answer_is_still_stored(script, tools):
    tools.stream.down = True
    event = await respond(a_question(), tools=tools)
    assert isinstance(event, AnswerCompleted)
    assert (await tools.answers.find(ASKER, "q1")).answer == event.answer


async def test_a_stream_that_comes_back_gets_every_event_once(script, tools):
    script.pieces, script.pause_s = tuple(f"{n} " for n in range(50)), 0.01
    answering = asyncio.create_task(respond(a_question(background=True), tools=tools))
    for _ in range(3):
        await asyncio.sleep(0.05)
        tools.stream.down = True
        await asyncio.sleep(0.1)
        tools.stream.down = False
    event = await answering
    assert "".join(data["text"] for name, data in events(tools) if name == "token") == event.answer.answer
    assert [entry[0][1] for entry in tools.stream.entries["q1"]] == list(range(1, len(events(tools)) + 1))


async def test_an_index_that_stays_away_fails_the_question_as_retryable(script, tools, monkeypatch):
    async def away(*_: object, **__: object) -> Retrieval:
        raise Unavailable("index", "down")

    monkeypatch.setattr(work_out, "retrieve", away)
    monkeypatch.setattr(retrying, "PAUSE_S", (0.01, 0.1))
    event = await respond(a_question(), tools=tools)
    assert event.reason == "unavailable"
    assert events(tools)[-1][1]["retryable"] is True


async def test_an_unknown_collection_fails_the_question(script, tools):
    question = a_question(options=RetrievalOptions(collection="nowhere"))
    assert (await respond(question, tools=tools)).reason == "not-found"


async def test_a_permanent_error_fails_the_question_with_its_reason(script, tools):
    script.error = PermanentError("bad-prompt", "no")
    assert (await respond(a_question(), tools=tools)).reason == "bad-prompt"


async def test_a_question_that_kills_its_workers_is_given_up(script, tools):
    tools.stream.attempts["q1"] = 5
    assert (await respond(a_question(), tools=tools)).reason == "crashed-the-worker"


# Conversations, guardrails, remembered answers


def with_everything(tools: Answering, **changes) -> Answering:
    world = World()
    given = {
        "conversations": InMemoryConversationStore(world, tools.answers),
        "cache": InMemoryAnswerCache(),
        "passages": AlwaysUnchanged(world),
        "guardrails": load_guardrails(None),
        "generator": None,
    }
    return replace(tools, **(given | changes))


class AlwaysUnchanged(InMemoryPassageStore):
    changed = False

    async def unchanged(self, *_: object) -> bool:
        return not self.changed


async def test_a_follow_up_is_searched_for_with_the_earlier_subject(script, tools, monkeypatch):
    tools, searched = with_everything(tools, cache=None), []

    async def retrieve(query: str, *_: object, **__: object) -> Retrieval:
        searched.append(query)
        return Retrieval(passages=(a_passage(1),), generation=1)

    monkeypatch.setattr(work_out, "retrieve", retrieve)
    for number, query in enumerate(("When does the lynx station open?", "When does it close?")):
        event = await respond(a_question(f"q{number}", query=query, conversation_id="c"), tools=tools)
    assert searched == ["When does the lynx station open?", "When does it close? (lynx station)"]
    assert event.answer.standalone_query == searched[1]
    assert event.answer.query == "When does it close?"
    alone = await respond(a_question("q9", query="When does it close?", conversation_id="d"), tools=tools)
    assert alone.answer.standalone_query is None
    turns = await tools.conversations.turns(Principal(subject="someone"), "c")
    assert [turn.query for turn in turns] == ["When does the lynx station open?", "When does it close?"]


async def test_a_turn_that_was_lost_with_its_worker_is_kept_at_the_redelivery(script, tools):
    first = await respond(a_question(conversation_id="c"), tools=tools)
    tools = with_everything(tools)
    await respond(a_question(conversation_id="c"), tools=tools)
    [turn] = await tools.conversations.turns(Principal(subject="someone"), "c")
    assert turn.answer is None or turn.answer == first.answer.answer


async def test_the_same_question_is_answered_from_memory_for_the_same_rights_only(script, tools):
    tools = with_everything(tools)
    first = await respond(a_question("q1"), tools=tools)
    script.pieces = ("something new [1].",)
    again = await respond(a_question("q2", query="  how LONG? "), tools=tools)
    assert again.answer.cached
    assert not first.answer.cached
    assert (again.answer.answer, again.answer.query) == (first.answer.answer, "  how LONG? ")
    assert (again.answer.query_id, again.answer.sources) == ("q2", first.answer.sources)
    assert [name for name, _ in events(tools, "q2")] == ["meta", "sources", "token", "done"]
    somebody = a_question("q3", principal=Principal(subject="x", clearance=AccessLevel.INTERNAL))
    assert not (await respond(somebody, tools=tools)).answer.cached
    waited = a_question("q4", options=RetrievalOptions(min_position="p"))
    assert not (await respond(waited, tools=tools)).answer.cached


async def test_an_answer_is_forgotten_when_a_document_behind_it_changes(script, tools):
    tools = with_everything(tools)
    await respond(a_question("q1"), tools=tools)
    tools.passages.changed = True
    script.pieces, script.text = ("something new [1].",), ""
    event = await respond(a_question("q2"), tools=tools)
    assert not event.answer.cached
    assert event.answer.answer == "something new [1]."


async def test_a_degraded_answer_is_not_remembered(script, tools):
    tools = with_everything(tools)
    script.degraded = True
    await respond(a_question("q1"), tools=tools)
    assert not (await respond(a_question("q2"), tools=tools)).answer.cached


async def test_an_enforced_guardrail_refuses_the_question_before_any_search(script, tools, monkeypatch):
    monkeypatch.setattr(work_out, "retrieve", None)
    counted: list[str] = []
    no_secrets = Guardrail("secrets", Mode.ENFORCE, frozenset({Place.QUESTION}), lambda text: [(0, 1)])
    tools = with_everything(tools, guardrails=Guardrails((no_secrets,)), on_guardrail=counted.append)
    event = await respond(a_question(), tools=tools)
    assert isinstance(event, AnswerCompleted)
    assert not event.answer.answered
    assert "secrets" in event.answer.answer
    assert event.answer.guardrails_triggered == ("secrets-in-question",) == tuple(counted)
    assert "".join(data["text"] for name, data in events(tools) if name == "token") == event.answer.answer


async def test_a_reporting_guardrail_changes_nothing_but_the_report(script, tools):
    script.guardrails_triggered = ("output-link",)
    script.pieces = ("Write to ", "a.b@exam", "ple.org [1].")
    tools = with_everything(tools)
    event = await respond(a_question(query="Who is x.y@example.org?"), tools=tools)
    assert event.answer.answer == "Write to a.b@example.org [1]."
    assert event.answer.guardrails_triggered == (
        "personal-data-in-question",
        "output-link",
        "personal-data-in-answer",
    )


# The consumer


class FakeOutbox:
    def __init__(self) -> None:
        self.published: list[object] = []
        self.down = 0

    def sending(self):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.down:
            self.down -= 1
            raise Unavailable("kafka", "down")

    async def event(self, topic, event, *, key: bytes) -> None:
        if not self.down:
            self.published.append(event)


def a_record(offset: int, value: bytes | None = None) -> Record:
    question = a_question(f"q{offset}", background=True)
    return Record(
        topic="leat.questions.v1",
        partition=0,
        offset=offset,
        accepted_at=datetime.now(UTC),
        key=question.question_id.encode(),
        value=question.model_dump_json().encode() if value is None else value,
    )


async def test_offsets_wait_for_the_slowest_answer(script, tools):
    script.pause_s = 0.1
    answerer = Answerer(tools, outbox=FakeOutbox())
    first = await answerer.on_questions_asked([a_record(7), a_record(8)])
    assert first.holding == {0: 7}
    second = await answerer.on_questions_asked([a_record(9)])
    assert second.holding == {0: 7}
    assert (await first.later)[0] >= 9
    assert await second.later == {0: 10}


async def test_a_record_that_is_no_question_fails_alone(script, tools):
    outbox = FakeOutbox()
    handled = await Answerer(tools, outbox=outbox).on_questions_asked([a_record(1, b"{}"), a_record(2)])
    assert [failure.error.reason for failure in handled.failures] == ["schema-mismatch"]
    assert await handled.later == {0: 3}
    assert len(outbox.published) == 1


async def test_an_answer_is_published_again_until_kafka_takes_it(script, tools):
    outbox = FakeOutbox()
    outbox.down = 2
    handled = await Answerer(tools, outbox=outbox).on_questions_asked([a_record(1)])
    assert await handled.later == {0: 2}
    assert len(outbox.published) == 1


def test_nothing_is_committed_past_the_first_unfinished_record():
    unfinished = Unfinished()
    for offset in (3, 4, 5):
        unfinished.start(1, offset)
    unfinished.finish(1, 4)
    unfinished.finish(1, 5)
    assert unfinished.committable(1) == 3
    unfinished.finish(1, 3)
    assert unfinished.committable(1) == 6
