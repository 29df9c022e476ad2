"""Layers with the parameters and results of flax's that take less time or memory in training.

Dense layers and convolutions have float32 gradients, whatever activations are: these are summed
over rows, and then over devices, before anything is rounded to `dtype`. With flax's layers, which
round the parameters first, devices would send each other bfloat16 sums.

What each saves of a training step in float32 on two cores of an Intel Xeon (a script that is no
more, benchmarks/layers.py of commit 5ac23663; without any change it measures up to 0.2 %):

| layer | ViT | temporal transformer |
|---|---|---|
| `Dense` | 9.5 % | 17.4 % |
| `gelu` | 4.6 % | 2.3 % |
| `bernoulli`, of `Dropout` | none used | 38.2 % |
| attention (`vit._attend`) | 5.9 % | 8.1 % |

`Conv` saves no time; it is here for its float32 sums. `LayerNorm` is flax's in float32; in bfloat16
it saves memory of a GPU (benchmarks/step_memory.py).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

Affine = tuple[jax.Array, jax.Array]  # gain and offset of D features, float32
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_MANTISSA = 23  # random bits of a float32 in [0, 1)


def apart(function: Callable[..., Any], *arrays: jax.Array, summed: bool = False) -> Any:
    """function(*arrays), on each device of its own rows, where XLA would not see that it can.

    A step of training says by `jax.sharding.use_abstract_mesh` which devices share its batches. The
    function takes arrays (B, …) to such arrays, each row by itself; or, if `summed`, to sums over
    rows, which are added up over all devices. Rows that these cannot share evenly are left to XLA.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or len(arrays[0]) % mesh.size:
        return function(*arrays)
    axes = mesh.axis_names

    def of_device(*arrays: jax.Array) -> Any:
        found = function(*arrays)
        return jax.lax.psum(found, axes) if summed else found

    rows = PartitionSpec(axes)
    out = PartitionSpec() if summed else rows
    # check_vma=False: else JAX adds up what `function` computes by itself, before it is float32.
    return jax.shard_map(of_device, in_specs=rows, out_specs=out, check_vma=False)(*arrays)


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
    return of_x, apart(of_kernel, x, gradient, summed=True)


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


class LayerNorm(nn.Module):
    """Normalises the last axis, in front of a Dense layer, with a gain and an offset by feature.

    With the `Dense` behind it, it computes what `nn.LayerNorm` does, and has its parameters. In
    float32 it is that. In bfloat16 gain and offset are left to `Dense`, and the backward pass
    starts from the normalised array, which `Dense` keeps anyway: so the input is not kept, nor
    float32 arrays of intermediate results, and no sum over rows is the norm's own.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; means and variances are float32.
    """

    epsilon: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, Affine | None]:
        """(…, D) -> (…, D), and what `Dense` wants as `affine`."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        if self.dtype == jnp.float32:
            plain = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, parent=None)
            normalised: Any = plain.apply({"params": {"scale": scale, "bias": bias}}, x)
            return normalised, None
        return _normalised(self.epsilon, x.astype(self.dtype)), (scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalised(epsilon: float, x: jax.Array) -> jax.Array:
    return _norm_forward(epsilon, x)[0]


def _norm_forward(epsilon: float, x: jax.Array) -> tuple[jax.Array, tuple]:
    # Two passes over a row, which XLA for GPU makes one kernel of.
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    gain = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon)
    normalised = (centred * gain).astype(x.dtype)
    return normalised, (normalised, gain)


def _norm_backward(epsilon: float, kept: tuple, gradient: jax.Array) -> tuple[jax.Array]:
    standard, gain = kept[0].astype(jnp.float32), kept[1]
    wide = gradient.astype(jnp.float32)
    along = (wide * standard).mean(-1, keepdims=True)
    inner = gain * (wide - wide.mean(-1, keepdims=True) - standard * along)
    return (inner.astype(gradient.dtype),)


_normalised.defvjp(_norm_forward, _norm_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, x · Φ(x), in float32 inside; any shape.

    As `nn.gelu(x, approximate=False)`, but the backward pass starts from x again. It would read
    three arrays of intermediate results otherwise, which takes longer on CPU than to redo them.
    """
    wide = x.astype(jnp.float32)
    return (wide * _normal_cdf(wide)).astype(x.dtype)


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * (2 * math.pi) ** -0.5
    slope = _normal_cdf(wide) + wide * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


class Dropout(nn.Module):
    """Zeroes elements at `rate` and scales the others by 1 / (1 - rate), with the masks of flax's.

    Attributes:
        rate: probability of a zero, in [0, 1).
        deterministic: True changes nothing; False needs a "dropout" rng.
        of: the numbers are those of the first rows of so many, (B, of, …); 0: of those it is given.
    """

    rate: float
    deterministic: bool
    of: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies dropout to an array of any shape."""
        if self.rate == 0 or self.deterministic:
            return x
        keep, shape = 1.0 - self.rate, (x.shape[0], self.of or x.shape[1], *x.shape[2:])
        drawn = bernoulli(self.make_rng("dropout"), keep, shape)[:, : x.shape[1]]
        return jnp.where(drawn, x / keep, 0)


def bernoulli(key: jax.Array, p: float, shape: tuple[int, ...]) -> jax.Array:
    """The booleans (*shape) of `jax.random.bernoulli(key, p, shape)`, each True with probability p.

    JAX draws them from the Threefry-2x32 hash (Salmon et al. 2011, 20 rounds) of each element's
    number. Its code for CPU walks over whole arrays round by round, which takes a fifth of a step
    of the temporal encoder; written out as here, the compiler makes one pass of it.

    Keys of another generator than Threefry, and 2^32 elements or more, are left to that function.
    """
    if jax.random.key_impl(key) != "threefry2x32" or math.prod(shape) >= 2**32:
        return jax.random.bernoulli(key, p, shape)
    number = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):  # unlike one long arange, this is sharded as the array is
        stride = np.uint32(math.prod(shape[axis + 1 :]))
        number += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    key0, key1 = jax.random.key_data(key)
    high, low = _threefry(key0, key1, jnp.zeros(shape, jnp.uint32), number)
    threshold = np.ceil(np.float32(p) * np.float32(2**_MANTISSA)).astype(np.uint32)
    return (high ^ low) >> (32 - _MANTISSA) < threshold


def _threefry(
    key0: jax.Array, key1: jax.Array, x0: jax.Array, x1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds; all uint32."""
    keys = (key0, key1, key0 ^ key1 ^ _PARITY)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << distance | x1 >> (32 - distance)) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1
