"""Tables and curves against direct counts on made-up results, and what a run says to its owner."""

import csv
import io
import json

import numpy as np
import pytest

from stormpsr_jax.psr import advice, analysis, metrics
from stormpsr_jax.psr.analysis import format_rows
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.streams import ASD, LEARNED
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from tests.support import toy

FPS = 4.0


def result(streams):
    """The content of metrics.json of {stream: {recording: (truth, events, visible)}}."""
    entries = {}
    for stream, recordings in streams.items():
        entries[stream] = {"recordings": {}}
        for name, (truth, events, *visible) in recordings.items():
            entries[stream]["recordings"][name] = {
                **metrics.score_recording(truth, events, FPS),
                "contains_errors": False,
                "truth": [list(step) for step in sorted(truth)],
                "events": [[*step, 0.9] for step in sorted(events)],
                **({"visible": visible[0]} if visible else {}),
            }
        entries[stream] |= metrics.summarise(entries[stream]["recordings"])
    return {"protocol": "paper", "fps": FPS, "components": ["a", "b"], "streams": entries}


GOLDEN = result(
    {
        "asd": {
            "r1": ([(10, 0), (20, 3), (30, 2)], [(14, 0), (18, 3), (40, 2)], [0.1, 0.3, 1.0]),
            "r2": ([(10, 0), (20, 3)], [(30, 0)], [0.25, None]),
            "r3": ([], [(5, 3)], []),
        }
    }
)


def test_tables_golden_values():
    steps = {row["step"]: row for row in analysis.steps_table(GOLDEN)}
    assert [steps[0][k] for k in ("truths", "tp", "fp", "fn")] == [2, 2, 0, 0]
    assert steps[0]["delay_s"] == (4 + 20) / 2 / FPS
    assert [steps[3][k] for k in ("truths", "tp", "fp", "fn")] == [2, 0, 2, 1]
    assert steps[2]["name"] == "Remove a"
    delays = analysis.delays_table(GOLDEN)[0]
    assert (delays["tp"], delays["median_s"], delays["max_s"]) == (3, 2.5, 5.0)
    assert delays["p90_s"] == pytest.approx(4.5)
    occlusion = {row["visible"]: row for row in analysis.occlusion_table(GOLDEN)}
    assert [row["truths"] for row in occlusion.values()] == [1, 2, 0, 1]
    assert occlusion["0–0.25"]["recall"] == 1
    figures = {"truths": 2, "tp": 1, "early": 1, "fn": 0, "recall": 0.5, "delay_s": 5.0}
    assert occlusion["0.25–0.5"] == {"stream": "asd", "visible": "0.25–0.5", **figures}
    assert occlusion["0.5–0.75"]["recall"] is None
    rows = analysis.recordings_table(GOLDEN)
    assert [row["recording"] for row in rows] == ["r1", "r2", "r3"]
    assert rows[2]["f1"] is None
    assert analysis.summary_table(GOLDEN)[0]["tp"] == 3


def systems(seed, shift, num=12):
    """Two systems on the same recordings, b later than a by ``shift`` frames."""
    rng = np.random.default_rng(seed)
    a, b = {}, {}
    for i in range(num):
        truth = [(int(f), 3 * k) for k, f in enumerate(np.sort(rng.integers(0, 99, 2)))]
        late = [(f + int(rng.integers(0, 9)), step) for f, step in truth]
        a[str(i)] = (truth, late)
        b[str(i)] = (truth, [(f + shift, step) for f, step in late])
    return result({"storm": a}), result({"storm": b})


def test_compare_golden_constant_difference():
    a, b = systems(0, shift=8)
    rows = {row["metric"]: row for row in analysis.compare(a, b)}
    for metric in ("delay_s", "common_delay_s"):
        row = rows[metric]
        assert row["difference"] == row["low"] == row["high"] == 8 / FPS
        assert row["b"] - row["a"] == pytest.approx(8 / FPS)
        assert row["recordings"] == 12
    assert rows["f1"]["difference"] == 0
    back = {row["metric"]: row for row in analysis.compare(b, a)}
    assert back["delay_s"]["difference"] == -8 / FPS


def changed(data, change):
    data = json.loads(json.dumps(data))
    change(data)
    return data


def recordings(data):
    return data["streams"]["storm"]["recordings"]


@pytest.mark.parametrize(
    ("change", "stream", "message"),
    [
        (lambda b: b.update(protocol="released"), "storm", "protocol differs: paper and released"),
        (lambda b: None, "asd", "stream 'asd' is not in the results, whi"),
        (lambda b: recordings(b).pop("7"), "storm", "only one has 7"),
        (lambda b: recordings(b)["7"].update(truth=[]), "storm", "labels of recording 7 differ"),
    ],
)
def test_compare_errors_name_what_differs(change, stream, message):
    a, b = systems(0, 1)
    with pytest.raises(ValueError, match=message):
        analysis.compare(a, changed(b, change), (stream, "storm"))


