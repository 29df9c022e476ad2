"""Doubts about labels, in words; tests of `procedure check` and `data labels check` find them."""

import pytest

from stormpsr_jax.psr.label_doubts import Doubt, clock, grouped


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (7.26, "0:07.3"), (59.94, "0:59.9"), (59.97, "1:00.0"), (3600.5, "60:00.5")],
)
def test_clock_has_no_sixtieth_second(seconds, text):
    assert clock(seconds) == text


def test_grouped_golden_a_line_for_each_text():
    found = [("a", Doubt(1799, "odd")), ("a", Doubt(30, "early")), ("b", Doubt(60, "odd"))]
    assert grouped(found, 30) == ["odd: a at 1:00.0, b at 0:02.0", "early: a at 0:01.0"]
    assert grouped(found, 30, shown=1)[0] == "odd: a at 1:00.0 and 1 more"
