import copy
import html
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from stormpsr_jax.psr import calibration, metrics
from stormpsr_jax.recordings.procedure import load_procedure
from stormpsr_jax.report import figures, pages, report

FPS = 4.0
TRUTH = {
    "r1": [(10, 0), (20, 3), (30, 2)],
    "r2": [(10, 0), (20, 3)],
    "r3": [(12, 0), (40, 3), (50, 6)],
}
EVENTS = {
    "asd": {
        "r1": [(14, 0), (18, 3), (40, 2)],  # the second one is early
        "r2": [(30, 0)],
        "r3": [(20, 0), (60, 3), (61, 9)],  # the last one is wrong
    },
    "storm": {
        "r1": [(12, 0), (22, 3), (32, 2)],
        "r2": [(11, 0), (24, 3)],
        "r3": [(12, 0), (44, 3), (54, 6)],
    },
}
EVERY = [
    "Delay",
    "Occlusion",
    "Outcome by step",
    "Recordings",
    "Reliability of confidences",
]


def result(truth=None, events=None, protocol="paper", names=("a", "b", "c", "d")):
    """The content of metrics.json, without what is optional in it."""
    truth = TRUTH if truth is None else truth
    streams = {}
    for stream, recordings in (EVENTS if events is None else events).items():
        rows = {
            name: {
                **metrics.score_recording(truth[name], found, FPS),
                "contains_errors": False,
                "truth": [list(step) for step in truth[name]],
                "events": [[*step, 0.9] for step in found],
            }
            for name, found in recordings.items()
        }
        streams[stream] = {**metrics.summarise(rows), "recordings": rows}
    return {"protocol": protocol, "fps": FPS, "components": list(names), "streams": streams}


def full():
    """With the visible fractions and the reliability too."""
    data = result()
    for stream in data["streams"].values():
        judged = [calibration.Judgement(0.9, n > 0) for n in range(10)]
        judged += [calibration.Judgement(0.5, n > 7) for n in range(10)]
        stream["reliability"] = calibration.reliability(judged)
        for row in stream["recordings"].values():
            row["visible"] = [0.1, 0.6, None][: len(row["truth"])]
    return data


def texts(svg):
    return [html.unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def pick(found, title):
    (figure,) = (figure for figure in found if figure[0] == title)
    return figure


@pytest.fixture(scope="module")
def every():
    data = full()
    before = copy.deepcopy(data)
    found = figures.analysis_figures(data)
    assert data == before
    return found


def test_figures_are_svg_with_titles_and_captions(every):
    assert [title for title, _, _ in every] == EVERY
    for _, caption, svg in every:
        assert caption.endswith(".")
        assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
        # Other colours would stay as they are in the dark.
        colours = set(re.findall(r"#[0-9a-f]{6}\b", svg))
        assert colours <= set(pages._VARIABLES)
        assert colours & set(pages.PALETTE.values())


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are not turned into SVG, which takes most of the time."""
    monkeypatch.setattr(pages, "svg", lambda figure: "")


def test_figures_leave_out_what_is_unknown(undrawn):
    titles = [title for title, _, _ in figures.analysis_figures(result())]
    assert titles == [t for t in EVERY if t not in ("Occlusion", "Reliability of confidences")]
    one = result({"r1": TRUTH["r1"]}, {"asd": {"r1": EVENTS["asd"]["r1"]}})
    titles = [title for title, _, _ in figures.analysis_figures(one)]
    assert titles == ["Delay", "Outcome by step"]
    nothing = result({"r1": []}, {"asd": {"r1": []}})
    assert figures.analysis_figures(nothing) == []
    wrong = result({"r1": []}, {"asd": {"r1": [(3, 0)]}})
    assert [title for title, _, _ in figures.analysis_figures(wrong)] == ["Outcome by step"]
    missed = result({"r1": [(3, 0)]}, {"asd": {"r1": []}})
    titles = [title for title, _, _ in figures.analysis_figures(missed)]
    assert titles == ["Outcome by step"]


def test_figures_golden_steps(every):
    said = texts(pick(every, "Outcome by step")[2])
    for name in ("Install a", "Remove a", "Install b", "Install c", "Install d"):
        assert name in said
    late = [t.strip() for t in said if re.match(r" ?\+", t)]
    # Of each step the ASD stream's mean delay and the fused one's, where there is one.
    expected = [(4 + 20 + 8) / 3, 3 / 3, 10, 2, 20, (2 + 4 + 4) / 3, 4]
    assert sorted(late) == sorted(f"+{frames / FPS:.1f} s" for frames in expected)


def test_figures_golden_reliability(every):
    _, caption, svg = pick(every, "Reliability of confidences")
    # By hand: 10 events at 0.5, of which 2 are right, and 10 at 0.9, of which 9 are.
    assert "ASD only: ECE 0.150" in texts(svg)
    said = "ASD only: 20 events, mean confidence 0.70, 55% correct, ECE 0.150; STORM-PSR: 20"
    assert said in caption
    path = next(p for p in re.findall(r'<path d="([^"]*)"[^>]*#0072b2', svg) if p.count("L") == 1)
    (x0, y0), (x1, y1) = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), float)
    corner = next(p for p in re.findall(r'<path d="([^"]*)"[^>]*dasharray', svg))
    (left, bottom), (right, top) = np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", corner), float)
    places = [(x0 - left) / (right - left), (x1 - left) / (right - left)]
    assert places == pytest.approx([0.5, 0.9], abs=1e-3)
    assert [(bottom - y) / (bottom - top) for y in (y0, y1)] == pytest.approx([0.2, 0.9], abs=1e-3)


PROCEDURE = load_procedure("synthetic")
STEPS = [(50, 3), (20, 0)]
SCORES = {
    "asd": {"events": [[30, 0, 0.9], [45, 3, 0.8]]},
    "storm": {"events": [[22, 0, 0.9], [70, 6, 0.4]]},
}


def test_figure_a_row_per_step_in_the_order_of_the_truth_and_a_lane_per_stream():
    visible = np.arange(100), np.linspace(0, 1, 100)
    figure = report.figure(SCORES, STEPS, PROCEDURE, 5, visible)
    upper, lower = figure.axes
    texts = [text.get_text() for text in upper.texts]
    steps = [text.replace("\n", " ") for text in texts if text.startswith("Install")]
    assert steps == [PROCEDURE.step_name(step) for step in (0, 3, 6)]
    assert [text for text in texts if text in ("A", "S")] == ["A", "S"] * 3
    assert upper.get_xlim()[0] < 0 < 99 / 5 < upper.get_xlim()[1]
    filled = lower.collections[0].get_paths()[0].vertices
    assert filled[:, 0].max() == 99 / 5
    assert filled[:, 1].max() == 1
    assert len(report.figure(SCORES, STEPS, PROCEDURE, 5).axes) == 1


def test_what_is_not_sure_is_hatched_until_it_is_settled_or_to_the_end():
    unsure = [[24, 0, 0.5, 21], [60, 3, 0.5, 55]]
    scores = {"learned": {"events": [[40, 0, 0.9], [70, 6, 0.9]], "unsure": unsure}}
    axes = report.figure(scores, STEPS, PROCEDURE, 5).axes[0]
    bars = [patch for patch in axes.patches if patch.get_hatch() == "////"]
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == [(4.2, 8), (11, 14)]
