"""CONTRIBUTING.md's list of additions: in a copy, each takes the files that it names there."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from stormpsr_jax import load_model, main, recognise
from stormpsr_jax.base.files import read_json
from stormpsr_jax.stages import config_flag, remaking, run
from stormpsr_jax.training.devices import make_mesh
from stormpsr_jax.training.metrics import read_metrics
from tests.support import model_data
from tests.support.guide import additions
from tests.support.processes import environment
from tests.support.tiny import opened, tiny

ROOT = Path(__file__).parents[1]
DEFAULT = "stormpsr_jax/configs/default.py"
BEHIND_SECTION = '"""Fields of a config that belong together."""\n'

# By addition, what is written: a new file, or what stands behind a text of an old one.
ADDITIONS = {
    "a stage": {
        "stormpsr_jax/stages/count.py": """
            import dataclasses

            from stormpsr_jax.base import files
            from stormpsr_jax.configs import default as sections
            from stormpsr_jax.stages.data import Reads
            from stormpsr_jax.stages.stage import Stage

            @dataclasses.dataclass(frozen=True)
            class Counting(Stage):
                name = "count"
                results = ("count/counts.json",)
                count: sections.Counted

                def make(self, run):
                    recordings = run.data.source("test").recordings.values()
                    count = sum(r.num_frames for r in recordings)
                    files.write_json(run.workdir / "count/counts.json", count)
                    return {"count": count}

                def reads(self, run):
                    return [Reads(("states",), ("test",))]

                def check(self, run):
                    least = self.count.least
                    return [f"--config.count.least={least}: is odd"] if least % 2 else []
            """,
        "stormpsr_jax/stages/order.py": {
            "from stormpsr_jax.configs.default import Config\n": (
                "from stormpsr_jax.stages.count import Counting\n"
            ),
            "    known = (": "Counting(c.count), ",
        },
        DEFAULT: {
            BEHIND_SECTION: "\n\nclass Counted(Section, frozen=True):\n    least: Count = 2\n",
            "    mesh: Mesh = Mesh()\n": "    count: Counted = Counted()\n",
        },
    },
    "a stream": {
        "stormpsr_jax/psr/both.py": (ROOT / "tests/support/toy_stream.py").read_text(),
        "stormpsr_jax/psr/streams.py": {
            "import LEARNED\n": "from stormpsr_jax.psr.both import BOTH\n",
            "(ASD, TEMPORAL, STORM, LEARNED": ", BOTH",
        },
    },
    "a temporal network": {
        "stormpsr_jax/networks/temporal_mean.py": """
            from stormpsr_jax.networks.temporal import Baseline

            class TemporalMean(Baseline):
                def _features(self, x, drop):
                    return drop(x.mean(axis=1))
            """,
        "stormpsr_jax/networks/architectures.py": {
            "    TemporalTransformer,\n)\n": (
                "from stormpsr_jax.networks.temporal_mean import TemporalMean\n"
            ),
            '    "tcn": TemporalTCN,\n': '    "mean": TemporalMean,\n',
        },
        DEFAULT: {'one_of_or_own("transformer", "mlp", "lstm", "tcn"': ', "mean"'},
    },
    "a loss": {
        "stormpsr_jax/training/losses.py": {
            "errors import one_line\n": """
def twice_bce(logits, labels):
    return 2 * multilabel_bce(logits, labels)
"""
        },
        DEFAULT: {'one_of_or_own("multilabel_bce"': ', "twice_bce"'},
    },
    "a metric": {
        "stormpsr_jax/psr/metrics.py": {'        "tp": tp,\n': '        "steps": len(truth),\n'},
        "stormpsr_jax/psr/headline.py": {
            "FIGURES = (\n": '    Figure("steps", "Steps", "True steps."),\n'
        },
    },
    "a data set": {
        "data_prep/museum.py": '"""Makes clips of the museum\'s videos."""\n',
        "stormpsr_jax/__main__.py": {
            '    "data own": "data_prep.own",\n': '    "data museum": "data_prep.museum",\n'
        },
    },
    "a label format": {
        "stormpsr_jax/recordings/label_tools.py": {
            'return isinstance(content, Element) and content.tag == "ANNOTATION_DOCUMENT"\n': """

def _is_lines(content):
    return isinstance(content, str) and content.startswith("# steps")


def _read_lines(content, path):
    rows = (line.split(" at ") for line in content.splitlines()[1:])
    return {(): [Entry(s, float(t), Unit.SECONDS, "a line") for s, t in rows]}

""",
            "TOOLS = (\n": '    Tool("lines", _is_lines, _read_lines),\n',
        },
    },
    "a field of a config": {
        DEFAULT: {"    every: Frames = 1  # of": " old\n    loud: bool = False  #"},
        "stormpsr_jax/stages/embed.py": {
            '    name = "embed"\n': "    loud = property(lambda self: self.embed.loud)\n"
        },
    },
}

