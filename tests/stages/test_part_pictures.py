import dataclasses

import numpy as np
import simplejpeg

from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.stages import part_pictures
from stormpsr_jax.stages.context import Context
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import tiny


def test_each_part_is_cut_out_of_the_best_frame_in_which_it_was_put_on_last(rendered):
    context = Context(tiny(), rendered, make_mesh(1, 1))
    source = context.detector_source("train")
    name, labelled = next(iter(source.recordings.items()))
    states = np.zeros_like(labelled.states)
    states[4:, 0] = 1
    states[10:, 1] = 1
    states[14:, 2] = -1
    boxes = np.tile(np.float32([0.5, 0.5, 0.25, 0.5]), (len(states), 1))
    visible, classes = np.zeros(len(states), np.float32), np.ones(len(states), np.int16)
    visible[[2, 7, 8, 12, 15]] = 0.5, 0.8, 0.9, 0.9, 1
    classes[8] = NOT_ANNOTATED
    boxes[12] = 0.75, 0.5, 0.75, 1
    changed = dataclasses.replace(
        labelled, states=states, boxes=boxes, visible=visible, classes=classes
    )
    source.recordings = {name: changed}
    found = part_pictures.of_training(context)
    first, second, *others = [picture and simplejpeg.decode_jpeg(picture) for picture in found]
    assert others == [None] * (states.shape[1] - 2)
    assert source.image_size == (32, 32)
    seventh, twelfth = source.frames(name, labelled.first_frame + np.array([7, 12]))
    for picture, wanted in (first, seventh[6:26, 11:21]), (second, twelfth[:, 9:]):
        assert picture.shape == wanted.shape
        assert np.abs(np.float32(picture) - wanted).mean() < 10


def test_without_boxes_there_are_none(rendered):
    context = Context(tiny(stages=("temporal", "evaluate")), rendered, make_mesh(1, 1))
    assert set(part_pictures.of_training(context)) == {None}
