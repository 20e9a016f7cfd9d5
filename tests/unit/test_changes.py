"""What became of passages, and which of the past a filter wants."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from streams.as_of import matches
from streams.changes import paired
from streams.model import HydratedPassage, PastPassage

KEY = DocumentKey("acme", "default", "guide.md")


def a_past(text: str, *headings: str, ordinal: int = 0, metadata: dict[str, Any] | None = None) -> PastPassage:
    passage = HydratedPassage(
        point_id=uuid.uuid4(),
        key=KEY,
        revision=1,
        ordinal=ordinal,
        title="Guide",
        url=None,
        text=text,
        heading_path=headings,
        page=None,
        start=0,
        end=len(text),
        tokens=len(text.split()),
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        access_level=AccessLevel.PUBLIC,
        metadata=metadata or {},
    )
    return PastPassage(passage, text.encode())


def texts(gone: list[PastPassage], come: list[PastPassage]) -> list[tuple[str | None, str | None]]:
    about = {each.passage.point_id for each in (*gone, *come)}
    return [(old and old.text, new and new.text) for old, new in paired(gone, come, about=about)]


def test_passage_that_was_edited_is_one_change_and_not_two() -> None:
    old, new = "The fee is twelve crowns per day", "The fee is twenty crowns per day"
    assert texts([a_past(old, "Fees")], [a_past(new, "Fees")]) == [(old, new)]


def test_most_alike_become_each_other_and_the_rest_stays_alone() -> None:
    gone = [a_past("one two three four five"), a_past("red green blue yellow")]
    come = [a_past("one two three four six"), a_past("one two nine ten eleven"), a_past("entirely other words here")]
    assert texts(gone, come) == [
        ("one two three four five", "one two three four six"),
        ("red green blue yellow", None),
        (None, "one two nine ten eleven"),
        (None, "entirely other words here"),
    ]


def test_less_in_common_is_enough_under_one_heading() -> None:
    old, new = "Open from nine to five", "Open from ten to six"  # three words of seven
    assert texts([a_past(old, "Hours")], [a_past(new, "Hours")]) == [(old, new)]
    assert texts([a_past(old, "Hours")], [a_past(new, "Elsewhere")]) == [(old, None), (None, new)]


def test_nothing_is_paired_that_is_not_about_it() -> None:
    gone, come = [a_past("the same words here")], [a_past("the same words there")]
    assert paired(gone, come, about=set()) == [(gone[0].passage, None), (None, come[0].passage)]


@pytest.mark.parametrize(
    ("filters", "matched"),
    [
        ({}, True),
        ({"lang": "en"}, True),
        ({"lang": ["vi", "en"]}, True),
        ({"lang": "vi"}, False),
        ({"year": 2026.0}, True),
        ({"year": "2026"}, False),
        ({"year": True}, False),
        ({"draft": False}, True),
        ({"draft": 0}, False),
        ({"tags": "b"}, True),
        ({"tags": "c"}, False),
        ({"missing": "x"}, False),
        ({"document_id": "guide.md"}, True),
        ({"document_id": ["other.md"]}, False),
        ({"lang": "en", "tags": "c"}, False),
    ],
)
def test_filters_decide_as_the_index_does(filters: dict[str, Any], matched: bool) -> None:
    metadata = {"lang": "en", "year": 2026, "draft": False, "tags": ["a", "b"]}
    assert matches(filters, a_past("text", metadata=metadata).passage) is matched
