"""Fusion by scores."""

from uuid import UUID

import pytest

from streams.fuse import fuse, reciprocal_rank_fusion
from streams.model import Candidate, Candidates


def a_leg(**scores: float) -> tuple[Candidate, ...]:
    return tuple(Candidate(an_id(name), score) for name, score in scores.items())


def an_id(name: str) -> UUID:
    return UUID(int=sum(ord(letter) * 256**place for place, letter in enumerate(name)))


def order(fused: list) -> list[UUID]:
    return [candidate.point_id for candidate in fused]


def test_a_dense_leg_that_knows_nothing_leaves_the_words_order() -> None:
    # Cosines of a language that the model does not know: high, and all alike.
    candidates = Candidates(
        dense=a_leg(wrong=0.71, other=0.705, right=0.70), sparse=a_leg(right=21.0, other=9.0, wrong=8.0)
    )
    assert order(fuse(candidates)) == [an_id("right"), an_id("other"), an_id("wrong")]


def test_a_clear_meaning_beats_a_slight_lead_in_words() -> None:
    candidates = Candidates(dense=a_leg(right=0.72, wrong=0.25), sparse=a_leg(wrong=10.0, right=9.0))
    assert order(fuse(candidates))[0] == an_id("right")


def test_a_passage_without_a_vector_is_unknown_to_the_dense_leg_not_bad() -> None:
    candidates = Candidates(dense=a_leg(a=0.6, b=0.5, c=0.1), sparse=a_leg(fresh=12.0, a=9.0, b=8.0))
    punished = {one.point_id: one.score for one in fuse(candidates)}
    spared = {one.point_id: one.score for one in fuse(candidates, without_vector={an_id("fresh")})}
    assert spared[an_id("fresh")] > punished[an_id("fresh")]
    assert spared[an_id("a")] == punished[an_id("a")]
    assert order(fuse(candidates, without_vector={an_id("fresh")}))[0] == an_id("fresh")


def test_one_leg_alone_keeps_its_order() -> None:
    assert order(fuse(Candidates(sparse=a_leg(x=3.0, y=2.0)))) == [an_id("x"), an_id("y")]
    assert order(fuse(Candidates(dense=a_leg(x=0.9, y=0.2)))) == [an_id("x"), an_id("y")]
    assert fuse(Candidates()) == []


def test_overlap_with_the_question_decides_between_equals() -> None:
    candidates = Candidates(dense=a_leg(x=0.5, y=0.5), sparse=a_leg(x=2.0, y=2.0))
    assert order(fuse(candidates, overlap={an_id("x"): 0.2, an_id("y"): 0.8})) == [an_id("y"), an_id("x")]


def test_scores_lie_between_zero_and_one_whatever_the_legs_say() -> None:
    candidates = Candidates(dense=a_leg(x=1.3, y=-0.4), sparse=a_leg(x=40.0, y=-1.0))
    fused = fuse(candidates, overlap={an_id("x"): 1.0})
    assert [one.score for one in fused] == [pytest.approx(1.0), pytest.approx(0.0)]


def test_equal_scores_are_ordered_by_id() -> None:
    first = fuse(Candidates(sparse=a_leg(b=1.0, a=1.0)))
    second = fuse(Candidates(sparse=a_leg(a=1.0, b=1.0)))
    assert order(first) == order(second)


def test_reciprocal_rank_fusion_rewards_agreement() -> None:
    x, y, z = an_id("x"), an_id("y"), an_id("z")
    assert reciprocal_rank_fusion([[x, y], [y, z]])[0] == y
