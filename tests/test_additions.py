"""CONTRIBUTING.md's list of additions: in a copy, each takes the files that it names there."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.guide import additions
from tests.support.processes import environment

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
            from stormpsr_jax.networks.temporal_baselines import Baseline

            class TemporalMean(Baseline):
                def _features(self, x, drop):
                    return drop(x.mean(axis=1))
            """,
        "stormpsr_jax/networks/architectures.py": {
            "import TemporalTransformer\n": (
                "from stormpsr_jax.networks.temporal_mean import TemporalMean\n"
            ),
            '    "tcn": TemporalTCN,\n': '    "mean": TemporalMean,\n',
        },
        DEFAULT: {'backbone: Literal["transformer", "mlp", "lstm", "tcn"': ', "mean"'},
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
            'return source.kind == "xml" and source.xml.tag == "ANNOTATION_DOCUMENT"\n': """

def _is_lines(source):
    return source.kind == "text" and source.text.startswith("# steps")


def _read_lines(source):
    rows = (line.split(" at ") for line in source.text.splitlines()[1:])
    return [Entry(s, float(t), Unit.SECONDS, "a line") for s, t in rows]

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
from stormpsr_jax import __main__, main
from stormpsr_jax.configs import synthetic
from stormpsr_jax.recordings.label_file import FORMATS, LabelFile
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
values = config_flag.typed(config)
stages = order.stages(values)
made = run.run_of(values, work, None)
architectures.check(stages["temporal"].network(made), "here")
assert stages["embed"].loud is False
assert streams.names()[-1] == "both"
assert metrics.summarise({"a": metrics.score_recording([(1, 0)], [(2, 0)], 1.0)})["steps"] == 1
assert headline.FIGURES[0].key == "steps"
assert "data museum" in __main__.usage() and "museum's videos" in __main__.usage()
(work / "labels.txt").write_text("# steps\\nInstall base at 3.5\\n")
(entry,) = LabelFile(work / "labels.txt").entries
assert "lines" in FORMATS and "Install base" in str(entry)
print("all work")
"""


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
