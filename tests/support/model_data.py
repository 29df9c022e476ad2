import dataclasses
import functools

import jax
import numpy as np

from stormpsr_jax.data import augment
from stormpsr_jax.networks.architectures import inference
from stormpsr_jax.networks.detector import Detector
from stormpsr_jax.networks.spatial import SpatialEncoder
from stormpsr_jax.networks.temporal import TemporalTransformer
from stormpsr_jax.networks.vit import ViT
from stormpsr_jax.psr import Procedure, Settings, learned_stream
from stormpsr_jax.psr.learned_beliefs import default_weights
from stormpsr_jax.serving import content
from stormpsr_jax.serving.functions import FlaxNetworks, Network
from stormpsr_jax.serving.writing import write_model
from tests.support import toy

CONTENT = toy.content(
    "seal, cover, screw", "100 110 101 111", name="pump", fps=10, variant="assembly"
)
CONTENT["variants"]["assembly"]["recordings"] = ["*_up"]
OFF = {"initial_state": "111", "expected": [8, 5, 2], "recordings": ["*_off"]}
CONTENT["variants"]["disassembly"] = OFF
PROCEDURE = Procedure.from_json(CONTENT)
SIZE, WINDOW = (32, 32), content.Window(frames=12, stride=4)
PICTURES = content.Pictures(SIZE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
SETTINGS = Settings("confidence", threshold=1.0, window=12, confidence=0.05)
FIGURES = {"pos": 0.5, "f1": 0.75, "delay_s": None, "tp": 3}
ENCODER = SpatialEncoder(
    ViT(patch_size=8, width=16, depth=1, num_heads=2, mlp_dim=24, remat="full"),
    hidden=16,
    projection=4,
    num_components=3,
)
TEMPORAL = TemporalTransformer(
    num_components=3, num_frames=4, depth=1, num_heads=2, dim_head=4, mlp_dim=16, head="mlp"
)
DETECTOR = Detector(num_classes=5, width=4, grid=4)
# Of 64 pictures, as compiling takes longer than anything else.
EMBED = jax.jit(functools.partial(ENCODER.apply, method="embed"))
DETECT = jax.jit(DETECTOR.apply)


def network(module, shape, seed=0) -> Network:
    """Random values where `init` would put its own, which takes longer."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros(shape, np.float32))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32)  # noqa: E731
    return Network(module, dict(jax.tree.map(draw, shapes)))


def video(n: int, height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    """Pictures uint8 (n, height, width, 3) that differ a lot."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    return colours.repeat(height // 4, axis=1).repeat(width // 4, axis=2)


def standardise(dense: dict, outputs: jax.Array) -> None:
    """Changes the last layer of a network so that these outputs (N, F) have deviation 2."""
    outputs = np.asarray(outputs)
    dense["bias"] = 2 * (dense["bias"] - outputs.mean(0)) / outputs.std(0)
    dense["kernel"] = 2 * dense["kernel"] / outputs.std(0)


def networks() -> dict[str, Network]:
    """Random ones, standardised so that pictures that differ give outputs that do.

    Without that all embeddings and all probabilities of a random network are nearly the same.
    """
    encoder = network(ENCODER, (4, *SIZE, 3), 1)
    temporal = network(TEMPORAL, (1, 4, 16), 2)
    images = augment.normalise(video(64, *SIZE), PICTURES.mean, PICTURES.std)
    features = inference(ENCODER).apply(
        encoder.variables, images, method=lambda module, x: module.encoder(x)
    )
    params = encoder.variables["params"]
    hidden = features @ params["first_head"]["dense"]["kernel"]
    hidden = np.asarray(hidden + params["first_head"]["dense"]["bias"])
    statistics = encoder.variables["batch_stats"]
    statistics["first_head"]["norm"] = {"mean": hidden.mean(0), "var": hidden.var(0)}
    statistics["second_head"] = jax.tree.map(np.abs, statistics["second_head"])
    embeddings = EMBED(encoder.variables, images)
    logits = TEMPORAL.apply(temporal.variables, embeddings.reshape(16, 4, -1))
    standardise(temporal.variables["params"]["head"], logits)
    detector = network(DETECTOR, (1, *SIZE, 3), 3)
    logits = DETECT(detector.variables, images)["logits"][:, 0]
    standardise(detector.variables["params"]["logits"], logits)
    return {"encoder": encoder, "temporal": temporal, "detector": detector}


NETWORKS = networks()


def write(
    folder,
    streams=("asd", "temporal", "storm"),
    settings=SETTINGS,
    calibration=None,
    **changes,
) -> None:
    record = content.StreamRecord(settings, FIGURES, FIGURES | {"f1": 0.5}, calibration)
    records = dict.fromkeys(streams, record)
    if "learned" in records:
        records["learned"] = dataclasses.replace(
            record, settings=learned_stream.LearnedSettings(install=0.5)
        )
        changes = {"fusion": default_weights("csv")} | changes
    fields = {
        "procedure": PROCEDURE,
        "fps": 10.0,
        "pictures": PICTURES,
        "window": WINDOW,
        "networks": NETWORKS,
        "max_detections": 2,
        "streams": records,
        "origin": {"config": {"seed": 0}, "data": ["a", "b"]},
        "batch": 16,
    }
    fields |= changes
    fields["networks"] = FlaxNetworks(fields["networks"], "float32")
    write_model(folder, content.Content(**fields))


def of_clips() -> dict:
    """What `write` takes for a model without a detector, whose clips tell what holds at their end.

    The temporal network's logits have deviation 2 over clips of random embeddings.
    """
    module = dataclasses.replace(TEMPORAL, outputs=3)
    temporal = network(module, (1, 4, 16), 2)
    clips = np.random.default_rng(0).normal(0, 1, (64, 4, 16)).astype(np.float32)
    logits = module.apply(temporal.variables, clips)
    standardise(temporal.variables["params"]["head"], logits)
    networks = {"encoder": NETWORKS["encoder"], "temporal": temporal}
    return {"networks": networks, "fusion": default_weights("clips")}


def with_temporal(folder, module):
    """A model with this temporal network, whose probabilities lie on both sides of ½."""
    variables = network(module, (1, 4, 16), 5).variables
    head = variables["params"]["head"]
    variables["params"]["head"] = {"kernel": 4 * head["kernel"], "bias": 0 * head["bias"]}
    networks = {"encoder": NETWORKS["encoder"], "temporal": Network(module, variables)}
    write(folder, ["temporal"], networks=networks)
    return folder
