"""Seats for readers of streams."""

import pytest

from api.problems import ProblemError
from api.seats import Seats
from schemas.access import Principal

ANN, BOB = Principal(subject="ann"), Principal(subject="bob")


def test_a_user_has_so_many_and_another_as_many() -> None:
    seats = Seats(10, per_user=2)
    taken = []
    for who in (ANN, ANN, BOB):
        with seats.reserved(who) as seat:
            taken.append(seat)
    with pytest.raises(ProblemError) as refused, seats.reserved(ANN):
        pass
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")
    taken[0].leave()
    taken[0].leave()  # twice is once
    with seats.reserved(ANN):
        assert seats.taken == 3


def test_a_user_of_another_tenant_is_another_user() -> None:
    seats = Seats(10, per_user=1)
    with seats.reserved(ANN), seats.reserved(ANN.model_copy(update={"tenant": "other"})):
        assert seats.taken == 2


def test_a_full_process_refuses_everybody_until_somebody_leaves() -> None:
    seats = Seats(1)
    with seats.reserved(ANN) as seat:
        pass
    with pytest.raises(ProblemError) as refused, seats.reserved(BOB):
        pass
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "2")
    seat.leave()
    with seats.reserved(BOB):
        pass


def test_a_seat_is_given_back_when_the_question_can_not_be_asked() -> None:
    seats = Seats(1)
    with pytest.raises(RuntimeError), seats.reserved(ANN):
        raise RuntimeError
    assert seats.taken == 0
