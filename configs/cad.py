"""Your own product from its CAD files and its procedure alone: no video is recorded.

python -m stormpsr_jax.main --config=cad --config.procedure=pump.json \
    --config.data.synthetic.meshes=MESHES --workdir=RUN

Stage `data` renders the recordings to learn from, to choose by and to score, so that the figures
are of renders too. Labelled real recordings (data_prep.own) join them with
--config.data.extra=REAL: they are trained on as well, four or more for validation choose thresholds
and confidences, and those for testing are scored (docs/own-product.md).

Fields to look at first:
* data.synthetic.poses, .up: right and wrong places of parts, and what points up, if the meshes
  are not in their assembled places with z up (docs/formats.md#mesh-folders).
* data.synthetic.world: "anywhere", the default, has half of its recordings from a head's camera, as
  "toy" has all, and half from cameras 10 degrees up and more, benches of any texture, and gloss.
* data.synthetic.size, up to 640, with data.synthetic.recordings, .cad_per_state and .cad_wrong:
  what rendering takes, which a line tells before it starts; finished recordings are kept.
* data.synthetic.fps: that of the procedure where real recordings join.
* init_from: general_encoder, which ships, fits the encoder of configs/synthetic_full.py, from which
  everything else comes, as detector.init_from=general_detector does ('' fits any shape). A
  published ViT of today takes --config.encoder.backbone=NAME, its weights as init_from, and
  encoder.patch_size, .width, .depth and .num_heads 0, .stem '()' (docs/research.md#backbones).
* evaluate.risk: the share of incorrect installations that may be reported as installed, by what
  renders show.
Hardware: 2 CPU cores; ten minutes with half of detector.steps. Measured with these, on videos of
another renderer, from a head's camera (docs/own-product.md), world "toy", four products, two seeds
each: F1 .87 to .98, POS .62 to .94, 8 of 82 wrong parts accepted. Real video was never tried.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import synthetic_full


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = synthetic_full.get_config()
    c.data.synthetic.world = "anywhere"
    c.procedure = ""  # has to be named, but for a product that is drawn
    c.embed.every = 1  # as its figures were measured
    # Right and wrong are told apart last, once it is known how products lie: by a start that knows,
    # most of a batch, and twice the steps that states take (benchmarks/results/bench.md).
    c.detector.init_from = "general_detector"
    c.detector.update(background=0.1, unboxed_share=0.25, cad=0.5, cad_wrong=0.9)
    c.detector.update(steps=4_000, eval_every=4_000)
    return c
