import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stormpsr_jax.training.checkpoint import Checkpoints


def state(value):
    return {"w": jax.random.normal(jax.random.key(value), (64, 64)), "step": jnp.int32(value)}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"best": step / 7})
    assert checkpoints.latest() == tmp_path / "checkpoints" / "3"
    checkpoints.close()
    return tmp_path


def restore(workdir, abstract=None):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(abstract or jax.eval_shape(lambda: state(0)))
    finally:
        checkpoints.close()


@pytest.mark.parametrize(
    ("part", "damage"), [("state", "truncated"), ("state", "zeroed"), ("values", "removed")]
)
def test_checkpoints_damage_is_named_and_left_to_the_user(saved, part, damage):
    folder = saved / "checkpoints" / "3"
    files = [p for p in [folder / part, *(folder / part).rglob("*")] if p.is_file()]
    for path in files:
        half = path.stat().st_size // 2
        path.write_bytes(path.read_bytes()[:half] if damage == "truncated" else bytes(2 * half))
        if damage == "removed":
            path.unlink()
    with pytest.raises(ValueError, match=r"checkpoints/3 cannot be read \(.*remove it and run"):
        restore(saved)
    shutil.rmtree(folder)
    step, restored, _ = restore(saved)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, restored, state(2))
    # Training comes to step 3 again and can save it.
    checkpoints = Checkpoints(saved)
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert restore(saved)[0] == 3


def test_checkpoints_other_architecture_is_an_error_and_nothing_is_moved(saved):
    other = {"w": jax.ShapeDtypeStruct((64, 32), "float32"), "step": jnp.int32(0)}
    fewer = {"w": jax.ShapeDtypeStruct((64, 64), "float32")}
    for wanted in (other, fewer):
        with pytest.raises(ValueError, match=r"checkpoints/3 cannot be read .* another --workdir"):
            restore(saved, wanted)
    assert restore(saved)[0] == 3
