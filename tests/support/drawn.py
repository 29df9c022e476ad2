import jax
import numpy as np


def apply(model, variables, inputs, *arguments, **options):
    return jax.jit(lambda v, x: model.apply(v, x, *arguments, **options))(variables, inputs)


def random_variables(model, *inputs):
    """Every parameter drawn, none left at 0 or 1; drawn by NumPy, as compiling init takes long."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        value = 0.3 * rng.normal(size=leaf.shape) + (path[-1].key in ("scale", "var"))
        return np.abs(value).astype(np.float32) if path[-1].key == "var" else np.float32(value)

    return jax.tree_util.tree_map_with_path(
        draw, jax.eval_shape(lambda key: model.init(key, *inputs), jax.random.key(0))
    )
