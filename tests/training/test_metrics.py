import json

from stormpsr_jax.training.metrics import MetricWriter, read_metrics


def test_metric_writer_property_cuts_rows_beyond_the_step_and_partial_rows(tmp_path):
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


def test_metric_writer_property_starting_over_leaves_no_old_rows(tmp_path):
    for _ in range(2):
        writer = MetricWriter(tmp_path)
        writer.write(1, {"loss": 1.0})
        writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 1.0}]
