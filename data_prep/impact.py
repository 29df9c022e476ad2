"""Makes clip shards of IMPACT, an angle grinder that is assembled and taken apart.

    python -m data_prep.impact --videos=DIR --labels=labels_front_only_v1 --out=DIR

--videos is a folder with a video of each recording of the front camera
(…/20250407_1345_color_front_clipped.mp4, 30 frames per second), or a folder of image files of its
name, numbered from 0. --labels holds <split>/<recording>/PSR_labels_raw.csv, as the data set ships
it in dataset/PSR, and decides on the splits. --procedure takes a procedure file other than the one
that ships, for recordings that this one does not name.

A -1 in these labels is a part in transition, on its way on or off. It counts as before the
transition until that ends in 0 or 1, which is the step. So PSR_labels.csv (a removal stands at the
start of its transition) and PSR_labels_with_errors.csv (each transition is a wrong installation)
are checked and not used. No part is incorrect in this data set, and no frame has a box.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import command, matching
from data_prep.writing import from_files
from stormpsr_jax.base import folders
from stormpsr_jax.media import sources
from stormpsr_jax.recordings.labels import Labels, states_to_steps
from stormpsr_jax.recordings.procedure import Procedure, Variant


def settled(states: np.ndarray, initial_state: Sequence[int]) -> np.ndarray:
    """The states (M, K) with the value from before the transition for each -1.

    So a component changes when its transition ends, in 0 or 1; one that ends where it began is no
    change. `initial_state` is for a transition that the first row is amid of.
    """
    result = np.array(states, np.int8)
    before = np.asarray(initial_state, np.int8)
    for row in result:
        np.copyto(row, before, where=row == -1)
        before = row
    return result


def after_transitions(labels: Labels, variant: Variant) -> Labels:
    """The labels with the states in which transitions end, and the steps that follow from these."""
    states = settled(labels.states, variant.initial_state)
    changed = np.r_[True, (states[1:] != states[:-1]).any(axis=1)]
    frames, states = labels.frames[changed], states[changed]
    steps = states_to_steps(frames, states)
    return dataclasses.replace(labels, frames=frames, states=states, steps=steps, files={})


def make_dataset(
    out: str | Path,
    *,
    videos: str | Path,
    labels: str | Path,
    procedure: Procedure,
    **options: Any,
) -> None:
    """Makes the clip shards; see the module and from_files.build. ValueError has all errors."""
    tops = folders.require(labels, "--labels"), folders.require(videos, "--videos", "or a video")
    labelled = matching.find_labels(tops[0], f"--labels={labels}")
    pictured = matching.images_first(sources.find_pictures(tops[1]))
    matched = matching.match(
        labelled,
        pictured,
        {},
        lambda path, name: matching.open_pictures(path, procedure.fps, 0, "IMPACT"),
        "--videos",
        procedure,
        tops,
        change=after_transitions,
    )
    from_files.build(matched, out, procedure=procedure, **options)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--videos", required=True, metavar="PATH", help="folder of the videos")
    add("--labels", required=True, metavar="PATH", help="folder of the PSR labels")
    what = "procedure file (%(default)s, which ships)"
    add("--procedure", default="impact", metavar="FILE", help=what)
    command.add_recording_flags(parser)


main = command.command("impact", __doc__, _add_flags, make_dataset)

if __name__ == "__main__":
    sys.exit(main())
