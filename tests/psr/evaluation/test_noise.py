"""The noise of detections against a plain version frame by frame, by hand, and on real ones."""

import csv
import io
import itertools
import json
import pathlib
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax import evaluate
from stormpsr_jax.psr.evaluation import noise
from stormpsr_jax.psr.evaluation.scoring import evaluate_recordings
from stormpsr_jax.psr.files.predictions import Detections
from stormpsr_jax.psr.files.recordings import LabelledPredictions, load_recordings
from stormpsr_jax.psr.procedure import Procedure, load_procedure
from stormpsr_jax.psr.streams.rules import Settings

FPS = 2.0
STATES = ("000", "100", "110", "111")
PROCEDURE = Procedure.from_json(
    {
        "name": "toy",
        "fps": FPS,
        "components": ["a", "b", "c"],
        "states": list(STATES),
        "variants": {"up": {"initial_state": "000", "expected": [0, 3, 6], "recordings": ["*"]}},
    }
)
ERROR = len(STATES) + 1


def recording(name, states, rows, truth=()):
    """From {frame: state} and {frame: [(class, confidence)]}."""
    flat = [(f, c, p) for f, of_frame in sorted(rows.items()) for c, p in of_frame]
    columns = np.array(flat, float).reshape(-1, 3).T
    return LabelledPredictions(
        name,
        PROCEDURE.variants["up"],
        list(truth),
        np.array([states[f] for f in sorted(states)], np.int8),
        Detections(*columns[:2].astype(int), columns[2], np.zeros((len(flat), 4))),
        frames=np.array(sorted(states), np.int64),
    )


def plain(recordings, floor):
    """The figures as they are described, one frame after the other."""
    total = long_gap = number = longest = 0
    pool, weak, runs = [], [], []
    for r in recordings.values():
        rows = {}
        for f, c, p in zip(
            r.detections.frames, r.detections.classes, r.detections.confidences, strict=True
        ):
            if f not in rows or p > rows[f][1]:
                rows[f] = (c, p)
        named = [*r.frames, *r.detections.frames, *(f for f, _ in r.truth)]
        pairs = itertools.pairwise(zip(r.frames, r.states.tolist(), strict=True))
        changes = [t for (_, before), (t, after) in pairs if before != after]
        gap = run = 0
        for f in range(min(named), max(named) + 2):
            at_end = f == max(named) + 1
            c, p = (0, 0.0) if at_end else rows.get(f, (0, 0.0))
            state = [
                s for t, s in zip(r.frames, r.states, strict=True) if t <= f or t == min(r.frames)
            ]
            state = tuple(state[-1])
            text = "".join(map(str, state))
            true = STATES.index(text) + 1 if text in STATES else ERROR if -1 in state else 0
            near = any(abs(t - f) <= noise.NEAR_S * FPS for t in changes)
            if c > 0:
                weak.append((c, p, true))
            seen = c > 0 and p > floor
            total += not at_end
            wrong = seen and true not in (0, c)
            if wrong:
                run += 1
            elif run:
                runs.append(run)
                run = 0
            if seen:
                pool.append((c, p, true, state, near))
            if seen or at_end:
                longest = max(longest, gap)
                if gap / FPS > noise.GAP_S:
                    long_gap, number = long_gap + gap, number + 1
                gap = 0
            else:
                gap += 1

    def shows(c):
        return [0, 0, 0] if c == ERROR else [int(x) for x in STATES[c - 1]]

    def kind(c, state):
        pairs = list(zip(shows(c), state, strict=True))
        if c == ERROR:
            return "error_state"
        if (1, -1) in pairs:
            return "wrong_part_right"
        many, few = (1, 0) in pairs, (0, 1) in pairs
        return {
            (True, True): "too_many_and_few",
            (True, False): "too_many",
            (False, True): "too_few",
            (False, False): "wrong_part_absent",
        }[many, few]

    def share(hits):
        hits = list(hits)
        return {
            "count": sum(hits),
            "of": len(hits),
            "share": sum(hits) / len(hits) if hits else None,
        }

    wrong = [row for row in pool if row[2] not in (0, row[0])]
    sits_wrong = [row for row in pool if -1 in row[3]]
    wrong_at_any = [p for c, p, true in weak if true not in (0, c)]
    table = []
    for i, (low, high) in enumerate(
        zip(noise.CONFIDENCES[:-1], noise.CONFIDENCES[1:], strict=True)
    ):
        inside = [
            (c, p, true) for c, p, true in weak if true and (low < p <= high or (i == 0 and p == 0))
        ]
        table.append(
            {
                "low": low,
                "high": high,
                "confidence": statistics.fmean(p for _, p, _ in inside) if inside else None,
                "right": share(c == true for c, _, true in inside),
            }
        )
    return {
        "procedure": "toy",
        "fps": FPS,
        "confidence": floor,
        "recordings": len(recordings),
        "seen": {"count": len(pool), "of": total, "share": len(pool) / total},
        "gaps": {
            "time": {"count": long_gap, "of": total, "share": long_gap / total},
            "number": number,
            "longest_s": longest / FPS,
        },
        "uncatalogued": share(row[2] == 0 for row in pool),
        "catalogued_right": share(row[0] == row[2] for row in pool if 0 < row[2] < ERROR),
        "says_error": share(row[0] == ERROR for row in pool),
        "wrong_part_says_error": share(row[0] == ERROR for row in sits_wrong),
        "wrong_part_right": share(
            (1, -1) in zip(shows(row[0]), row[3], strict=True) for row in sits_wrong
        ),
        "wrong": share(row[2] != row[0] for row in pool if row[2]),
        "kinds": {key: share(kind(row[0], row[3]) == key for row in wrong) for key in noise.KINDS},
        "long_runs": {
            "count": sum(n for n in runs if n >= noise.RUN),
            "of": sum(runs),
            "share": sum(n for n in runs if n >= noise.RUN) / sum(runs) if runs else None,
        },
        "near_change": share(row[4] for row in wrong),
        "wrong_confidence": statistics.median(row[1] for row in wrong) if wrong else None,
        "wrong_confidence_any": statistics.median(wrong_at_any) if wrong_at_any else None,
        "by_confidence": table,
    }


