"""The stages that there are, as values made of a config, in the order in which a run makes them."""

import msgspec

from stormpsr_jax.configs.default import Config
from stormpsr_jax.stages.detector import DetectorTraining
from stormpsr_jax.stages.embed import Embedding
from stormpsr_jax.stages.evaluate import Evaluation
from stormpsr_jax.stages.finetune import Finetuning
from stormpsr_jax.stages.fuse import FusionFit
from stormpsr_jax.stages.predict import Prediction
from stormpsr_jax.stages.pretrain import Pretraining
from stormpsr_jax.stages.rendering import Rendering
from stormpsr_jax.stages.stage import Stage
from stormpsr_jax.stages.temporal import TemporalTraining


def stages(config: Config) -> dict[str, Stage]:
    """Returns all stages by name, those too that config.stages leaves out."""
    c, chosen = config, config.stages
    encodes = not c.embed.files  # the encoder is
    looks = msgspec.structs.replace(c.augment, occluders=0.0)  # limbs are painted on renders alone
    upright = msgspec.structs.replace(looks, shift=0.0)  # boxes and poses would not follow

    render = Rendering(c.data.synthetic, c.procedure)
    pretrain = Pretraining(c.pretrain, c.encoder, c.augment, c.attention, c.init_from)
    embed = Embedding(c.embed, pretrain) if encodes else Embedding(c.embed, None, c.predict.splits)
    temporal = TemporalTraining(c.temporal, c.temporal_model, c.window, c.attention, embed)
    finetune = Finetuning(c.finetune, looks, c.attention, pretrain, temporal)
    detector = DetectorTraining(c.detector, upright)
    clips = temporal.name in chosen
    predict = Prediction(
        c.predict,
        c.window,
        detector=detector if detector.name in chosen else None,
        pretrain=pretrain if clips and encodes else None,
        temporal=temporal if clips else None,
        finetune=finetune if clips and finetune.name in chosen else None,
        embed=None if encodes else embed,
    )
    fuse = FusionFit(c.fuse, predict)
    fused = fuse if fuse.name in chosen else None
    evaluate = Evaluation(c.evaluate, c.window, predict, fused)
    known = (render, pretrain, embed, temporal, finetune, detector, predict, fuse, evaluate)
    return {stage.name: stage for stage in known}


NAMES = tuple(stages(Config()))  # which config.stages may have
