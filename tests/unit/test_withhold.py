"""What is left of an answer when its asker may no longer read what it was made from."""

import json

import pytest

from schemas.answers import Answer
from streams.withhold import rests_on, without
from tests.fakes.edge import NOW, a_passage


def an_answer(text: str = "The ibex is brown [1].", **changes: object) -> Answer:
    answer = Answer(
        query_id="q", request_id="r", query="Which colour?", answer=text, answered=True, took_ms=1, timestamp=NOW,
        sources=(a_passage(1, text="The ibex is brown."), a_passage(2, text="The lynx is grey.")), confidence=0.9,
        standalone_query="Which colour? (brown ibex)",
    )  # fmt: skip
    return answer.model_copy(update=changes)


def test_nothing_lost_leaves_it_alone() -> None:
    assert without(an_answer(), ()) == an_answer()


def test_a_lost_passage_that_is_not_quoted_goes_alone() -> None:
    left = without(an_answer(), {2})
    assert left.answer == an_answer().answer
    assert not left.withheld
    assert [source.citation for source in left.sources] == [1]


@pytest.mark.parametrize("lost", [{1}, {1, 2}])
def test_a_text_that_rests_on_a_lost_passage_is_withheld_whole(lost: set[int]) -> None:
    left = without(an_answer(), lost)
    assert left.withheld
    assert not left.answered
    for word in ("brown", "grey"):
        assert word not in json.dumps(left.model_dump(mode="json"))


@pytest.mark.parametrize(
    "changes", [{"generator": "ollama:llama3.1"}, {"degraded": True, "degraded_reason": "generator-unavailable"}]
)
def test_a_models_words_rest_on_everything_that_it_has_read(changes: dict[str, object]) -> None:
    assert rests_on(an_answer(**changes)) == {1, 2}
    assert without(an_answer(**changes), {2}).withheld


def test_it_is_said_in_the_language_of_the_question() -> None:
    assert "eliminado" in without(an_answer(query="¿De qué color es el íbice?"), {1}).answer