EXERCISE = """
import sys
from pathlib import Path
import numpy as np
from stormpsr_jax import __main__, main
from stormpsr_jax.configs import synthetic
from stormpsr_jax.recordings.label_file import FORMATS, LabelPlace
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.psr import headline, metrics
from stormpsr_jax.psr import streams
from stormpsr_jax.networks import architectures
from stormpsr_jax.stages import config_flag, order, run

data, work = map(Path, sys.argv[1:])
words = ["--config=synthetic", f"--config.data.dir={data}", f"--workdir={work}"]
main.main([*words, "--config.stages=('count',)", "--config.count.least=4"])
assert int((work / "count/counts.json").read_text()) > 0
try:
    main.main([*words, "--config.stages=('count',)", "--config.count.least=3"])
except SystemExit as end:
    assert end.code == 2
config = synthetic.get_config()
config.temporal_model.backbone = "mean"
config.temporal.loss = "twice_bce"
config.temporal.state_loss = 0.0
values = config_flag.typed(config)
stages, made = order.stages(values), run.run_of(values, work, None)
architectures.check(stages["temporal"].network(made), "here", (2, 17, 8))
zeros = np.zeros((2, made.procedure.num_components), np.float32)
loss, _ = stages["temporal"].loss(made, 2)(zeros, {"label": zeros}, {})
np.testing.assert_allclose(loss, 2 * np.log(2), rtol=1e-6)
assert stages["embed"].loud is False
assert streams.names()[-1] == "both"
assert metrics.summarise({"a": metrics.score_recording([(1, 0)], [(2, 0)], 1.0)})["steps"] == 1
assert headline.FIGURES[0].key == "steps"
assert "data museum" in __main__.usage() and "museum's videos" in __main__.usage()
(work / "labels.txt").write_text("# steps\\nInstall base at 3.5\\n")
(entry,) = LabelPlace(work / "labels.txt").entries
assert "lines" in FORMATS and "Install base" in str(entry)
print("all work")
"""


