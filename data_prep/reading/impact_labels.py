"""Labels of IMPACT, in which -1 is a component in transition and not one that sits wrong."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_prep.reading import recording_labels
from data_prep.reading.data_sets import Format, RecordingFiles
from data_prep.reading.recording_labels import Labels
from stormpsr_jax.psr.files import labels
from stormpsr_jax.psr.procedure import Procedure

FORMAT = Format("IMPACT", 0, "--videos")


def settled(states: np.ndarray, initial_state: Sequence[int]) -> np.ndarray:
    """Returns the states with the value from before the transition for each -1.

    So a component changes when its transition ends, in 0 or 1; one that ends where it began is no
    change.

    Args:
        states: (M, K) values in {-1, 0, 1}, of rows that follow each other.
        initial_state: K values in {0, 1}, for a transition that the first row is amid of.
    """
    result = np.array(states, np.int8)
    before = np.asarray(initial_state, np.int8)
    for row in result:
        np.copyto(row, before, where=row == -1)
        before = row
    return result


def read_labels(recording: RecordingFiles, procedure: Procedure) -> Labels:
    """Reads the states of a recording, and derives the steps from them.

    The steps in PSR_labels.csv are not those: a removal stands at the start of its transition.
    PSR_labels_with_errors.csv has a wrong installation for every transition. Both are checked, and
    not used.

    Raises:
        ValueError: the recording is of no variant; the mistakes of all files, with file, line and
            field; see recording_labels.read_psr_files.
    """
    variant = procedure.variant_for(recording.name)
    found = recording_labels.read_labels(FORMAT, recording, procedure)
    states = settled(found.states, variant.initial_state)
    changed = np.r_[True, (states[1:] != states[:-1]).any(axis=1)]
    frames, states = found.frames[changed], states[changed]
    steps = labels.states_to_steps(frames, states)
    return dataclasses.replace(found, frames=frames, states=states, steps=steps, files={})
