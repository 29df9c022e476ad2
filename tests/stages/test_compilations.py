import collections

import jax
import pytest

from stormpsr_jax.serving import functions
from stormpsr_jax.stages import detector, embed, finetune, networks, pretrain, temporal
from stormpsr_jax.stages.context import Context
from stormpsr_jax.stages.stage import train_stage
from stormpsr_jax.training.sharding import make_mesh
from tests.support.tiny import TRAINED, tiny

STAGES = {"pretrain": pretrain, "temporal": temporal, "finetune": finetune, "detector": detector}
TIMES = {"steps": 4, "eval_every": 2}
# What else is compiled once a stage: random weights, the first state.
# Not counted is the arithmetic of learning rates and random keys, on single numbers.
FEW = {"init", "new_state"}
NUMBERS = {"_threefry_fold_in", "_threefry_seed", "convert_element_type", "stage"}
NUMBERS |= {"minimum", "maximum", "true_divide", "multiply", "cos", "add", "subtract", "_where"}


@pytest.fixture
def compiled():
    """The names of programs that JAX has made ready since, from scratch or from a store."""
    found = []

    def listen(event, _, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(facts["fun_name"].removeprefix("jit(").removesuffix(")"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.usefixtures("system")  # networks that learn
def test_every_stage_compiles_a_step_and_what_judges_it_and_later_stages_find_it(
    rendered, tmp_path, compiled
):
    steps = {f"{stage}.{field}": n for stage in TRAINED for field, n in TIMES.items()}
    every = {"checkpoint_every": 2, "log_every": 1}
    config = tiny(**steps, **every, **{"data.dir": str(rendered / "data")})
    context = Context(config, tmp_path, make_mesh(1, 1))
    for cached in (functions._jitted, networks._clip_logits):
        cached.cache_clear()  # of other tests
    large = {}
    for name in ("pretrain", "embed", "temporal", "finetune", "detector"):
        compiled.clear()
        if name == "embed":
            embed.run(context)
        else:
            train_stage(context, name, STAGES[name].build(context))
        counts = collections.Counter(compiled)
        assert set(counts.values()) <= {1}, counts
        large[name] = set(counts) - FEW - NUMBERS
    assert large == {
        "pretrain": {"step", "encode"},
        "embed": set(),
        "temporal": {"steps", "clip_logits"},
        "finetune": {"step"},  # judged by the two functions that are there already
        "detector": {"step", "detect"},
    }
