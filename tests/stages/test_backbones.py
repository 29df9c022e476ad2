import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax import main
from stormpsr_jax.base import files
from tests.support.tiny import tiny, tiny_run
from tests.support.weights_data import command as weights
from tests.support.weights_data import published

# Of the size of the fixtures.
SMALL = {
    "encoder.patch_size": 4,
    "encoder.width": 16,
    "encoder.depth": 2,
    "encoder.num_heads": 2,
    "encoder.stem": (),
}


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("timm_dinov2_registers", "vit_small_patch14_reg4_dinov2"),
        ("transformers_dinov3", "facebook/dinov3-vits16-pretrain-lvd1689m"),
    ],
)
@pytest.mark.usefixtures("system")
def test_starting_point_is_the_published_backbone_at_the_size_of_the_pictures(case, name, tmp_path):
    path, arrays = published(case, tmp_path)
    ours = tmp_path / "ours.safetensors"
    assert weights("import", kind="vit", checkpoint=path, out=ours) == 0
    for i, file in enumerate((path, ours)):
        run, stages = tiny_run(
            tmp_path, **SMALL | {"encoder.backbone": name, "init_from": str(file)}
        )
        x = np.float32(arrays[f"x{i}"])
        params, stats = stages["pretrain"].starting_point(run, x.shape[1:3])
        features = (
            stages["pretrain"]
            .network(run)
            .apply({"params": params, "batch_stats": stats}, x, method=lambda m, x: m.encoder(x))
        )
        np.testing.assert_allclose(features, arrays[f"y{i}"], atol=1e-4)


EFFICIENTNET = {
    "encoder.backbone": "efficientnet_lite0",
    "encoder.width": 4,
    "encoder.patch_size": 0,
    "encoder.depth": 0,
    "encoder.num_heads": 0,
    "encoder.stem": (),
}


def test_efficientnet_run_leaves_a_model_that_recognises(finished, tmp_path):
    """An encoder that is taken as it is, as of own:photos, and three steps of the window."""
    run, stages = tmp_path / "run", ("pretrain", "embed", "temporal", "predict", "evaluate")
    steps = {"pretrain.steps": 0, "temporal.steps": 3, "temporal.eval_every": 3}
    fields = {"stages": stages, "data.dir": str(finished / "data"), **steps}
    main.run(tiny(**EFFICIENTNET | fields), run)
    described = files.read_json(run / "model" / "model.json")["networks"]["encoder"]
    assert described["architecture"] == "EfficientNetEncoder"
    assert (described["width"], described["depths"]) == (4, [1, 2, 2, 3, 3, 4, 1])
    model = stormpsr_jax.load_model(run / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), np.uint8)
    events = list(model.recognise(pictures, stream="temporal"))
    assert events == list(model.recognise(pictures, stream="temporal"))
    assert all(0 <= event.frame < 5 for event in events)
