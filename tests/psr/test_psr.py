"""The package: its worked example runs as written, and its public names exist."""

import doctest

from stormpsr_jax import psr


def test_worked_example_golden():
    outcome = doctest.testmod(psr)
    assert outcome.attempted > 10
    assert outcome.failed == 0


def test_public_names_have_docstrings():
    for name in psr.__all__:
        value = getattr(psr, name)
        assert isinstance(value, tuple) or value.__doc__
