import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from stormpsr_jax.training.metrics import MetricWriter, read_metrics


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


def crc32c(data):
    """Castagnoli's, bit by bit, and masked as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path):
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        assert struct.unpack("<I", content[8:12]) == (crc32c(content[:8]),)
        assert struct.unpack("<I", content[12 + length : 16 + length]) == (crc32c(data),)
        content = content[16 + length :]
        yield Event.FromString(data)


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
