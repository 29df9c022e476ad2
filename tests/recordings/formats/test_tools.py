"""What tools write beside times and steps: projects, attributes, offsets, every n-th picture."""

import json
import re

import pytest

from stormpsr_jax.base.errors import raise_all
from stormpsr_jax.recordings.label_file import LabelFile
from stormpsr_jax.recordings.recording import LabelPlace
from tests.support import label_formats, toy

PROCEDURE = toy.procedure("base, cap", "10 11", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
CVAT = "<annotations><version>1.1</version>\n{}</annotations>"


def ranges(start, end, label="Install cap"):
    return {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}


def studio_project(steps):
    """A file of Label Studio with a task a recording."""
    return json.dumps(
        [
            {
                "data": {"video": f"/data/upload/1/0a1b2c3d-{name}.mp4", "fps": 10},
                "annotations": [{"result": [{"value": ranges(11, 11, step)}] if step else []}],
            }
            for name, step in steps.items()
        ]
    )


def test_a_recording_of_a_project_without_a_step_has_none_of_another_one(tmp_path):
    content = studio_project({"a": "Install cap", "b": ""})
    for name, steps in (("a", [(10, 3)]), ("b", [])):
        (tmp_path / f"{name}.json").write_text(content)
        assert LabelPlace(tmp_path / f"{name}.json").read(PROCEDURE, UP).steps == steps
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=r"of several recordings \('a', 'b'\), none of them 'c'"):
        LabelPlace(tmp_path / "c.json").read(PROCEDURE, UP)
    (tmp_path / "c.json").write_text(studio_project({"a": "Install cap"}))  # the only one
    assert LabelPlace(tmp_path / "c.json").read(PROCEDURE, UP).steps == [(10, 3)]


def shapes(*frames):
    """Shapes of a track by their frames, of which the last one is outside."""
    return "".join(f"<box frame='{f}' outside='{int(f == frames[-1])}'/>" for f in frames)


@pytest.mark.parametrize(
    ("meta", "last"),
    [
        ("<task><frame_filter>step=10</frame_filter></task>", 90),
        ("<job><frame_filter> step = 5 </frame_filter></job>", 95),
        ("<task><frame_filter></frame_filter></task>", 99),
        ("<project><tasks><task><frame_filter>step=10</frame_filter></task></tasks></project>", 90),
    ],
)
def test_a_track_of_a_task_of_every_nth_picture_ends_with_a_picture_of_the_task(
    tmp_path, meta, last
):
    path = tmp_path / "a.xml"
    track = f"<track label='Install cap'>{shapes(80, 90, 100)}</track>"
    path.write_text(CVAT.format(f"<meta>{meta}</meta>{track}"))
    assert [entry.at for entry in LabelFile(path).entries] == [last]


def task(number, name, size=100, more=""):
    return f"<task><id>{number}</id><name>{name}</name><size>{size}</size>{more}</task>"


def test_tasks_of_a_project_of_cvat_are_recordings_whose_pictures_it_numbers_on(tmp_path):
    path = tmp_path / "project.xml"
    project = "<meta><project><tasks>{}</tasks></project></meta>\n"
    every_5th = "<start_frame>50</start_frame><frame_filter>step=5</frame_filter>"
    tasks = [task(1, "one.mp4", 10, every_5th), task(2, "two"), task(3, "three", 5)]
    tasks[2] = tasks[2].replace("<name>", "<subset>Test</subset><name>")
    labels = "<image name='frame_000060' task_id='1'><tag label='a'/></image>"
    labels += "<image name='frame_000110' task_id='2'><tag label='b'/></image>"
    labels += "<image name='seen/12.jpg' task_id='2'><tag label='c'/></image>"
    labels += f"<track label='d' task_id='2'>{shapes(120, 130)}</track>"
    labels += "<image name='frame_000004' task_id='3'><tag label='e'/></image>"
    path.write_text(CVAT.format(project.format("".join(tasks)) + labels))
    assert [(e.text, e.at, e.recordings[-1]) for e in LabelFile(path).entries] == [
        ("a", 60, "one"),
        ("b", 10, "two"),
        ("c", 12, "seen"),
        ("d", 29, "two"),
        ("e", 4, "three"),
    ]
    for wrong in (labels.replace("000110", "000200"), labels.replace("task_id='3'", "")):
        path.write_text(CVAT.format(project.format("".join(tasks)) + wrong))
        with pytest.raises(ValueError, match=r"line 3: .* project of several videos, .* each t"):
            raise_all(LabelFile(path).errors)
    path.write_text(CVAT.format(project.format(task(1, "one") + task(2, "one"))))
    with pytest.raises(ValueError, match="tasks of the project have the same name"):
        raise_all(LabelFile(path).errors)


def test_tiers_called_steps_are_read_and_others_only_without_them(tmp_path):
    path = tmp_path / "a.eaf"
    label_formats.eaf(path, [(0.9, 9, "Install cap")], 10)
    text = path.read_text()
    (of_steps,) = re.findall("<TIER .*</TIER>", text)
    talk = of_steps.replace("Steps of Ann", "talk").replace("Install cap", "hm")
    path.write_text(text.replace('<TIER TIER_ID="talk"/>', talk))
    assert LabelPlace(path).read(PROCEDURE, UP).steps == [(9, 3)]
    path.write_text(text.replace("Install cap", "").replace("Steps of Ann", "Install cap"))
    assert LabelPlace(path).read(PROCEDURE, UP).steps == [(9, 3)]  # a tier a step


@pytest.mark.parametrize(
    ("unit", "seconds"), [("milliseconds", 0.5), ("PAL-frames", 20), ("NTSC-frames", 1001 / 60)]
)
def test_the_origin_of_elan_is_milliseconds_whatever_the_unit_of_its_times(tmp_path, unit, seconds):
    path = tmp_path / "a.eaf"
    label_formats.eaf(path, [(2.0, 0, "Install cap")], 10, origin=1500)  # so a slot is at 500
    path.write_text(path.read_text().replace("milliseconds", unit))
    assert LabelFile(path).entries[0].at == pytest.approx(seconds + 1.5)
