"""docs/own-product.md, followed to the letter: a second run starts from the first one."""

import json

import pytest

from tests.support.guide import REPOSITORY, film, follow

STAGES = "--config.stages=('pretrain','embed','temporal','predict','evaluate')"


def add_video(folder, i):
    completions = [3.0 + i, 8.0 + i, 13.0 + i / 2]
    film(folder / "videos" / f"bench_{i:02d}.mp4", completions, i)
    return completions


@pytest.mark.usefixtures("system")
def test_labelling_page_from_the_first_videos_to_the_second_round(tmp_path):
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for name in ("videos", "labels"):
        (tmp_path / name).mkdir()
    follow(tmp_path, "procedure")
    for i in range(1, 5):
        rows = "".join(f"{time},{3 * k}\n" for k, time in enumerate(add_video(tmp_path, i)))
        (tmp_path / f"labels/bench_{i:02d}.csv").write_text(f"time,step\n{rows}")
    assert "4 recordings (assembly 4), 12 steps" in follow(tmp_path, "look")
    follow(tmp_path, "prepare")
    assert "temporal" in follow(tmp_path, "train", STAGES)
    run = tmp_path / "runs/pump"
    result = json.loads((run / "metrics.json").read_text())
    assert list(result["streams"]) == ["temporal"]
    (name,) = result["streams"]["temporal"]["recordings"]
    assert (run / "report.html").is_file()
    predicted = (run / f"predictions/test/temporal/{name}_results_pred.csv").read_text()
    assert len(predicted.splitlines()) == 1 + 18 * 5  # every frame
    splits = json.loads((tmp_path / "data/settings.json").read_text())["splits"]

    rows = "".join(f"{time},{3 * k}\n" for k, time in enumerate(add_video(tmp_path, 5)))
    (tmp_path / "labels/bench_05.csv").write_text(f"time,step\n{rows}")
    shards = {path.stat().st_ino for path in (tmp_path / "data").glob("clips-*")}
    said = follow(tmp_path, "again", STAGES)
    assert "5 recordings (assembly 5), 15 steps" in said
    assert "arrays from runs/pump/pretrain/best.safetensors" in said
    assert len({path.stat().st_ino for path in (tmp_path / "data").glob("clips-*")} - shards) == 1
    now = json.loads((tmp_path / "data/settings.json").read_text())["splits"]
    assert now == splits | {"train": [*splits["train"], "bench_05"]}
    model = json.loads((tmp_path / "runs/pump_2/model/model.json").read_text())
    first, second = model["origin"]["trained"]["pretrain"]
    assert first["recordings"]["train"] == splits["train"]
    assert second["recordings"]["train"] == now["train"]
    trained = "* pretrain was trained 2 steps on 3 recordings, then 2 steps on 4 recordings"
    assert trained in (tmp_path / "runs/pump_2/model/README.md").read_text()
