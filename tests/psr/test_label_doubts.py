"""Doubts about labels, in words; tests of `procedure check` and `data labels check` find them."""

import numpy as np
import pytest

from stormpsr_jax.psr.label_doubts import Doubt, clock, grouped, of_states
from tests.support import toy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (7.26, "0:07.3"), (59.94, "0:59.9"), (59.97, "1:00.0"), (3600.5, "60:00.5")],
)
def test_clock_has_no_sixtieth_second(seconds, text):
    assert clock(seconds) == text


def test_of_states_tells_a_state_once_however_many_rows_it_has():
    procedure = toy.procedure("a, b", "10 11", variant="up")
    states = np.repeat([[0, 0], [0, 1], [1, 1], [0, 1]], 10, axis=0)
    found = of_states(procedure, procedure.variants["up"], np.arange(40), states)
    assert [doubt.frame for doubt in found] == [10, 30]
    assert "state 01 (b on) is not in the procedure's states" in found[0].text


def test_grouped_golden_a_line_for_each_text():
    found = [("a", Doubt(1799, "odd")), ("a", Doubt(30, "early")), ("b", Doubt(60, "odd"))]
    assert grouped(found, 30) == ["odd: a at 1:00.0, b at 0:02.0", "early: a at 0:01.0"]
    assert grouped(found, 30, shown=1)[0] == "odd: a at 1:00.0 and 1 more"
