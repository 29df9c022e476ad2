"""Average precision, against pycocotools, and confusion of states; files of true boxes."""

import json

import numpy as np
import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.base import files
from stormpsr_jax.psr import detection_scores
from stormpsr_jax.psr.detection_scores import TrueBoxes
from stormpsr_jax.recordings import predictions
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import toy
from tests.support.processes import refused

TOY = toy.procedure("a, b", "10 11", variant="up", expected=[0])
INDUSTREAL = load_procedure("industreal")
SHIFTED = ["background", *INDUSTREAL.to_json()["states"], "error_state"]


def found(*rows):
    """Detections of (frame, class, confidence, box)."""
    frames, classes, *others = map(np.array, zip(*rows, strict=True))
    return Detections(frames, classes, *(values.astype(float) for values in others))


def true(*rows, **options):
    """True boxes of (frame, class, box)."""
    frames, classes, boxes = zip(*rows, strict=True)
    return TrueBoxes(np.array(frames), np.array(classes), np.array(boxes, float), **options)


def random_pair(rng, frames):
    """Detections near and far from true boxes, of which a frame has none, one or two."""
    rows, detections = [], []
    for frame in range(frames):
        for _ in range(rng.integers(0, 3)):
            centre, size = rng.uniform(200, 800, 2), rng.uniform(50, 200, 2)
            rows.append((frame, int(rng.integers(1, 4)), [*centre, *size]))
            for _ in range(rng.integers(0, 3)):
                box = [*(centre + rng.normal(0, 15, 2)), *(size * rng.uniform(0.8, 1.2, 2))]
                said = rows[-1][1] if rng.random() < 0.7 else int(rng.integers(1, 4))
                detections.append((frame, said, 0.0, box))
        if rng.random() < 0.3:
            detections.append((frame, int(rng.integers(1, 4)), 0.0, [50, 50, 40, 40]))
    order = rng.permutation(len(detections)) + 1
    detections = [
        (f, c, rank / (len(order) + 1), box)
        for (f, c, _, box), rank in zip(detections, order, strict=True)
    ]
    return found(*detections), true(*rows)


@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_of_each_class_is_that_of_pycocotools(seed):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    detections, boxes = random_pair(np.random.default_rng(seed), 60)

    def corner(box):
        x, y, w, h = box
        return [x - w / 2, y - h / 2, w, h]

    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": i} for i in range(60)],
        "categories": [{"id": c} for c in range(1, 4)],
        "annotations": [
            {"id": i + 1, "image_id": int(f), "category_id": int(c), "bbox": corner(b),
             "area": b[2] * b[3], "iscrowd": 0}
            for i, (f, c, b) in enumerate(
                zip(boxes.frames, boxes.classes, boxes.boxes, strict=True)
            )
        ],
    }  # fmt: skip
    truth.createIndex()
    results = [
        {"image_id": int(f), "category_id": int(c), "bbox": corner(b), "score": float(s)}
        for f, c, s, b in zip(*vars(detections).values(), strict=True)
    ]
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.params.iouThrs = np.array([detection_scores.IOU])
    evaluation.evaluate()
    evaluation.accumulate()
    expected = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)  # of recall; all areas
    result = detection_scores.average_precisions(detections, boxes)
    assert list(result) == [1, 2, 3]
    assert list(result.values()) == pytest.approx(expected, abs=1e-9)
    assert 0.02 < expected.mean() < 0.98


BOX, ELSEWHERE = [10, 10, 4, 4], [90, 90, 4, 4]


