import numpy as np

from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.report import timeline

PROCEDURE = load_procedure("synthetic")
TRUTH = [(50, 3), (20, 0)]
SCORES = {
    "asd": {"events": [[30, 0, 0.9], [45, 3, 0.8]]},
    "storm": {"events": [[22, 0, 0.9], [70, 6, 0.4]]},
}


def test_figure_a_row_per_step_in_the_order_of_the_truth_and_a_lane_per_stream():
    visible = np.arange(100), np.linspace(0, 1, 100)
    figure = timeline.figure(SCORES, TRUTH, PROCEDURE, 5, visible)
    upper, lower = figure.axes
    texts = [text.get_text() for text in upper.texts]
    steps = [text.replace("\n", " ") for text in texts if text.startswith("Install")]
    assert steps == [PROCEDURE.step_name(step) for step in (0, 3, 6)]
    assert [text for text in texts if text in ("A", "S")] == ["A", "S"] * 3
    assert upper.get_xlim()[0] < 0 < 99 / 5 < upper.get_xlim()[1]
    filled = lower.collections[0].get_paths()[0].vertices
    assert filled[:, 0].max() == 99 / 5
    assert filled[:, 1].max() == 1
    assert len(timeline.figure(SCORES, TRUTH, PROCEDURE, 5).axes) == 1


def test_what_is_not_sure_is_hatched_until_it_is_settled_or_to_the_end():
    unsure = [[24, 0, 0.5, 21], [60, 3, 0.5, 55]]
    scores = {"learned": {"events": [[40, 0, 0.9], [70, 6, 0.9]], "unsure": unsure}}
    axes = timeline.figure(scores, TRUTH, PROCEDURE, 5).axes[0]
    bars = [patch for patch in axes.patches if patch.get_hatch() == "////"]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == [(4.2, 8), (11, 14)]
