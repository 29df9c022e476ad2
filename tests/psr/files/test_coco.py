"""COCO files: what is in them, and each mistake with its place."""

import pytest

from stormpsr_jax.psr.files import coco

CONTENT = {
    "images": [
        {"id": 7, "file_name": "a/000012.jpg", "width": 40, "height": 20},
        {"id": "x", "file_name": "b.jpg"},
    ],
    "categories": [{"id": 1, "name": "lid"}, {"id": 2, "name": None}],
    "annotations": [{"id": 5, "image_id": 7, "category_id": 1, "bbox": [4, 5, 8, 10]}],
}


def boxes(annotations, known=None):
    data = CONTENT | {"annotations": annotations}
    return coco.boxes(data, "f", coco.images(data, "f"), known, lambda box: box)


def test_a_box_is_known_by_its_picture_its_category_and_its_frame():
    (box,) = boxes(CONTENT["annotations"])
    assert box.image == coco.Image("f: images[0]", "a/000012.jpg", (40, 20))
    assert (box.category, box.corner, box.frame()) == (1, (4, 5, 8, 10), 12)
    assert box.shares() == (0.2, 0.5, 0.2, 0.5)
    assert coco.categories(CONTENT, "f")[2] == ("f: categories[1]", "")


def test_all_errors_of_a_list_come_at_once():
    good = CONTENT["annotations"][0]
    wrong = [{"image_id": 8}, {"category_id": 3}, {"bbox": [1, 2]}, {"bbox": [1, 2, 3, None]}]
    with pytest.raises(ValueError, match="annotations") as error:
        boxes([good, *(good | {"id": i} | change for i, change in enumerate(wrong)), good, 3], {1})
    assert str(error.value).split("\n") == [
        "f: annotations[1]: image_id: 8 is not in images",
        "f: annotations[2]: category_id: 3 is not in categories",
        "f: annotations[3]: bbox: [1, 2] is not x, y, w, h",
        "f: annotations[4]: bbox: None is not in -1e+09…1e+09",
        "f: annotations[5]: id: 5 is given twice",
        "f: annotations[6]: 3 is not an object",
    ]
    with pytest.raises(ValueError, match=r"f: images\[1\]: id: 7 is given twice"):
        coco.images({"images": CONTENT["images"][:1] * 2}, "f")
    with pytest.raises(
        ValueError, match="f: not COCO, which is an object with a list 'categories'"
    ):
        coco.categories({"categories": {}}, "f")
