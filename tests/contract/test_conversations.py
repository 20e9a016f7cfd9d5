"""Suites for conversations, and for whether what an answer was made from is unchanged."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from schemas.access import AccessLevel, Principal
from schemas.answers import Answer, QuestionAsked
from schemas.documents import Change, DocumentKey
from streams.model import CitedRevision, Generation
from tests.contract.conftest import Stores
from tests.fakes.edge import a_passage
from tests.store_data import a_flip, a_principal, a_request, new_tenant, some_passages

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@dataclass
class Desk:
    """A tenant with one document at revision 1, and people who ask."""

    stores: Stores
    tenant: str
    key: DocumentKey
    generation: Generation

    def reader(self, subject: str = "ann", **rights) -> Principal:
        return a_principal(self.tenant, **rights).model_copy(update={"subject": subject})

    async def change(self, revision: int, change: Change = Change.UPSERT, *, apply: bool = True, **access) -> None:
        await self.stores.ledger.admit([a_request(self.key, revision, change, **access)])
        if apply:
            texts = () if change is Change.DELETE else (f"text {revision}",)
            passages = some_passages(self.key, texts, born=revision)
            flip = a_flip(self.generation, self.key, revision, passages, change=change)
            assert await self.stores.manifests.flip([flip]) == [True]

    async def ask(
        self, query: str, reader: Principal, *, after_s: float = 0, conversation: str = "c1", revision: int = 1
    ) -> QuestionAsked:
        """A question that is answered from the document."""
        at = START + timedelta(seconds=after_s)
        question = QuestionAsked(
            question_id=uuid.uuid4().hex, request_id="r", query=query, principal=reader, conversation_id=conversation,
            asked_at=at, deadline_at=at,
        )  # fmt: skip
        source = a_passage(1, document_id=self.key.document_id, collection=self.key.collection, revision=revision)
        unused = a_passage(2, document_id="never-there.md")
        answer = Answer(
            query_id=question.question_id, request_id="r", query=query, answer="It is so [1].", answered=True,
            sources=(source, unused), took_ms=1, timestamp=at, standalone_query=f"{query} (lynx)",
        )  # fmt: skip
        await self.stores.answers.save(question, answer, 1)
        for _ in range(2):
            await self.stores.conversations.add(question, answer)
        return question

    async def answers(self, reader: Principal, conversation: str = "c1") -> list[str | None]:
        return [turn.answer for turn in await self.stores.conversations.turns(reader, conversation)]

    async def unchanged(self, reader: Principal | None = None, *, revision: int = 1) -> bool:
        seen = [CitedRevision(self.key, revision)] * 2
        return await self.stores.passages.unchanged(reader or self.reader(), self.generation.generation_id, seen)


@pytest_asyncio.fixture
async def desk(stores: Stores) -> Desk:
    tenant = new_tenant()
    collection = await stores.catalog.collection(tenant, "default")
    desk = Desk(stores, tenant, DocumentKey(tenant, "default", "guide.md"), collection.serving)
    await desk.change(1)
    return desk


# Conversations


async def test_turns_come_back_in_the_order_of_asking_the_newest_ones(desk: Desk) -> None:
    ann = desk.reader()
    for number in (2, 1, 3):
        await desk.ask(f"Question {number}?", ann, after_s=number)
    turns = await desk.stores.conversations.turns(ann, "c1", limit=2)
    assert [turn.query for turn in turns] == ["Question 2?", "Question 3?"]
    assert turns[0].standalone == "Question 2? (lynx)"
    assert turns[0].answer == "It is so [1]."


async def test_a_conversation_is_its_users_alone_even_under_the_same_name(desk: Desk) -> None:
    ann, bob = desk.reader("ann"), desk.reader("bob")
    await desk.ask("Mine?", ann)
    assert await desk.stores.conversations.turns(bob, "c1") == []
    assert await desk.stores.conversations.find(bob, "c1") is None
    assert await desk.stores.conversations.delete(bob, "c1") == (0, ())
    stranger = a_principal(new_tenant()).model_copy(update={"subject": "ann"})
    assert await desk.stores.conversations.list_conversations(stranger) == []
    await desk.ask("Mine too?", bob)
    assert [turn.query for turn in await desk.stores.conversations.turns(ann, "c1")] == ["Mine?"]


async def test_conversations_are_listed_in_pages_the_last_used_first(desk: Desk) -> None:
    ann, store = desk.reader(), desk.stores.conversations
    for number in range(5):
        await desk.ask("First?", ann, after_s=number, conversation=f"c{number}")
    await desk.ask("Once more?", ann, after_s=10, conversation="c0")
    first = await store.list_conversations(ann, limit=2)
    rest = await store.list_conversations(ann, before=first[-1])
    assert [one.conversation_id for one in (*first, *rest)] == ["c0", "c4", "c3", "c2", "c1"]
    assert (first[0].title, first[0].turns) == ("First?", 2)


async def test_deleting_takes_the_turns_and_their_stored_answers_along(desk: Desk) -> None:
    ann, store = desk.reader(), desk.stores.conversations
    question = await desk.ask("Secret?", ann)
    other = await desk.ask("Other?", ann, conversation="c2")
    assert await store.delete(ann, "c1") == (1, (question.question_id,))
    assert await store.delete(ann, "c1") == (0, ())
    assert await store.turns(ann, "c1") == []
    assert await desk.stores.answers.find(ann, question.question_id) is None
    assert await desk.stores.answers.find(ann, other.question_id) is not None
    assert [one.conversation_id for one in await store.list_conversations(ann)] == ["c2"]
    assert await store.delete(ann, None) == (1, (other.question_id,))


async def test_a_question_under_way_does_not_bring_a_deleted_conversation_back(desk: Desk) -> None:
    ann, store = desk.reader(), desk.stores.conversations
    await desk.ask("Before?", ann)
    await store.delete(ann, "c1")
    await desk.ask("Under way?", ann, after_s=1)  # asked long before it was deleted
    assert await store.find(ann, "c1") is None
    later = (datetime.now(UTC) - START).total_seconds() + 60
    await desk.ask("Again?", ann, after_s=later)
    assert (await store.find(ann, "c1")).title == "Again?"
    assert [turn.query for turn in await store.turns(ann, "c1")] == ["Again?"]


async def test_an_answer_is_shown_only_while_what_it_cites_may_be_read(desk: Desk) -> None:
    ann = desk.reader(clearance=AccessLevel.PUBLIC)
    await desk.ask("What?", ann)
    await desk.change(2)
    assert await desk.answers(ann) == ["It is so [1]."]
    await desk.change(3, Change.ACCESS, apply=False, level=AccessLevel.CONFIDENTIAL)
    assert await desk.answers(ann) == [None]
    await desk.change(4, Change.ACCESS, apply=False, level=AccessLevel.PUBLIC)
    assert await desk.answers(ann) == ["It is so [1]."]
    await desk.change(5, Change.DELETE, apply=False)
    assert await desk.answers(ann) == [None]
    await desk.change(6)  # created again: what was deleted stays deleted
    assert await desk.answers(ann) == [None]


async def test_a_stored_answer_is_given_only_while_what_it_rests_on_may_be_read(desk: Desk) -> None:
    ann, store = desk.reader(clearance=AccessLevel.PUBLIC), desk.stores.answers
    question = await desk.ask("What?", ann)

    async def text() -> str | None:
        found = await store.find(ann, question.question_id)
        return None if found.answer.withheld else found.answer.answer

    assert await text() == "It is so [1]."
    await desk.change(2)
    assert await text() == "It is so [1]."
    await desk.change(3, Change.ACCESS, apply=False, level=AccessLevel.CONFIDENTIAL)
    assert await text() is None
    boss = desk.reader(clearance=AccessLevel.RESTRICTED)
    assert not (await store.find(boss, question.question_id)).answer.withheld
    await desk.change(4, Change.ACCESS, apply=False, level=AccessLevel.PUBLIC, groups=("hr",))
    assert await text() is None
    assert not (await store.find(desk.reader(groups=("hr",)), question.question_id)).answer.withheld
    await desk.change(5, Change.ACCESS, apply=False, level=AccessLevel.PUBLIC)
    assert await text() == "It is so [1]."
    await desk.change(6, Change.DELETE, apply=False)
    assert await text() is None
    await desk.change(7)  # created again: what was deleted stays deleted
    assert await text() is None


async def test_passages_that_were_lost_are_named(desk: Desk) -> None:
    ann = desk.reader(clearance=AccessLevel.PUBLIC)
    here = a_passage(1, document_id=desk.key.document_id, collection=desk.key.collection, revision=1)
    never = a_passage(2, document_id="never-there.md", collection=desk.key.collection)
    assert await desk.stores.answers.lost(ann, []) == frozenset()
    assert await desk.stores.answers.lost(ann, [here, never]) == {2}
    assert await desk.stores.answers.lost(a_principal(new_tenant()), [here]) == {1}
    await desk.change(2, Change.DELETE, apply=False)
    assert await desk.stores.answers.lost(ann, [here, never]) == {1, 2}


# What an answer was made from


async def test_what_has_not_changed_is_unchanged(desk: Desk) -> None:
    assert await desk.unchanged()
    assert not await desk.unchanged(revision=2)
    assert await desk.stores.passages.unchanged(desk.reader(), desk.generation.generation_id, [])


@pytest.mark.parametrize("change", [Change.UPSERT, Change.DELETE])
@pytest.mark.parametrize("apply", [False, True], ids=["under way", "applied"])
async def test_a_change_counts_from_the_moment_it_is_accepted(desk: Desk, change: Change, apply: bool) -> None:
    await desk.change(2, change, apply=apply)
    assert not await desk.unchanged()


async def test_another_generation_or_tenant_has_not_seen_it(desk: Desk) -> None:
    seen = [CitedRevision(desk.key, 1)]
    assert not await desk.stores.passages.unchanged(desk.reader(), desk.generation.generation_id + 10**6, seen)
    stranger = a_principal(new_tenant())
    assert not await desk.stores.passages.unchanged(stranger, desk.generation.generation_id, seen)


@pytest.mark.parametrize(
    "access", [{"level": AccessLevel.CONFIDENTIAL}, {"level": AccessLevel.PUBLIC, "groups": ("hr",)}]
)
async def test_who_lost_the_right_to_read_gets_no_old_answer(desk: Desk, access) -> None:
    reader = desk.reader(clearance=AccessLevel.INTERNAL, groups=("it",))
    assert await desk.unchanged(reader)
    await desk.change(2, Change.ACCESS, apply=False, **access)
    assert not await desk.unchanged(reader)
