"""The button of the labelling page that trains: its model proposes labels for the next video."""

import asyncio
import json
import shlex

import pytest

from tests.support.guide import SMALL, film
from tests.support.own_data import PROCEDURE

pytest.importorskip("sse_starlette", reason="needs the extra live")
pytest.importorskip("uvicorn", reason="needs the extra live")

from data_prep.label.keeping import keeping
from data_prep.label.project import Project
from data_prep.label.server import Server
from stormpsr_jax.live.access import Access, Address
from stormpsr_jax.psr.files.words import Terms


class SmallProject(Project):
    def training(self):
        commands, workdir = super().training()
        commands[1] += [f"--config.{key}={value}" for key, value in SMALL.items()]
        return commands, workdir


def test_training_and_training_on_end_with_proposals_for_the_next_video(system, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "labels").mkdir()
    for i in range(4):
        ends = [4 + i / 5, 8, 12]
        film(tmp_path / f"videos/bench{i}.mp4", ends, seed=i)
        rows = [f"{end},{3 * k}\n" for k, end in enumerate(ends)]
        (tmp_path / f"labels/bench{i}.csv").write_text("".join(["time,step\n", *rows]))
    (tmp_path / "labels/bench3.csv").unlink()  # the next one
    product = tmp_path / "pump.json"
    product.write_text(json.dumps(PROCEDURE.to_json()))

    async def train(server):
        await server._train()
        assert server._training.state == "done", server._training.line
        assert server._proposing.state == "done", server._proposing.line

    with keeping(tmp_path / "labels") as kept:
        words = (kept, str(product), PROCEDURE, Terms(), None)
        project = SmallProject(str(tmp_path / "videos"), *words)
        for recording in project.recordings.values():
            recording.build(PROCEDURE.fps)
        server = Server(project, Access(Address("127.0.0.1", 0), "a-token-of-24-characters"))
        proposed = kept.own / "proposals/bench3/events.jsonl"
        asyncio.run(train(server))
        first = proposed.stat().st_mtime_ns
        (tmp_path / "labels/bench0.csv").write_text("time,step\n4,0\n8,3\n12.4,6\n")
        assert "--remake=continue" in shlex.split(project.overview()["commands"][1])
        asyncio.run(train(server))
        assert proposed.stat().st_mtime_ns > first
        assert project.proposals.of("bench3", 90) is not None
