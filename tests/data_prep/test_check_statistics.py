from data_prep.checking import statistics as check_statistics
from stormpsr_jax.data.annotation import LabelledFrames
from tests.support.shards_data import toy_procedure, toy_recording

STEPS = [(4, 0), (6, 4), (8, 3), (8, 6)]


def test_split_statistics_matches_counts_by_hand():
    made = [toy_recording(name) for name in ("a", "b")]
    found = [LabelledFrames(d.name, 1, d.states, d.boxes, d.classes, d.visible) for d in made]
    steps = {"a": STEPS, "b": STEPS}
    s = check_statistics.split_statistics(found, toy_procedure(), 5.0, steps)
    # 000 is uncatalogued (3 frames), 100 state 1 (2), 1-10 error (2), 111 state 3 (4).
    assert s.frames_by_class.tolist() == [6, 4, 0, 8, 4]
    assert s.boxes_by_class.tolist() == [0, 2, 0, 2, 2]
    assert s.rows == {
        "Recordings": "2",
        "Frames": "22",
        "Hours": "0.00",
        "Steps": "6",
        "· installed": "6",
        "· removed": "0",
        "Incorrect installations": "2",
        "Steps per recording": "3.0 (3–3)",
        "Seconds per step (median)": "0.7",  # frames 1 → 4 → 8 at 5 frames/s
        "Frames with a box": "6",
        "· of a catalogued state": "4",
        "· uncatalogued (ignored)": "0",
        "· of an error state": "2",
        "Frames annotated as empty": "63.6%",
        "Frames not annotated": "9.1%",
        "Box size (median, of the side)": "20%",
        "Frames in an uncatalogued state": "27.3%",
        "Frames in an error state": "18.2%",
        "States never seen": "2",
        "Visible fraction (mean)": "40%",
    }
