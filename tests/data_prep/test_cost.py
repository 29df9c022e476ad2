import numpy as np
import pytest

from data_prep import synthetic
from data_prep.products import products


@pytest.mark.usefixtures("system")  # takes seconds
def test_what_is_told_of_a_product_comes_true_and_of_a_finished_folder_nothing(tmp_path, capsys):
    def make():
        synthetic.make_dataset(
            tmp_path, of=products.drawn(2), size=16, fps=1, recordings={"val": 2}, cad_per_state=2
        )
        return capsys.readouterr().out

    (line,) = make().splitlines()
    size = sum(path.stat().st_size for path in tmp_path.glob("clips-*"))
    frames = int(line.partition(" ")[0].replace(",", ""))
    with np.load(tmp_path / "labels" / "val.npz") as file:
        assert frames == len(file["states"]) + 2 * products.drawn(2).procedure.num_states
    told = float(line.partition(" MB")[0].rpartition(" ")[2]) * 1e6
    assert told == pytest.approx(size, rel=0.3)
    assert "a minute or less" in line
    assert make() == ""
