"""Stage `data`: renders the synthetic assembly into clip shards, for runs that bring no data."""

from __future__ import annotations

import jax

from stormpsr_jax.stages.context import Context


def run(context: Context) -> dict:
    """Fills `config.data.dir` (WORKDIR/data); recordings that are already there are kept."""
    if jax.process_index() != 0:
        return {}
    from data_prep import synthetic  # the ray tracer is an extra

    config = context.config.data.synthetic
    if config.objects.train:
        synthetic.make_objects(
            context.data_dir,
            seed=config.seed,
            objects=dict(config.objects),
            frames_per_object=config.frames_per_object,
            size=config.size,
            num_components=context.procedure.num_components,
            workers=config.workers,
        )
    else:
        synthetic.make_dataset(
            context.data_dir,
            seed=config.seed,
            occlusion=config.occlusion,
            recordings=None if config.timelines else dict(config.recordings),
            size=config.size,
            fps=config.fps,
            cad_per_state=config.cad_per_state,
            cad_wrong=config.cad_wrong,
            rehearsals=config.rehearsals,
            rehearsal_step=config.rehearsal_step,
            workers=config.workers,
            timelines=config.timelines or None,
            time_scale=config.time_scale,
            pace=config.pace,
        )
    return {}
