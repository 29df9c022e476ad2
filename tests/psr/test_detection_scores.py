"""Average precision, against pycocotools, and confusion of states; files of true boxes."""

import json
import shutil

import numpy as np
import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.base import files
from stormpsr_jax.psr import detection_scores
from stormpsr_jax.psr.detection_scores import TrueBoxes
from stormpsr_jax.recordings import predictions
from stormpsr_jax.recordings.predictions import Detections
from tests.support import toy
from tests.support.processes import refused

TOY = toy.procedure("a, b", "10 11", variant="up", expected=[0])


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
    box = np.array([[120 / 1280, 60 / 720, 40 / 1280, 20 / 720]] * 2)
    ours = Detections(np.array([0, 2]), np.array([1, 1]), np.array([0.9, 0.8]), box)
    predictions.write_detections(folder / "a_results_pred.csv", "a", ours)
    flags = [f"--asd={folder}", f"--boxes={published}"]
    said = refused(capsys, command, published, *flags)
    assert "give the size of the pictures with --picture" in said
    assert command(published, *flags, "--picture=1280x720")["map"] == 1
    shutil.copytree(published, folder / "pixels")
    assert command(published, f"--asd={folder / 'pixels'}")["map"] < 1  # one is of another class


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--picture=1280"], "is not a size such as 1280x720"),
        (["--confidence=2"], "--confidence: '2' is not a number in 0…1"),
        (["--boxes={folder}/empty"], "has no <rec>_results_gt.csv"),
        (["--boxes={folder}/b"], "no detections of b, which"),
        (["--boxes={folder}/nowhere"], "is not a folder"),
    ],
)
def test_wrong_input_is_one_line(published, capsys, flags, message):
    folder = published.parent
    (folder / "empty").mkdir()
    (folder / "b").mkdir()
    for name in "ab":
        (folder / "b" / f"{name}_results_gt.csv").write_text(HEADER)
    words = f"--asd={published}", *(flag.format(folder=folder) for flag in flags)
    assert message in refused(capsys, command, published, *words)
    assert not (folder / "detections.json").exists()
