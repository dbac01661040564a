"""Every case, on a real gateway, whole and in pieces."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case
from tests.conformance.cases import CASES
from tests.conformance.delivery import DELIVERIES, WHOLE, Delivery
from tests.conformance.playground import Playground
from tests.conformance.stage import Failed

PLAYED = [
    pytest.param(case, delivery, id=f"{case}-{delivery}")
    for delivery in DELIVERIES
    for case in CASES
    if delivery is WHOLE or not case.slow
]


@pytest.mark.parametrize(("case", "delivery"), PLAYED)
def test_case(playground: Playground, case: Case, delivery: Delivery) -> None:
    failure = ""
    try:
        playground.play(case, delivery)
    except Failed as why:
        failure = str(why)
    if failure:
        pytest.fail(failure, pytrace=False)


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) >= 250
    assert len({repr(case) for case in CASES}) == len(CASES)
    assert all(case.clause for case in CASES)
