import json
import struct
import types

import pytest
from tensorboardX.proto.event_pb2 import Event

from stormpsr_jax.training import metrics
from stormpsr_jax.training.metrics import MetricWriter, Pace, read_metrics
from tests.support.loop_toy import BATCH, run


def test_metric_writer_cuts_rows_beyond_the_step_and_partial_rows(tmp_path):
    writer = MetricWriter(tmp_path)
    for step in (5, 10, 15):
        writer.write(step, {"loss": 1 / step}, {"steps_per_second": 3.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 20, "lo')
    assert [row["step"] for row in read_metrics(path)] == [5, 10, 15]
    writer = MetricWriter(tmp_path, 10)
    writer.write(15, {"loss": 1 / 15})
    writer.close()
    assert path.read_text() == whole
    assert [json.loads(line)["step"] for line in whole.splitlines()] == [5, 10, 15]
    assert list((tmp_path / "tensorboard").glob("events*"))
    pace = read_metrics(tmp_path / "pace.jsonl")  # timings, of which the last row had none
    assert pace == [{"step": step, "steps_per_second": 3.0} for step in (5, 10)]


def events(path):
    """Of a TFRecord file: a length, its checksum, an event, its checksum, and so on."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_metric_writer_tensorboard_has_all_scalars_and_drops_later_steps(tmp_path):
    for step in (0, 5):
        writer = MetricWriter(tmp_path, step)
        writer.write(step + 5, {"loss": 0.5}, {"steps_per_second": 3.0})
        writer.write(step + 10, {"loss": 0.25, "val/score": None})
        writer.close()
    first, second = sorted((tmp_path / "tensorboard").glob("*tfevents*"))
    for path, step in ((first, 0), (second, 5)):
        version, start, *rest = events(path)
        assert version.file_version == "brain.Event:2"
        assert (start.step, start.session_log.status) == (step + 1, 1)  # START
        found = [(e.step, v.tag, v.simple_value) for e in rest for v in e.summary.value]
        assert found == [
            (step + 5, "loss", 0.5),
            (step + 5, "steps_per_second", 3.0),
            (step + 10, "loss", 0.25),
        ]


@pytest.mark.parametrize("line", ['{"step": 1, "lo', "[]", '{"loss": 2}'])
def test_read_metrics_errors_name_the_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2: is damaged"):
        read_metrics(path)
    path.write_text('{"step": 0}\n{"step": 1, "lo')  # a crash while it was written
    assert read_metrics(path) == [{"step": 0}]


def test_pace_rates_are_those_of_the_time_that_steps_take(monkeypatch):
    clock = types.SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(metrics, "time", clock)
    found = Pace(10, "clips")
    found.rows, found.operations = 256, 989 * 10**12
    with found.spent("apart"):
        clock.now += 50  # compilation
    with found.spent("waiting"):
        clock.now += 1
    clock.now += 3
    assert found.lap(18) == {
        "steps_per_second": 2.0,
        "clips_per_second": 512.0,
        "data_wait_share": 0.25,
        "flops_per_second": 2 * 989e12,
    }
    with found.spent("apart"):
        clock.now += 9  # evaluation
    clock.now += 2
    assert found.lap(20)["steps_per_second"] == 1.0


def test_every_row_of_training_has_its_pace_and_every_evaluation_its_seconds(tmp_path):
    run(tmp_path / "toy", steps_per_dispatch=3)
    rows = read_metrics(tmp_path / "toy" / "pace.jsonl")
    trained = [row for row in rows if "steps_per_second" in row]
    assert [row["step"] for row in trained] == [5, 10, 15, 20, 24]
    assert [row["step"] for row in rows if "evaluation_seconds" in row] == [8, 16, 24]
    # Three matrices forwards, and twice each backwards, but for the gradient of the input.
    products = 16 * 128 + 128 * 128 + 128 * 4
    operations = 2 * BATCH * (3 * products - 16 * 128)
    for row in trained:
        assert row["flops_per_second"] == pytest.approx(operations * row["steps_per_second"])
        assert row["pictures_per_second"] == pytest.approx(BATCH * row["steps_per_second"])