def test_a_file_that_no_table_can_be_made_of_is_one_line(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(GOLDEN))
    assert analysis.load_result(path) == GOLDEN
    for change, message in (
        (lambda d: d.clear(), "streams"),
        (lambda d: d.update(fps=0), "division by zero"),
        (lambda d: d.update(streams=[]), "list"),
        (lambda d: d["streams"]["asd"].pop("f1"), "f1"),
        (lambda d: d["streams"]["asd"].update(wrong={}), "shown"),
        (lambda d: d["streams"]["asd"].update(reliability={"bins": [1]}), "int"),
        (lambda d: d["streams"]["asd"]["recordings"]["r1"].update(events=[[1, 6]]), "step id 6"),
        (lambda d: d["streams"]["asd"]["recordings"]["r1"].update(visible=[0.5]), "zip"),
        (lambda d: d.update(paper_settings={"asd": 3}), "int"),
    ):
        path.write_text(json.dumps(changed(GOLDEN, change)))
        with pytest.raises(ValueError, match=message) as error:
            analysis.load_result(path)
        assert str(error.value).startswith(f"{path}: is no result of this version's evaluate (")
        assert "\n" not in str(error.value)


ROWS = [
    {"stream": "asd", "f1": 0.123456, "tp": 3, "name": "50 % of a_b|c"},
    {"stream": "storm", "f1": None, "tp": 12, "name": "x, y"},
]


def test_names_in_csv_are_no_formulas_and_numbers_stay_numbers():
    names = ["=1+2", "+1", "-x", "@A1", "\t=1", "＝1+2", "a=1", "1-2"]
    rows = [{"recording": name, "delay": -0.5} for name in names]
    (head, *read) = csv.reader(io.StringIO(format_rows(rows, "csv")))
    assert head == ["recording", "delay"]
    names[4] = r"\t=1"
    assert read == [[f"'{name}" if i < 6 else name, "-0.5"] for i, name in enumerate(names)]


def test_markdown_cells_by_column():
    lines = format_rows(ROWS, "markdown").splitlines()
    assert len(lines) == 4
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert lines[1].split("|")[2].strip().endswith(":")  # numbers to the right
    assert not lines[1].split("|")[1].strip().endswith(":")
    assert [c.strip() for c in lines[3].split("|")[1:-1]] == ["storm", "–", "12", "x, y"]
    assert r"50 % of a_b\|c" in lines[2]


UP_TO_LID = toy.procedure("pin, wheel, lid", "100 110 111", fps=5, variant="up")
TRUTH = [[50, 0], [100, 3]]
SETTINGS = {"sure": 4.5}


def entry(events, *wrong):
    installations = [[k, 10, 90, accepted, None] for k, accepted in wrong]
    return {"truth": TRUTH, "events": events, "wrong": {"installations": installations}}


def run_result(of_validation, of_test):
    validation = {"asd": {"recordings": {"v": of_validation}}}
    streams = {"asd": {"recordings": {"t": of_test}}}
    more = {"fps": 5.0, "components": UP_TO_LID.components, "default_stream": "asd"}
    return {"validation": validation, "streams": streams, **more}


def test_what_to_record_next_goes_by_validation_and_by_no_test_recording():
    validation = entry([[60, 0, 0.9]], (0, 20), (1, None))
    for of_test in (entry([[60, 0, 0.9], [110, 3, 0.9]]), entry([], (2, 20))):
        assert advice.record_next(run_result(validation, of_test)) == [
            "Steps of validation that asd finds worst: Install wheel (0 of 1 found).",
            "Incorrect installations of validation that asd accepted: pin 1 of 1.",
            "Never installed incorrectly in validation: lid.",
        ]


def test_what_a_result_without_validation_recordings_has_is_an_error():
    with pytest.raises(ValueError, match="a run of this version has them"):
        advice.record_next({"streams": {"asd": {"recordings": {}}}, "components": []})


def test_a_step_that_was_seen_is_found_and_one_that_was_called_right_may_be_accepted(monkeypatch):
    recording = LabelledPredictions(
        "v", UP_TO_LID.variants["up"], TRUTH, np.array([[0, 0, 0], [-1, 0, 0]]), frames=[0, 40]
    )
    report = Event(60, 0, 0.9, "learned", {}, "Install pin", 12.0)
    events = [report._replace(frame=55, kind="seen"), report]
    monkeypatch.setattr(type(ASD), "decode", lambda *_: events)
    found = advice.score_recording(UP_TO_LID, "asd", None, recording, None)
    assert found["events"] == [[55, 0, 0.9]]
    assert found["wrong"]["installations"] == [[0, 40, None, 60, None]]


@pytest.mark.parametrize("settings", [SETTINGS, None])
def test_a_model_that_called_nothing_right_in_validation_says_that_it_ticks_nothing_and_why(
    settings,
):
    def said(right, seen):
        own = {"validation": {"f1": right, "seen_f1": seen}}
        own |= {} if settings is None else {"settings": settings}
        other = {"validation": {"f1": 0.8, "seen_f1": None}}
        return advice.recognises_by(None, {"asd": other, LEARNED.name: own}, 12)

    text = said(0.0, 0.86)
    assert text.startswith("learned. In validation steps were seen (F1 0.860) and none was right: ")
    bar = "the threshold" if settings is None else "the threshold of 4.5"
    assert f"no part's own evidence passed {bar}. So a station cannot tick a step. Record " in text
    assert "give recognise a higher --risk (1 takes what is seen for right)" in text
    assert said(0.5, 0.86) == "learned"
