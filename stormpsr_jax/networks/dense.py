"""Dense layers and convolutions whose parameters have float32 gradients, whatever activations are.

Gradients are summed over rows, and then over devices, before anything is rounded to `dtype`. With
flax's layers, which round the parameters first, devices would send each other bfloat16 sums.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stormpsr_jax.networks import rows

Affine = tuple[jax.Array, jax.Array]  # gain and offset of D features, float32


def spread(parameter: jax.Array, like: jax.Array) -> jax.Array:
    """A parameter as large as an array, and then of its dtype: its gradient is a float32 sum."""
    return jnp.broadcast_to(parameter, like.shape).astype(like.dtype)


class Dense(nn.Module):
    """x · kernel + bias over the last axis; parameters and results are those of `nn.Dense`.

    It is one product of two matrices: the gradient of the kernel is a sum over all axes but the
    last. Over several, XLA on CPU copies what comes from above into another order first, and a step
    of training takes a twentieth longer.
    """

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Any = nn.linear.default_kernel_init
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self, *inputs: jax.Array, affine: Affine | None = None) -> Any:
        """(…, D) -> (…, features).

        Of n inputs, each has its own nth part of the features, and all results are a list. `affine`
        are gain and offset of a norm that the inputs have not met yet: multiplied into kernel and
        bias, their gradients are no further sums over rows.
        """
        kernel = self.param("kernel", self.kernel_init, (inputs[0].shape[-1], self.features))
        bias: Any = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        if affine is not None:
            gain, offset = affine
            bias = offset @ kernel + (0 if bias is None else bias)
            kernel = gain[:, None] * kernel
        if len(inputs) == 1:
            return self._of(inputs[0], kernel, bias)
        kernels = jnp.split(kernel, len(inputs), axis=1)
        biases = [None] * len(inputs) if bias is None else jnp.split(bias, len(inputs))
        return [self._of(*part) for part in zip(inputs, kernels, biases, strict=True)]

    def _of(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        flat = x.astype(self.dtype).reshape(-1, x.shape[-1])
        product = jnp.matmul if self.dtype == jnp.float32 else _product
        y = product(flat, kernel).reshape(*x.shape[:-1], -1)
        if bias is None:
            return y
        return y + spread(bias, y)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, D) · float32 (D, F) in the dtype of x."""
    return x @ kernel.astype(x.dtype)


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    narrow = kernel.astype(x.dtype)
    return x @ narrow, (x, narrow)


def _product_backward(kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    return gradient @ kernel.T, jnp.matmul(x.T, gradient, preferred_element_type=jnp.float32)


_product.defvjp(_product_forward, _product_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(convolve: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(x, kernel.astype(x.dtype))


def _convolve_forward(convolve: Any, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    narrow = kernel.astype(x.dtype)
    return convolve(x, narrow), (x, narrow)


def _convolve_backward(
    convolve: Any, kept: tuple, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept

    def of_kernel(x: jax.Array, gradient: jax.Array) -> jax.Array:
        # Rounded on each device: XLA for GPU would make float32 pictures of both for more.
        shape = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
        (found,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), shape)(gradient)
        return found.astype(jnp.float32)

    (of_x,) = jax.linear_transpose(lambda x: convolve(x, kernel), x)(gradient)
    return of_x, rows.apart(of_kernel, x, gradient, summed=True)


_convolve.defvjp(_convolve_forward, _convolve_backward)


class Conv(nn.Conv):
    """`nn.Conv`, with its parameters and results."""

    dtype: Any = jnp.float32
    promote_dtype: Any = lambda x, *parameters, dtype: (x.astype(dtype), *parameters)
    conv_general_dilated: Any = lambda x, kernel, *args, **options: _convolve(
        lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, *args, **options), x, kernel
    )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(…, C) -> (…, features)."""
        y: jax.Array = super().__call__(x)
        return y.astype(self.dtype)
