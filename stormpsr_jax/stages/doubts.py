"""What a run will do, but perhaps not as its user expects: said before it starts, not refused."""

from __future__ import annotations

import numpy as np

from stormpsr_jax.psr.scoring import wrong_parts
from stormpsr_jax.stages.context import Context


def find_doubts(context: Context) -> list[str]:
    """Returns a sentence for each doubt about a run in which `checks` found no mistake.

    Where stage `data` has not rendered the data yet, there are none to be had.
    """
    detector = context.config.detector
    if "detector" not in context.config.stages or not context.has_data:
        return []
    if not detector.part_loss or detector.cad_wrong:
        return []
    recordings = context.source("train").recordings.values()
    shown = sum(
        len(wrong_parts.spans(r.first_frame + np.arange(r.num_frames), r.states, -1))
        for r in recordings
    )
    return [
        f"--config.detector.part_loss={detector.part_loss}, but detector.cad_wrong=0: what a part "
        "that sits wrong looks like is learnt from the training recordings alone (wrong parts in "
        f"them: {shown}), and others will hardly be noticed; render some with data_prep.cad "
        "--wrong=N and give data.cad_dir, detector.cad and detector.cad_wrong, or label more"
    ]
