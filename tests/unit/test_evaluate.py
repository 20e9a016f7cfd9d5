"""Measures of rankings."""

import pytest

from streams.evaluate import ndcg, quality, recall, reciprocal_rank


def test_a_perfect_ranking_has_ndcg_one() -> None:
    assert ndcg(["a", "b", "c"], {"a": 1, "b": 1}) == pytest.approx(1.0)


def test_ndcg_discounts_by_rank() -> None:
    assert ndcg(["x", "a"], {"a": 1}) == pytest.approx(0.6309, abs=1e-4)


def test_graded_gains_prefer_the_better_document_first() -> None:
    gains = {"best": 3.0, "good": 1.0}
    assert ndcg(["best", "good"], gains) == pytest.approx(1.0)
    assert ndcg(["good", "best"], gains) < 0.9


def test_recall_counts_relevant_documents_within_the_depth() -> None:
    assert recall(["a", "x", "y", "z", "w", "b"], {"a": 1, "b": 1}) == 0.5


def test_reciprocal_rank_is_of_the_first_relevant_document() -> None:
    assert reciprocal_rank(["x", "y", "a", "b"], {"a": 1, "b": 1}) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x"], {"a": 1}) == 0.0


def test_a_question_without_a_ranking_counts_as_nothing_found() -> None:
    measured = quality({"q1": ["a"]}, {"q1": {"a": 1}, "q2": {"b": 1}, "unjudged": {}})
    assert measured.questions == 2
    assert measured.ndcg_at_10 == pytest.approx(0.5)
    assert measured.mrr == pytest.approx(0.5)
