"""Stage `data`: has data_prep render recordings, for runs that bring no data.

Of the synthetic assembly, or of a product whose part meshes are given. It is a process of its own,
as rendering is an extra that the core does without.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from stormpsr_jax.base import installed, results
from stormpsr_jax.base.interruption import PARENT, deaf_to_ctrl_c
from stormpsr_jax.configs import default as sections
from stormpsr_jax.data.folder import procedure_differences
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.stages.stage import Run, Stage
from stormpsr_jax.training import hosts

COMMAND = "data_prep.synthetic"
WORKERS = min(hosts.cores(), 16)  # rendering processes


@dataclasses.dataclass(frozen=True)
class Rendering(Stage):
    """Fills the data folder; recordings that are already there are kept."""

    name = "data"

    synthetic: sections.Synthetic
    procedure: sections.File

    def made_from(self, run: Run) -> dict[str, dict[str, Any]]:
        """Its section, and what is in the files that this names."""
        config = {f"data.{field}": value for field, value in self.config.items()}
        files: dict[str, Any] = {}
        if self.synthetic.meshes:
            meshes, poses = Path(self.synthetic.meshes), self.synthetic.poses
            digest = results.of_folder(meshes)
            digest += results.of_input(Path(poses)) if poses else ""
            files["meshes or poses"] = digest
            files["procedure"] = results.of_json(run.procedure.to_json())
        return {"config": config, "stages": {}, "files": files}

    def is_given(self, run: Run) -> bool:
        """Whether it would make data that are there, and that this run has not made."""
        given = run.data.config.dir and run.data.is_there
        return bool(given) and not (run.workdir / self.name / results.RECORD).exists()

    def words(self, out: Path) -> list[str]:
        """The words of the command, after `python`."""
        s = self.synthetic
        options: dict[str, Any] = {
            **dict(zip(("train", "val", "test"), s.recordings, strict=True)),
            **{name: getattr(s, name) for name in ("seed", "occlusion", "world", "size", "fps")},
            "cad_per_state": s.cad_per_state,
            "cad_wrong": s.cad_wrong,
            "error_recordings": s.error_recordings,
            "up": s.up,
            "workers": WORKERS,
        }
        if s.meshes:
            options |= {"meshes": s.meshes, "procedure": self.procedure}
            options |= {"poses": s.poses} if s.poses else {}
        return ["-m", COMMAND, f"--out={out}"] + [f"--{n}={value}" for n, value in options.items()]

    def make(self, run: Run) -> dict[str, Any]:
        """Renders; the command says what is wrong with its input, and this ends with its status."""
        if jax.process_index() != 0:
            return {}
        words = [sys.executable, *self.words(run.data.directory)]
        path = os.pathsep.join(filter(None, sys.path))  # it finds what this process does
        env = {**os.environ, "PYTHONPATH": path, PARENT: str(os.getpid())}
        with deaf_to_ctrl_c():
            process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL)
        if status := process.wait():
            raise SystemExit(status if status > 0 else 1)
        return {}

    def check(self, run: Run) -> list[str]:
        """Says what would be noticed only when all is rendered."""
        if run.data.is_there:
            return []
        installed.check_extra("synthetic", ("trimesh", "numba"), "stage 'data'")
        return [*self._of_product(run), *self._of_sizes(run)]

    def _of_product(self, run: Run) -> Iterator[str]:
        """Says whether what would be rendered is not what the config's procedure is of."""
        config, fields = self.synthetic, "--config.data.synthetic."
        if not self.procedure:
            yield (
                "--config.procedure='': name the product to render, with --config.procedure=FILE "
                f"and {fields}meshes=DIR"
            )
        elif config.meshes:
            if not Path(config.meshes).is_dir():
                yield f"{fields}meshes={config.meshes}: no such folder"
        else:
            toy = load_procedure("synthetic")
            if what := procedure_differences(run.procedure, toy):
                yield (
                    f"--config.procedure={self.procedure}: stage 'data' renders the toy of "
                    f"procedure {toy.name!r}, with {what}; name that one, or give {fields}meshes "
                    "of yours"
                )

    def _of_sizes(self, run: Run) -> Iterator[str]:
        """Says whether pictures would be smaller than a network looks at."""
        for section in ("encoder", "detector"):
            if (size := getattr(run.data, f"{section}_size")) > self.synthetic.size:
                yield (
                    f"--config.{section}.image_size={size}: stage 'data' renders pictures of "
                    f"{self.synthetic.size}; raise --config.data.synthetic.size, or lower this"
                )
