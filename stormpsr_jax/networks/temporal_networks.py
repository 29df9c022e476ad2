"""The temporal encoders that a config and a model folder may name."""

from stormpsr_jax.networks import temporal_baselines as baselines
from stormpsr_jax.networks.temporal import TemporalTransformer

# By name, as `temporal_model.backbone` has it.
NETWORKS: dict[str, type[TemporalTransformer | baselines.Baseline]] = {
    "transformer": TemporalTransformer,
    "mlp": baselines.TemporalMLP,
    "lstm": baselines.TemporalLSTM,
    "tcn": baselines.TemporalTCN,
}
