import math

import pytest

from data_prep.worlds import worlds
from stormpsr_jax.configs.fields import field, one_of, wrong_with
from stormpsr_jax.networks import (
    temporal_networks,
    vit,
)
from stormpsr_jax.psr.accumulation import DECODERS
from stormpsr_jax.stages import checks
from stormpsr_jax.training import choices


@pytest.mark.parametrize(
    ("described", "value", "message"),
    [
        (field(1, 0, 5), 6, "0…5 is needed"),
        (field(1, 0), -1, "at least 0 is needed"),
        (field(1, 0), math.nan, "is not a finite number"),
        (field(-1, 1, also=(-1, "the rest")), 0, "at least 1 is needed, or -1 for the rest"),
        (field((), 1, 9, like=(1,)), (3, 10), "10: 1…9 is needed"),
        (one_of("a", "b"), "c", "is not one of a, b"),
        (one_of("a", "b", default=("a",)), ["b", "c"], "'c' is not one of a, b"),
        (one_of("a", "b", default=()), ["c"], "'c' is not one of a, b"),
        (field((1, 9), 0, 9, of=("from", "to")), (), "0…9 is needed for each of fr"),
    ],
)
def test_a_value_out_of_range_is_named_and_the_default_is_none(described, value, message):
    (found,) = wrong_with(described, value)
    assert found.startswith(message)
    assert wrong_with(described, described.default) == []


def test_choices_are_those_that_the_code_knows():
    known = {
        "data.synthetic.world": worlds.WORLDS,
        "data.synthetic.occlusion": worlds.BENCH.hidden,
        "encoder.remat": (choices.AUTO, *vit.REMAT),
        "temporal_model.backbone": temporal_networks.NETWORKS,
        "evaluate.decoder": DECODERS,
    }
    for name, expected in known.items():
        assert set(checks.FIELDS[name].choices) == set(expected), name