@st.composite
def some_recordings(draw):
    """Up to three recordings with runs, gaps, several rows a frame and states of every kind."""
    result = {}
    for name in draw(st.sampled_from([("a",), ("a", "b"), ("a", "b", "c")])):
        start = draw(st.integers(0, 3))
        changes = draw(st.lists(st.integers(1, 90), max_size=4, unique=True))
        value = st.sampled_from([-1, 0, 0, 1, 1])
        states = {start + f: draw(st.tuples(value, value, value)) for f in (0, *sorted(changes))}
        rows, frame = {}, start + draw(st.integers(0, 30))
        row = st.tuples(st.integers(0, ERROR), st.integers(0, 20).map(lambda n: n / 20))
        for _ in range(draw(st.integers(0, 5))):
            of_frame = draw(st.lists(row, min_size=1, max_size=2))
            for _ in range(draw(st.sampled_from([1, 2, 9]))):
                rows[frame] = of_frame
                frame += 1
            frame += draw(st.sampled_from([0, 1, 5, 25]))
        truth = draw(st.lists(st.tuples(st.integers(0, 150), st.just(0)), max_size=1))
        result[name] = recording(name, states, rows, truth)
    return result


@settings(max_examples=40, deadline=None)
@given(some_recordings(), st.sampled_from([0.0, 0.25, 0.5]))
def test_figures_are_those_of_a_plain_version(recordings, floor):
    found = noise.measure(PROCEDURE, recordings, floor)
    expected = plain(recordings, floor)
    means = [
        [one.pop("confidence") for one in result["by_confidence"]] for result in (found, expected)
    ]
    assert found == expected
    assert means[0] == pytest.approx(means[1])


# --- The authors' real detections -----------------------------------------------------------------

REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "industreal_real"
PAGE = pathlib.Path(__file__).parents[3] / "benchmarks" / "results" / "noise.md"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real detections are not here")


@real
@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("| B1 |", {"decoder": "naive"}),
        ("| B2, T 6, floor .5 |", {"decoder": "confidence"}),
        ("| B3, T 6, floor .5 |", {}),
        ("| B2, T 8, floor .25 |", {"decoder": "confidence", "threshold": 8.0, "confidence": 0.25}),
        ("| B3, T 8, floor .25 |", {"threshold": 8.0, "confidence": 0.25}),
    ],
)
def test_decays_of_real_detections_are_those_of_the_page(row, kept):
    decays = [{}] if "B1" in row else [{}, {"unseen_decay": 1.0}, {"decay": 1.0}]
    cells = [" / ".join(decoded(**kept, **decay)) for decay in decays]
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(row)]
    assert [cell.strip() for cell in line.split("|")[2 : 2 + len(cells)]] == cells


def decoded(**kept):
    """POS, F1, and delay with the wrong parts accepted, as the page writes them."""
    procedure = load_procedure("industreal")
    recordings = load_recordings(procedure, REAL / "labels", REAL / "asd")
    found = evaluate_recordings(procedure, recordings, Settings(**kept))["streams"]["asd"]
    pos, f1 = (f"{found[key]:.3f}".removeprefix("0") for key in ("pos", "f1"))
    return pos, f1, f"{found['delay_s']:.1f} s, {found['wrong']['accepted']}"


@real
def test_the_command_prints_the_table_of_the_page(tmp_path, capsys):
    flags = [f"--labels={REAL / 'labels'}", f"--asd={REAL / 'asd'}", "--procedure=industreal"]
    out = tmp_path / "noise.json"
    evaluate.main(["noise", *flags, "--format=csv", f"--out={out}"])
    table, by_confidence = (
        list(csv.DictReader(io.StringIO(text)))
        for text in capsys.readouterr().out.strip().split("\n\n")
    )
    result = json.loads(out.read_text())
    assert [float(row["value"]) for row in table] == [row["value"] for row in noise.table(result)]
    assert [row["confidence"] for row in by_confidence][-1] == "0.9–1"
    page = PAGE.read_text().splitlines()
    for row in table:
        (line,) = [line for line in page if line.startswith(f"| {row['figure']} |")]
        assert line.split("|")[2].strip() == f"{float(row['value']):.3f}".removeprefix("0"), line
