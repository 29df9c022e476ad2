"""Your own recordings, a handful to some dozens of them: small pictures, small models, a laptop.

python -m data_prep.own --videos=DIR --labels=DIR --procedure=FILE --out=DATA --size=64
python -m stormpsr_jax.main --config=own --config.data.dir=DATA --workdir=RUN

With boxes (`data_prep.own --boxes=DIR`) the detector is trained too: --config=own:boxes. Without,
`learned` weighs what the temporal network alone says of clips, which tells little of right and
wrong. With meshes of the parts, configs/cad.py trains on renders and on DATA together.

Ten videos teach little of right and wrong (rendered, docs/own-product.md): parts that are installed
incorrectly in none of them are right by a person's word alone, and of the others a quarter of the
incorrect installations are accepted with boxes, and two fifths without (evaluate.risk), as less
leaves more than a third of the correct ones without a verdict.

With the extra `photos` and --size=128 (or more) the encoder is one that has seen photographs, as it
is: --config=own:photos, own:boxes,photos. --config.pretrain.steps=240 trains it on.

With features of your own, a row a frame in DIR/RECORDING.npy: --config=own:embeddings (or
own:boxes,embeddings) --config.embed.files=DIR. No model folder comes of it.

Fields to look at first:
* window.frames counts frames of the shards: 64 are 12.8 s at 5 frames/s. Hidden stretches should be
  shorter, and so should be the recordings' shortest pauses between two changes of one component.
  temporal.delta and temporal.sigma grow and shrink with it.
* pretrain.t_f: seconds after a completion that certainly show its state.
* pretrain.steps, temporal.steps, detector.steps: more of them with more recordings.
* predict.splits, evaluate.decoder: what is recognised and how.
* evaluate.risk: the share of incorrect installations that may be reported as installed. Its
  threshold goes by your validation recordings with one, and by what models of other products
  accepted.
init_from='general_encoder' fits 64-pixel pictures and the encoder of configs/synthetic_full.py,
from which everything else comes. Full-size models: start from configs/industreal.py and --size=640.
Hardware: 2 CPU cores. Time and result depend on the recordings and have not been measured on real
ones yet.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic_full

KNOWN = ("boxes", "photos", "boxes,photos", "embeddings", "boxes,embeddings")  # after the colon


def get_config(extra: str = "") -> ConfigDict:
    """Returns the locked configuration; `extra` is what follows the colon: "", or one of KNOWN.

    Raises:
        ValueError: something else follows it.
    """
    if extra not in ("", *KNOWN):
        raise ValueError(f"own:{extra}: only own:{' and own:'.join(KNOWN)} are known")
    boxes, photos, embeddings = (what in extra for what in ("boxes", "photos", "embeddings"))
    c = synthetic_full.get_config()
    c.stages = ("pretrain", "embed", "temporal", "predict", "fuse", "evaluate")
    c.fuse.world = "own"
    # As little as leaves a third of the correct installations, or two fifths, without a verdict.
    c.evaluate.risk = 0.4
    if boxes:
        c.evaluate.risk = 0.25
        # Measured with it (benchmarks/results/own-product-videos.md).
        c.detector.init_from = "general_detector"
        learning = ("pretrain", "embed", "temporal", "detector")
        c.stages = (*learning, "predict", "fuse", "evaluate")
    if embeddings:
        c.stages = tuple(stage for stage in c.stages if stage != "pretrain")
    c.procedure = ""  # the one that the data were prepared with
    c.embed.every = 1  # a handful of recordings has no clip to spare
    c.augment.occluders = 0.0  # videos have hands of their own
    c.augment.light = 0.5  # the next ones may be of another room and camera
    c.pretrain.cad_per_state = 0
    c.pretrain.n_per_state = 4
    c.detector.update(cad=0.0, cad_wrong=0.0, part_loss=1.0, pose_loss=0.0)
    if photos:
        c.init_from = "photos"
        c.encoder.update(backbone="efficientnet_lite0", image_size=128, stem=())
        c.encoder.update(patch_size=0, width=0, depth=0, num_heads=0)
        # Of the detector too, which may start from weights of other ones: the cost is not known.
        c.data.update(mean=(0.498,) * 3, std=(0.502,) * 3)
        c.pretrain.steps = 0
        c.detector.image_size = 64  # as without them
    return c
