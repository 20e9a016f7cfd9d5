"""What stops an automatic switch."""

from dataclasses import replace

import pytest

from streams.generations import Counts, Parity
from streams.parity import _compared, why_not

FINE = Counts(10, 10, 50, 70, 0, 0, 0)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Parity(FINE), None),
        (Parity(FINE, (), 0.6), None),
        (Parity(FINE, (), 0.59), "59%"),
        (Parity(replace(FINE, behind=1), (), 1.0), "1 documents"),
        (Parity(replace(FINE, passages_without_vector=3), (), 1.0), "3 passages"),
    ],
)
def test_missing_documents_missing_vectors_and_other_answers_stop_a_switch(found: Parity, reason: str | None) -> None:
    said = why_not(found, min_overlap=0.6)
    assert said is None if reason is None else reason in (said or "")


@pytest.mark.parametrize(
    ("serving", "candidate", "overlap"),
    [
        (("a", "b"), ("b", "c"), 0.5),
        (("a",), ("c", "a"), 1.0),
        ((), ("a",), 1.0),
        (("a",), (), 0.0),
    ],
)
def test_overlap_is_the_share_of_documents_found_again(
    serving: tuple[str, ...], candidate: tuple[str, ...], overlap: float
) -> None:
    assert _compared("q", serving, candidate).overlap == overlap