@pytest.mark.system
def test_each_addition_takes_the_files_that_the_list_names_and_works(rendered, tmp_path):
    listed = additions()
    for name in ("stormpsr_jax", "data_prep"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for addition, files in ADDITIONS.items():
        for path, content in files.items():
            shown = path.removeprefix("stormpsr_jax/") if path == DEFAULT else path
            pattern = re.sub(r"[a-z_]+\.py$", "NAME.py", path)
            assert {shown, pattern} & {*listed[addition][1]}, (addition, path)
            place = tmp_path / path
            if isinstance(content, str):
                place.write_text(textwrap.dedent(content))
            else:
                text = place.read_text()
                for where, more in content.items():
                    assert where in text, where
                    text = text.replace(where, where + more, 1)
                place.write_text(text)
    (tmp_path / "exercise.py").write_text(EXERCISE)
    words = [sys.executable, "exercise.py", rendered / "data", tmp_path / "work"]
    env = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.endswith("all work\n"), done.stdout + done.stderr
    assert "error: --config.count.least=3: is odd" in done.stderr


# What CONTRIBUTING.md's recipes for users' own code ask for, in a module beside their data.
OWN = """
from collections.abc import Callable
import flax.linen as nn
import jax
import jax.numpy as jnp


class Net(nn.Module):
    num_components: int
    outputs: int = 1
    width: int = 8
    shares: tuple[float, ...] = (1.0,)
    act: Callable = nn.gelu
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, embeddings, train=False):
        x = nn.Dense(self.width)(embeddings.mean(axis=1) * self.shares[0])
        x = nn.Dropout(0.1, deterministic=not train)(self.act(x))
        return nn.Dense(self.outputs * self.num_components)(x)


class Frames(Net):
    def __call__(self, embeddings, train=False):
        return jnp.zeros((*embeddings.shape[:2], self.num_components))


class Normed(Net):
    @nn.compact
    def __call__(self, embeddings, train=False):
        x = nn.BatchNorm(use_running_average=not train)(embeddings.mean(axis=1))
        return nn.Dense(self.outputs * self.num_components)(x)


def contrast(z, labels):
    return jnp.square(z @ z.T - (labels[:, None] == labels)).mean()


def squared(logits, labels):
    return jnp.square(jax.nn.sigmoid(logits) - labels).mean(axis=-1)


print("executed")
"""
FIELDS = {
    "temporal_model.backbone": "own:Net",
    "temporal_model.fields": "width=12,shares=(0.5,1)",
    "pretrain.loss": "own:contrast",
    "temporal.loss": "own:squared",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of module `own`, from which commands are given."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own", None)


@pytest.mark.usefixtures("system")
def test_a_users_network_and_losses_train_and_recognise_without_a_fork(rendered, own, capsys):
    stages = ("pretrain", "embed", "temporal", "finetune", "predict", "evaluate")
    config = tiny(**FIELDS, stages=stages, **{"data.dir": str(rendered / "data")})
    main.run(config, own / "run")
    for stage, loss in (("pretrain", "contrast"), ("temporal", "loss")):
        assert loss in read_metrics(own / "run" / stage / "metrics.jsonl")[0]
    described = read_json(own / "run/model/model.json")["networks"]["temporal"]
    known = {"outputs": 3, "width": 12, "shares": [0.5, 1.0], "dtype": "float32"}
    assert described.items() > {"architecture": "own:Net", **known}.items()
    clips = np.random.default_rng(0).normal(size=(3, 5, 16)).astype(np.float32)
    given = load_model(own / "run", ["own"]).temporal(clips)
    assert np.ptp(given) > 0
    words = [own / "pictures", "--model=run", "--out=out", "--stream=temporal"]
    (own / "pictures").mkdir()
    for i in range(30):
        picture = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        (own / f"pictures/{i:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture))
    with pytest.raises(SystemExit):
        recognise.main([*map(str, words)])
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "'own:Net' is not one of" in line
    assert "--modules=MODULE" in line
    assert recognise.main([*map(str, words), "--modules=own"]) == 0
    assert (own / "out/pictures/events.csv").is_file()
    # Other code of theirs is a change like others; the same is none.
    made, values = opened(config, own / "run", make_mesh(1, 1))
    assert remaking.stale(made, [values["temporal"]]) == {}
    (own / "own.py").write_text(OWN + "\n")
    (why,) = remaking.stale(made, [values["temporal"]]).values()
    assert "code of own:Net" in why[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_model.backbone": "own:Other"}, "own:Other: cannot be imported: AttributeError"),
        ({"temporal_model.backbone": "nowhere:Net"}, "cannot be imported: ModuleNotFoundError"),
        ({"temporal_model.backbone": "own:squared"}, "is no subclass of flax.linen.Module"),
        ({"temporal_model.backbone": "own:Frames"}, "gives (16, 5, 11) of clips (16, 5, 16)"),
        (
            {"temporal_model.backbone": "gru"},
            "is not one of transformer, mlp, lstm, tcn, or MODULE",
        ),
        ({"temporal_model.backbone": "own:Normed"}, "batch_stats, params, not params alone"),
        ({"temporal_model.fields": "height=3"}, "unexpected keyword argument 'height'"),
        ({"temporal_model.fields": "width=a"}, "width: expected int, got str"),
        ({"temporal_model.fields": "act=gelu"}, "tuples of numbers alone can be fields"),
        ({"temporal_model.fields": "width"}, "should be like depth=2,width=64"),
        ({"temporal_model.fields": "num_components=2"}, "multiple values for keyword argument"),
        ({"temporal_model.backbone": "mlp"}, "is for a network of your own"),
        ({"temporal_model.context_frames": 2}, "unexpected keyword argument 'context_frames'"),
        ({"temporal.loss": "own:contrast"}, "and not (16,)"),
        ({"temporal.loss": "bce"}, "is not one of multilabel_bce, or MODULE:NAME of yours"),
        ({"pretrain.loss": "own:squared"}, "and not ()"),
        ({"pretrain.loss": "own:nothing"}, "has no attribute 'nothing'"),
    ],
)
def test_an_error_in_a_users_own_code_is_a_line_that_names_the_field(
    rendered, own, changes, message
):
    given = {**FIELDS, **changes, "data.dir": str(rendered / "data")}
    config = tiny(**given, stages=("pretrain", "embed", "temporal"))
    if not (lines := config_flag.find_errors(config)):
        made, stages = opened(config, own / "run", make_mesh(1, 1))
        chosen = [stages[name] for name in config.stages]
        lines = run.find_errors(config_flag.typed(config), made, chosen)
    (line,) = lines
    (field,) = changes
    assert line.startswith(f"--config.{field}") or line.startswith("--config.temporal_model")
    assert message in line
    assert line.isprintable()


@pytest.mark.parametrize(("path", "modules"), [("os:system", ()), ("own:Net", ["os"])])
def test_a_model_folder_that_names_code_is_refused_in_a_line(own, capfd, path, modules):
    model_data.write(own / "model")
    place = own / "model/model.json"
    data = read_json(place)
    del data["checksum"]
    data["networks"]["temporal"]["architecture"] = path
    place.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"networks.temporal: architecture: '{path}' is") as caught:
        load_model(own / "model", modules)
    assert str(caught.value).startswith(f"{place}: ")
    assert str(caught.value).isprintable()
    assert "own" not in sys.modules
    assert capfd.readouterr() == ("", "")
