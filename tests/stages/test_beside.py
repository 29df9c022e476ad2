"""Stage `detector` in a process of its own, beside the others."""

import pytest

from stormpsr_jax import main
from stormpsr_jax.base import files
from tests.support.tiny import tiny


@pytest.mark.usefixtures("system")
def test_beside_trains_the_same_detector_and_is_not_needed(tmp_path, capsys):
    stages = ("data", "pretrain", "detector")
    config = tiny(stages=stages)
    main.run(config, tmp_path / "a")
    config.beside, config.data.dir = True, str(tmp_path / "a" / "data")
    main.run(config, tmp_path / "b")
    told = capsys.readouterr().out
    assert "detector: trains beside the others" in told
    assert f"detector: taken over from {tmp_path / 'b' / 'beside'}" in told
    (tmp_path / "c" / "beside").mkdir(parents=True)
    with files.open_locked(
        tmp_path / "c" / "beside" / "lock", wait=False
    ):  # so that it cannot work there
        main.run(config, tmp_path / "c")
    assert "beside/log.txt: did not get to its end" in capsys.readouterr().err
    best = {(tmp_path / run / "detector" / "best.safetensors").read_bytes() for run in "abc"}
    assert len(best) == 1
    assert not (tmp_path / "b" / "beside").exists()
