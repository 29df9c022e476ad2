import numpy as np

from stormpsr_jax.psr import Event, learned_stream
from stormpsr_jax.psr.learned_beliefs import Belief
from stormpsr_jax.serving.files.page import Report
from stormpsr_jax.serving.frames import Frame, ProductShare
from tests.support.live_data import PROCEDURE
from tests.support.recognise_data import found, run


def test_report_escapes_names_and_shows_every_event(made, trained, tmp_path, clip):
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len({frame for frame, _ in found(made)})
    assert page.count('<td class="name">Install') >= sum(s % 3 == 0 for _, s in found(made))
    evil = tmp_path / "<script>alert(1)<_up.mp4"
    evil.write_bytes(clip.read_bytes())
    assert run(trained, evil, f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / evil.stem / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page


def test_report_hints_at_steps_that_became_doubtful_or_are_not_sure(tmp_path):
    """By how likely it was since it was reported, not before."""
    report = Report(PROCEDURE, PROCEDURE.variants["assembly"], 10, 0, 4)
    none = np.zeros(3)
    beliefs = [Belief([1, 1, 0], np.array([p, 0.95, 0]), none, none) for p in (0.1, 0.99, 0.4, 1)]
    events = [Event(1, step, 0.99, "learned", {}, "x", 0.1) for step in (0, 3)]
    doubts = [(0, 0, {"since": 0}), (2, 6, {"since": 0})]
    events[:0] = [Event(f, s, 0.5, "learned", e, "y", 0.2, "unsure") for f, s, e in doubts]
    events[:0] = [Event(0, step, 0.9, "learned", {}, "z", 0.0, "seen") for step in (0, 6)]
    for i, belief in enumerate(beliefs):
        here = [event for event in events if event.frame == i]
        report.add(Frame(i, changed=np.zeros(3), events=here, belief=belief), [])
    rows = [(0, "done"), (3, "done"), (6, "unsure"), (6, "seen")]
    settings = learned_stream.LearnedSettings()
    report.write(
        tmp_path / "r.html", name="x", rows=rows, stream="learned", settings=settings,
        calibrated=False, source="x.mp4", product=ProductShare(None, 10),
    )  # fmt: skip
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<td class="amber">0.40?</td>' in page
    assert "<td>0.95</td>" in page
    assert '<td class="amber">not sure</td>' in page
    assert (page.count("● done"), page.count("○ seen")) == (2, 1)
    assert "A ring is a step that was seen" in page
    assert page.count("the end: look at the video") == 1, "the other one was settled"
    assert '<div class="value">2</div><div class="label">steps recognised' in page
    assert "not calibrated on recordings that the model has not seen" in page
