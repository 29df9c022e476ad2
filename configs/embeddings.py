"""Ready-made frame embeddings: the spatio-temporal stream alone, without any picture.

python -m data_prep.embeddings --features=DIR --labels=DIR --procedure=FILE --out=DATA
python -m stormpsr_jax.main --config=embeddings --config.data.dir=DATA --workdir=RUN

The width of the model is that of the embeddings. Everything in frames (window, delta, sigma) counts
frames of the video, whatever the stride of the embeddings, of which window.stride has to be a
multiple; in the predictions a row stands for the frames up to the next one. Temporal model and
recipe are the paper's (docs/research.md); for short recordings shorten the window, and with it
temporal.delta and temporal.sigma.
Hardware: one GPU, or a CPU for small models. It has not been measured on the data sets yet.
"""

from ml_collections import ConfigDict

from stormpsr_jax.configs import default


def get_config() -> ConfigDict:
    """Returns the locked configuration."""
    c = default.get_config()
    c.stages = ("temporal", "predict", "evaluate")
    c.procedure = ""  # the one that the data were prepared with
    return c
