"""Containers that say they are more than they are end in a line, in little time and memory."""

import re
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest

from stormpsr_jax.media import video
from tests.hostile.mp4 import fragmented, mp4
from tests.support.processes import environment

pytest.importorskip("av")

HOSTILE = {
    "samples a minute apart": (
        mp4(10**5, 711_000, gap=59, ticks=1),
        "frames; of",
    ),
    "seventy thousand samples a minute apart": (
        mp4(70_000, 711_000, gap=59, ticks=1),
        r"has 20,649,706 frames at 5 frames/s, as it lasts 4129941\.0 s",
    ),
    "samples that overlap": (mp4(70_000, 700_000, size=10**6), "is cut off|takes longer"),
    "edits that each show everything": (mp4(800, 30_000, edits=20_000), "384 MiB"),
    "a fragment of billions of samples": (fragmented(10**8), "384 MiB"),
}


# Says what error there is, and what it took in MiB: of a process of its own, as the sizes of those
# that ended before count too.
OPEN = """
import resource, sys
from pathlib import Path
from stormpsr_jax.media import video
from tests.support.peak_memory import peak_mebibytes
try:
    video.open_resampled(Path(sys.argv[1]), 5.0)
except ValueError as error:
    print(error)
print(max(peak_mebibytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10))
"""


@pytest.mark.system
@pytest.mark.parametrize("name", HOSTILE)
def test_a_container_that_unfolds_ends_in_a_line_in_time_and_memory(tmp_path, name):
    content, text = HOSTILE[name]
    (tmp_path / "run.mp4").write_bytes(content)
    start = time.monotonic()
    words = [sys.executable, "-c", OPEN, tmp_path / "run.mp4"]
    done = subprocess.run(words, env=environment(1), capture_output=True, text=True, timeout=60)
    assert time.monotonic() - start < 20  # of a processor that others use too
    error, mebibytes = done.stdout.splitlines()
    assert error.startswith(f"{tmp_path}/run.mp4: ")
    assert re.search(text, error)
    if sys.platform == "linux":
        assert int(mebibytes) < 512


def test_frames_are_held_against_the_size_of_the_file(tmp_path):
    """A video of ten minutes with a picture a minute is sound."""
    path = tmp_path / "run.mp4"
    path.write_bytes(mp4(11, 711_000, gap=59, ticks=1, size=60_000))
    assert video.open_resampled(path, 5.0).num_frames == 59 * 10 * 5 + 1


@pytest.mark.parametrize(
    ("ending", "late", "told"), [("mp4", 0.5, True), ("ts", 0.5, True), ("mkv", 0.0, False)]
)
def test_a_sound_that_begins_before_the_first_picture_is_told(tmp_path, caplog, ending, late, told):
    import av

    with av.open(str(tmp_path / f"run.{ending}"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        sound = container.add_stream("aac", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 24_000), np.float32), "fltp", "mono")
        samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
        container.mux([*sound.encode(samples), *sound.encode()])
        for i in range(20):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = i + round(late * 10), Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video.open_resampled(tmp_path / f"run.{ending}", 5.0)
    said = [message for message in caplog.messages if "after its beginning" in message]
    assert len(said) == told
    if told:
        assert float(said[0].partition("comes ")[2].split()[0]) == pytest.approx(late, abs=0.13)
