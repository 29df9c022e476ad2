"""Assembly101's annotations of mistakes: a pair of joined parts is a component."""

import numpy as np
import pytest

from stormpsr_jax.psr import convert
from stormpsr_jax.psr.files import assembly101, label_files
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.assembly101_data import NAMES, TEXTS, make_data
from tests.support.commands import refused


@pytest.fixture
def annotations(tmp_path):
    return make_data(tmp_path / "annots")


def converted(annotations, out, *flags):
    convert.main(["assembly101", f"--annotations={annotations}", f"--out={out}", *flags])
    return load_procedure(out / "b06/procedure.json")


def test_states_and_steps_are_of_the_ends_of_rows_and_of_their_labels(annotations, tmp_path):
    procedure = converted(annotations, tmp_path / "out")
    variant = procedure.variant_for(NAMES[0])
    known = label_files.read(tmp_path / "out/b06/labels" / NAMES[0], procedure, variant)
    assert known.frames.tolist() == [0, 20, 35, 50, 60, 70]
    assert known.states.tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, -1, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, -1],
    ]
    assert known.steps == [(20, 0), (60, 3)]
    assert known.with_errors == [(20, 0), (35, 4), (60, 3), (70, 7)]


def test_the_procedure_has_the_states_that_occur_and_expects_what_most_recordings_end_with(
    annotations, tmp_path
):
    procedure = converted(annotations, tmp_path / "out")
    shown = {"".join(map(str, row)) for row in procedure.states.tolist()}
    assert shown == {"100", "110", "111"}
    variant = procedure.variants["assembly"]
    assert variant.expected == (0, 3)  # the roof ends wrong in one of two
    assert set(variant.allowed) == {2, 5, 6, 8}
    assert all(procedure.variant_for(name) is variant for name in NAMES[:2])
    with pytest.raises(ValueError, match="no variant matches"):
        procedure.variant_for(NAMES[2])


MALFORMED = {
    "x,2,attach,a,b,correct,": "start: 'x' is not a number",
    "1,2.5,attach,a,b,correct,": "end: '2.5' is not whole",
    "5,2,attach,a,b,correct,": "end: frame 2 is before the start, 5",
    "0,0,attach,a,b,correct,": "end: is frame 0",
    "1,2,position,a,b,correct,": "verb: 'position' is none of attach, detach",
    "1,2,attach,a,b,right,": "label: 'right' is none of correct, mistake, corr",
    "1,2,attach,,b,correct,": "this: '' is empty",
    "1,2,attach,a,b\x1b[2J,correct,": "that: ",
    "1,2,attach,a,b": "label: is missing (the row has 5 fields)",
    "1,2,attach,a,b,correct,,more": "field 8: a row has 7 fields, not 8",
}


def test_malformed_rows_are_named_and_left_out_only_when_asked(annotations, tmp_path, capsys):
    path = annotations / f"{NAMES[1]}.csv"
    first, *rest = TEXTS[1].splitlines()
    path.write_text("\n".join([first, *MALFORMED, *rest, ""]))
    flags = ["assembly101", f"--annotations={annotations}", f"--out={tmp_path}/out"]
    said = refused(capsys, convert.main, flags, lines=len(MALFORMED)).splitlines()
    for line, message, number in zip(said, MALFORMED.values(), range(2, 99), strict=False):
        assert f"error: {path}: line {number}: {message}" in line
        assert "fix the row, or leave it out with --skip" in line
    assert not (tmp_path / "out").exists()
    convert.main([*flags, "--skip"])
    assert capsys.readouterr().err.count(f"left out: {path}: line ") == len(MALFORMED)
    steps = (tmp_path / "out/b06/labels" / NAMES[1] / "PSR_labels.csv").read_text().splitlines()
    assert len(steps) == 3


def test_states_match_a_walk_row_by_row():
    rng = np.random.default_rng(0)
    pairs = [("a", "b"), ("b", "c"), ("c", "d")]
    for _ in range(100):
        frames = np.sort(rng.integers(1, 12, 8))
        changes = [
            assembly101.Change(int(frame), pairs[rng.integers(3)], int(rng.integers(-1, 2)))
            for frame in frames
        ]
        found_frames, found = assembly101.states(changes, pairs)
        for frame in range(14):
            expected = [
                next((c.value for c in reversed(changes) if c.pair == p and c.frame <= frame), 0)
                for p in pairs
            ]
            row = np.searchsorted(found_frames, frame, "right") - 1
            assert found[row].tolist() == expected
        assert (found[1:] != found[:-1]).any(axis=1).all()
