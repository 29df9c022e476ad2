"""What the kernels of a compiled step do and move, against counts by hand."""

import sys

import jax
import jax.numpy as jnp

from tests.support.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import roofline


def test_counts_of_a_compiled_program_are_those_of_its_compiler():
    def loss(w, x):
        return (jnp.tanh(x @ w) @ w.T).sum()

    args = jnp.ones((64, 32)), jnp.ones((16, 64))
    compiled = jax.jit(jax.grad(loss)).lower(*args).compile()
    found = sum(k.times * k.flops for k in roofline.kernels(compiled.as_text()))
    right = compiled.cost_analysis()["flops"]
    assert 0.8 * right < found <= right
