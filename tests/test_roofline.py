"""What the kernels of a compiled step do and move, against counts by hand."""

import sys

import jax
import jax.numpy as jnp
import pytest

from tests.support.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import roofline

HLO = """HloModule step, is_scheduled=true

%fused_add (p0: bf16[8,16], p1: f32[16]) -> bf16[8,16] {
  %p0 = bf16[8,16]{1,0} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  %c = bf16[16]{0} convert(%p1)
  %b = bf16[8,16]{1,0} broadcast(%c), dimensions={1}
  ROOT %add = bf16[8,16]{1,0} add(%p0, %b)
}

%fused_piece (q0: bf16[8,16]) -> bf16[2,16] {
  %q0 = bf16[8,16]{1,0} parameter(0)
  ROOT %piece = bf16[2,16]{1,0} slice(%q0), slice={[0:2], [0:16]}
}

%body (carry: (s32[], f32[4,4])) -> (s32[], f32[4,4]) {
  %carry = (s32[], f32[4,4]) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %x = f32[4,4]{1,0} get-tuple-element(%carry), index=1
  %y = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[4,4]) tuple(%i, %y)
}

%condition (carry.1: (s32[], f32[4,4])) -> pred[] {
  %carry.1 = (s32[], f32[4,4]) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (a: bf16[8,32], w: bf16[32,16], s: f32[16], t: (s32[], f32[4,4])) -> bf16[2,16] {
  %a = bf16[8,32]{1,0} parameter(0)
  %w = bf16[32,16]{1,0} parameter(1)
  %s = f32[16]{0} parameter(2)
  %t = (s32[], f32[4,4]) parameter(3)
  %gemm = (bf16[8,16]{1,0}, s8[4096]{0}) custom-call(%a, %w), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/dense"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %g = bf16[8,16]{1,0} get-tuple-element(%gemm), index=0
  %f = bf16[8,16]{1,0} fusion(%g, %s), kind=kLoop, calls=%fused_add
  %loop = (s32[], f32[4,4]) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %attend = (bf16[2,3,10,16]{3,1,2,0}, f32[2,3,10]{2,1,0}, u8[64]{0}) custom-call(%q, %k, %v), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %cut = bf16[2,16]{1,0} fusion(%f), kind=kLoop, calls=%fused_piece
}
"""  # noqa: E501


@pytest.fixture
def kernels():
    text = HLO.replace(
        "  %g = ", "".join(f"  %{n} = bf16[2,10,3,16] parameter(9)\n" for n in "qkv") + "  %g = "
    )
    return {kernel.name: kernel for kernel in roofline.kernels(text)}


def test_counts_of_a_compiled_program_are_those_of_its_compiler():
    def loss(w, x):
        return (jnp.tanh(x @ w) @ w.T).sum()

    args = jnp.ones((64, 32)), jnp.ones((16, 64))
    compiled = jax.jit(jax.grad(loss)).lower(*args).compile()
    found = sum(k.times * k.flops for k in roofline.kernels(compiled.as_text()))
    right = compiled.cost_analysis()["flops"]
    assert 0.8 * right < found <= right