def test_a_confusion_matrix_counted_by_hand():
    boxes = true((0, 1, BOX), (1, 1, BOX), (2, 2, BOX), (3, 3, BOX), (3, 1, ELSEWHERE))
    said = found(
        (0, 1, 0.9, BOX),  # right
        (0, 2, 0.8, BOX),  # a second one on a box that has one: nothing is there
        (1, 2, 0.9, BOX),  # 1 taken for 2
        (2, 2, 0.5, BOX),  # not above the floor
        (3, 1, 0.7, BOX),  # 3 taken for 1; the other box of frame 3 is missed
        (4, 2, 0.6, ELSEWHERE),  # nothing is there
        (4, 0, 0.9, BOX),  # says background
    )
    counts = detection_scores.confusion(said, boxes, TOY.error_class)
    assert counts.tolist() == [[0, 0, 2, 0], [1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    result = detection_scores.score(TOY, {"a": (said, boxes)})
    assert result["confusion"] == counts.tolist()
    assert [row["right"] for row in result["classes"]] == [1 / 3, 0, 0]
    assert [row["name"] for row in result["classes"]] == ["10", "11", "error state"]
    assert detection_scores.tables_of(result)[2][0] == {"true": "none", "said": "11", "boxes": 2}


def test_detections_where_no_box_is_count_in_all_frames_and_not_in_boxed_ones():
    boxes = true((0, 1, BOX), (2, 1, BOX))
    said = found((0, 1, 0.5, BOX), (1, 1, 0.9, BOX), (2, 1, 0.4, BOX))
    result = detection_scores.score(TOY, {"a": (said, boxes)})
    assert result["map"] == 1
    assert result["map_all"] == pytest.approx(2 / 3)
    left_out = true((0, 1, BOX), (2, 1, BOX), left_out=np.array([1]))
    assert detection_scores.score(TOY, {"a": (said, left_out)})["map_all"] == 1


def coco_file(path, names, annotations):
    """OD_labels.json with categories {id: name} and boxes (frame, category id)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [
            {"id": 30 + i, "file_name": f"{30 + i:06d}.jpg", "width": 1280, "height": 720}
            for i in range(30)
        ],
        "categories": [{"id": key, "name": name} for key, name in names.items()],
        "annotations": [
            {"id": i, "image_id": frame, "category_id": c, "bbox": [100, 50, 40, 20]}
            for i, (frame, c) in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_a_box_has_the_class_of_its_category_id_where_names_are_one_off(tmp_path):
    boxes = [(30 + c, c) for c in range(1, 24)]
    names = dict(enumerate(SHIFTED, start=1))
    shifted = detection_scores.read(
        coco_file(tmp_path / "a/OD_labels.json", names, boxes), INDUSTREAL
    )
    assert shifted.classes.tolist() == list(range(1, 24))
    assert shifted.frames.tolist() == list(range(31, 54))
    assert shifted.boxes[0].tolist() == [120, 60, 40, 20]
    assert shifted.size == (1280, 720)
    plain = coco_file(tmp_path / "b/OD_labels.json", dict(enumerate(SHIFTED)), boxes)
    assert detection_scores.read(plain, INDUSTREAL).classes.tolist() == list(range(1, 24))
    names = {7: "11", 8: "01", 9: "error"}
    own = coco_file(tmp_path / "c/OD_labels.json", names, [(31, 7), (32, 8), (33, 9)])
    read = detection_scores.read(own, TOY)
    assert (read.classes.tolist(), read.left_out.tolist()) == ([2, 3], [32])


HEADER = "clip,framenr,bb_class,bb_conf,bb_x,bb_y,bb_w,bb_h\n"


@pytest.fixture
def published(tmp_path):
    """Detections (centre) and true boxes (upper left corner) as IndustReal publishes them."""
    path = tmp_path / "ASD"
    (path / "x").mkdir(parents=True)
    rows = "a,0,1,.9,120,60,40,20\na,1,0\na,2,2,.8,120,60,40,20\n"
    (path / "x/a_results_pred.csv").write_text(HEADER + rows)
    rows = "a,0,1,1,100,50,40,20\na,1,0\na,2,1,1,100,50,40,20\n"
    (path / "x/a_results_gt.csv").write_text(HEADER + rows)
    (tmp_path / "toy.json").write_text(json.dumps(TOY.to_json()))
    return path


def command(published, *flags):
    out = published.with_name("detections.json")
    procedure = published.with_name("toy.json")
    evaluate.main(["detections", f"--procedure={procedure}", f"--out={out}", *flags])
    return files.read_json(out)


def test_shares_of_the_picture_and_pixels_are_brought_to_one_unit(published, capsys):
    folder = published.parent / "ours"
    folder.mkdir()
    box = np.array([[120 / 1280, 60 / 720, 40 / 1280, 20 / 720]])
    ours = Detections(np.array([32]), np.array([1]), np.array([0.9]), box)
    predictions.write_detections(folder / "a_results_pred.csv", "a", ours)
    recordings = published.parent / "recordings" / "test"
    coco_file(recordings / "a" / "OD_labels.json", {1: "10"}, [(32, 1)])
    flags = [f"--asd={folder}", f"--boxes={recordings.parent}"]
    assert command(published, *flags)["map"] == 1
    flags = [f"--asd={folder}", f"--boxes={published}"]
    assert "give the size of the pictures with --picture" in refused(
        capsys, command, published, *flags
    )
    assert command(published, *flags, "--picture=1280x720")["map"] == 0  # of other frames


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--picture=1280"], "is not a size such as 1280x720"),
        (["--confidence=2"], "--confidence: '2' is not a number in 0…1"),
        (["--boxes={folder}/empty"], "has neither <rec>_results_gt.csv nor <rec>/OD_labels.json"),
        (["--boxes={folder}/b"], "no detections of b, which"),
        (["--boxes={folder}/nowhere"], "is not a folder"),
        (["--boxes={folder}/c1"], "categories: 'screw' is neither a state of procedure 'toy'"),
        (["--boxes={folder}/c2"], "categories: background is 1, but not every state"),
        (["--boxes={folder}/c3"], "OD_labels.json: annotations[0]: category_id: 2 is not in cat"),
    ],
)
def test_wrong_input_is_one_line(published, capsys, flags, message):
    folder = published.parent
    (folder / "empty").mkdir()
    (folder / "b").mkdir()
    for name in "ab":
        (folder / "b" / f"{name}_results_gt.csv").write_text(HEADER)
    for i, names in enumerate(({1: "screw"}, {1: "background", 2: "11", 4: "error"}, {1: "10"}), 1):
        coco_file(folder / f"c{i}/a/OD_labels.json", names, [(31, 2)])
    words = f"--asd={published}", *(flag.format(folder=folder) for flag in flags)
    assert message in refused(capsys, command, published, *words)
    assert not (folder / "detections.json").exists()
