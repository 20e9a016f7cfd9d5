"""What stands before and after a passage: whole sentences of the same revision and section, never repeated text."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid5

from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from streams.extract import extract
from streams.model import HydratedPassage
from streams.prompt import build_messages
from streams.surroundings import EDGE_CHARS, Surroundings, look_around
from tests.unit.answers import a_passage
from tests.unit.test_retrieve import NAMESPACE, Shelf

READER = Principal(subject="reader")
KEY = DocumentKey("default", "default", "guide.md")


class OneDocument(Shelf):
    """A store that shows the passages of one document."""

    def __init__(self, *passages: HydratedPassage) -> None:
        super().__init__()
        self.shown = passages

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        return [passage for passage in self.shown if passage.key == key and passage.ordinal in ordinals]


def a_cut(ordinal: int, text: str, start: int, *, headings: tuple[str, ...] = ("Guide",)) -> HydratedPassage:
    return HydratedPassage(
        point_id=uuid5(NAMESPACE, str(ordinal)),
        key=KEY,
        revision=5,
        ordinal=ordinal,
        title="Guide",
        url=None,
        text=text,
        heading_path=headings,
        page=None,
        start=start,
        end=start + len(text),
        tokens=10,
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        access_level=AccessLevel.PUBLIC,
        metadata={},
    )


BEFORE = a_cut(0, "The broker keeps records. It is called Kafka.", 0)
MIDDLE = a_cut(1, "Records live for seven days.", 46)
AFTER = a_cut(2, "Then they are deleted. Nothing else is.", 75)


async def around(passage: HydratedPassage, *shown: HydratedPassage) -> Surroundings:
    [found] = await look_around(READER, 7, [passage], OneDocument(*shown))
    return found


async def test_a_passage_stands_between_its_neighbours() -> None:
    found = await around(MIDDLE, BEFORE, MIDDLE, AFTER)
    assert found == Surroundings(before=BEFORE.text, after=AFTER.text)


async def test_the_ends_of_a_document_have_one_side() -> None:
    assert await around(BEFORE, BEFORE, MIDDLE) == Surroundings(after=MIDDLE.text)
    assert await around(AFTER, MIDDLE, AFTER) == Surroundings(before=MIDDLE.text)


async def test_what_may_not_be_shown_is_not_around_anything() -> None:
    assert await around(MIDDLE, MIDDLE) == Surroundings()


async def test_another_revision_is_another_text() -> None:
    moved_on = replace(AFTER, revision=6)
    assert await around(MIDDLE, BEFORE, moved_on) == Surroundings(before=BEFORE.text)


async def test_another_section_is_about_something_else() -> None:
    other = replace(AFTER, heading_path=("Guide", "Licences"))
    under_it = replace(MIDDLE, heading_path=("Guide", "Retention"))
    assert await around(under_it, BEFORE, other) == Surroundings(before=BEFORE.text)


async def test_what_a_torn_paragraph_repeats_is_shown_once() -> None:
    torn = a_cut(2, "They live for seven days. Then they are deleted.", MIDDLE.end - 25)
    middle = replace(MIDDLE, text="Records are kept. They live for seven days.", end=MIDDLE.start + 43)
    torn = replace(torn, start=middle.end - 25, end=middle.end - 25 + len(torn.text))
    assert (await around(middle, torn)).after == "Then they are deleted."
    assert (await around(torn, middle)).before == "Records are kept."


async def test_only_whole_sentences_near_the_passage_are_taken() -> None:
    long = " ".join(f"Sentence number {number} says something." for number in range(40))
    found = await around(MIDDLE, replace(BEFORE, text=long, end=BEFORE.start + len(long)))
    assert found.before == "" or found.before.startswith("Sentence number")
    before = a_cut(0, long, MIDDLE.start - len(long) - 1)
    found = await around(MIDDLE, before)
    assert found.before.startswith("Sentence number ")
    assert found.before.endswith("Sentence number 39 says something.")
    assert len(found.before) <= EDGE_CHARS


async def test_a_retrieval_brings_them_where_they_are_asked_for() -> None:
    shelf = OneDocument()
    await shelf.put("guide.md", "Kafka keeps records in topics.")
    [hydrated] = shelf.live.values()
    shelf.shown = (replace(hydrated, ordinal=1, text="They are split into partitions.", start=hydrated.end + 1),)
    assert (await shelf.ask("Where does Kafka keep records?")).surroundings == {}
    assert (await shelf.ask("Where does Kafka keep records?", surrounded=True)).surroundings == {
        1: Surroundings(after="They are split into partitions.")
    }


def test_a_model_reads_the_surroundings_with_the_passage_while_there_is_room() -> None:
    passages = (a_passage(1, "It is called Kafka."), a_passage(2, "x" * 2000))
    surroundings = {1: Surroundings(before="The broker keeps records.", after="Nothing else does.")}
    prompt = build_messages("What is the broker called?", passages, surroundings=surroundings)[-1]["content"]
    assert "The broker keeps records.\nIt is called Kafka.\nNothing else does.\n" in prompt
    tight = build_messages("What?", passages, surroundings=surroundings, budget_tokens=600)[-1]["content"]
    assert "It is called Kafka." in tight
    assert "The broker keeps records." not in tight


def test_the_sentence_after_a_passage_speaks_for_its_last() -> None:
    weeks = ("three", "four", "five", "six", "seven")
    passages = (a_passage(1, " ".join(f"It takes {number} weeks." for number in weeks), title="Notes"),)
    around = {1: Surroundings(after="That is the retention of dead letters.")}
    question = "How long does the retention of dead letters take?"
    assert "It takes seven weeks." not in [quote.shown for quote in extract(question, passages).quotes]
    assert "It takes seven weeks." in [quote.shown for quote in extract(question, passages, around).quotes]
