import numpy as np
import pytest

from tests.support.loop_toy import acting, assert_same, loss_fn, run, steps_saved


@pytest.mark.parametrize("most", [5, 50])
def test_train_results_do_not_depend_on_the_steps_in_a_dispatch(tmp_path, undisturbed, most):
    """Log rows, evaluations and checkpoints too come after the same steps."""
    workdir = tmp_path / "toy"
    run(workdir, config={"steps_per_dispatch": most})
    assert steps_saved(workdir) == [20, 24]
    assert_same(workdir, undisturbed)


def test_train_a_dispatch_says_in_which_step_the_loss_was_not_finite(tmp_path):
    def poison(step, batch):
        return batch | {"x": batch["x"] * np.nan} if step == 11 else batch

    with pytest.raises(FloatingPointError, match=r"'toy'.* at step 11; .*toy/checkpoints/8"):
        run(tmp_path / "toy", data=acting(poison), config={"steps_per_dispatch": 50})
    assert steps_saved(tmp_path / "toy") == [4, 8]


def test_train_arrays_that_are_held_on_the_devices_are_in_every_batch(tmp_path, undisturbed):
    """Here the pictures themselves, of which a batch has the rows alone."""
    seen = []
    run(tmp_path / "seen", data=acting(lambda step, batch: seen.append(batch["x"])))

    def rows(step, batch):
        batch = dict(batch)
        return {"rows": 16 * (step - 1) + np.arange(16, dtype=np.int32), "label": batch["label"]}

    def picks(params, batch_stats, batch, rng):
        return loss_fn(params, batch_stats, batch | {"x": batch["all"][batch["rows"]]}, rng)

    run(
        tmp_path / "toy",
        data=acting(rows),
        loss_fn=picks,
        held=lambda: {"all": np.concatenate(seen)},
        config={"steps_per_dispatch": 4},
    )
    assert_same(tmp_path / "toy", undisturbed)
