import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import stormpsr_jax
from stormpsr_jax import camera, demo, recognise
from stormpsr_jax.base import files
from stormpsr_jax.report import pages
from stormpsr_jax.serving import frames
from stormpsr_jax.serving.content import MODEL, with_checksum
from stormpsr_jax.serving.folder import load_model
from tests.support import refusals
from tests.support.model_data import PROCEDURE, video, write
from tests.support.processes import environment
from tests.support.recognise_data import (
    HEIGHT,
    WIDTH,
    by_the_clock,
    found,
    rows_of,
    run,
    write_pictures,
    write_video,
)


@pytest.fixture(autouse=True)
def _no_report(monkeypatch, made):
    """Drawing takes longer than all else; `made` has one."""
    monkeypatch.setattr(pages, "missing", lambda: ["jinja2"])


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_recognise_a_video_gives_the_events_of_its_decoded_pictures(trained, clip, made):
    loaded = stormpsr_jax.load_model(trained)
    expected = list(loaded.recognise(by_the_clock(clip), recording="a_up"))
    assert len(expected) > 5
    assert list(loaded.recognise(clip)) == list(loaded.recognise(str(clip))) == expected
    assert found(made) == [(event.frame, event.step_id) for event in expected]
    lines = (made / "events.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [line for line in map(json.loads, lines) if line["type"] == "event"]
    for line, event in zip(lines, expected, strict=True):
        assert line["evidence"] == event.evidence
        assert (line["confidence"], line["step"]) == (event.confidence, event.name)
        assert line["time_s"] == event.time_s
        assert line["component"] == PROCEDURE.components[event.step_id // 3]


def test_recognise_pictures_keep_their_numbers(trained, tmp_path, capsys):
    pictures = video(40, HEIGHT, WIDTH)
    folder = write_pictures(tmp_path / "in/c_off", pictures, 100)
    assert run(trained, tmp_path / "in", f"--out={tmp_path / 'out'}") == 0
    loaded = stormpsr_jax.load_model(trained)
    expected = list(loaded.recognise(folder))
    assert expected
    assert expected[0].frame >= 100
    assert found(tmp_path / "out/c_off") == [(e.frame, e.step_id) for e in expected]
    row = rows_of(tmp_path / "out/c_off")[0]
    assert float(row["time"]) == pytest.approx((expected[0].frame - 100) / 10)
    from_zero = list(loaded.recognise(folder, first_frame=0))
    assert [e.frame + 100 for e in from_zero] == [e.frame for e in expected]


@pytest.mark.parametrize(
    ("stream", "threshold", "variant"),
    [("temporal", 2.5, "disassembly"), ("learned", -1.0, "assembly")],
)
def test_recognise_stream_threshold_and_variant(clip, tmp_path, stream, threshold, variant):
    folder = tmp_path / "model"
    write(folder, ("asd", "temporal", "storm", "learned"))
    options = [f"--out={tmp_path}", f"--threshold={stream}={threshold}", f"--variant={variant}"]
    assert run(folder, clip, *options, f"--stream={stream}", "--batch=5") == 0
    assert (tmp_path / "a_up/asd").exists() == (stream == "learned")
    loaded = stormpsr_jax.load_model(folder)
    field = "install" if stream == "learned" else "threshold"
    settings = loaded.decide(risk=1, stream=stream).settings
    settings = dataclasses.replace(settings, **{field: threshold})
    options = {"stream": stream, "variant": variant}
    events = list(loaded.recognise(clip, settings=settings, **options))
    assert events
    assert {e.stream for e in events} == {stream}
    assert [event[:2] for event in events] == found(tmp_path / "a_up")
    assert events != list(loaded.recognise(clip, **options))


def test_recognise_finished_ones_are_skipped_and_corrections_kept(trained, clip, tmp_path, capsys):
    source = tmp_path / "x_up.mp4"
    source.write_bytes(clip.read_bytes())
    out = tmp_path / "out"
    assert run(trained, source, f"--out={out}") == 0
    events = out / "x_up/events.csv"
    events.write_text("time,step\n1.5,Install seal\n")  # corrected by somebody
    before = contents(out)
    os.utime(source)  # another time, the same content
    assert capsys.readouterr().err.startswith("stream: storm\n")
    assert run(trained, source, f"--out={out}") == 0
    assert "finished before" in capsys.readouterr().out
    assert contents(out) == before
    assert run(trained, source, f"--out={out}", "--stream=asd") == 1
    assert "events.csv: was changed since it was made" in capsys.readouterr().err
    assert contents(out) == before
    events.rename(tmp_path / "labels.csv")
    (out / "x_up/notes.txt").write_text("mine")
    assert run(trained, source, f"--out={out}") == 1
    assert "notes.txt: was not made by this command" in capsys.readouterr().err
    (out / "x_up/notes.txt").unlink()
    assert run(trained, source, f"--out={out}") == 0
    assert len(found(out / "x_up")) > 5
    assert run(trained, source, f"--out={out}", "--stream=asd") == 0  # of another option
    assert not (out / "x_up/temporal").exists()
    source.write_bytes(b"")
    assert run(trained, source, f"--out={out}", "--stream=asd") == 1
    assert "is empty (0 bytes)" in capsys.readouterr().err


def test_recognise_a_bad_source_is_named_and_the_others_go_on(trained, clip, tmp_path, capsys):
    whole = clip.read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/b_up.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/c_up.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:9/x.mp4\n")
    (tmp_path / "in/d_up.mp4").write_bytes(whole)
    folder = write_pictures(tmp_path / "in/a_up", video(20, HEIGHT, WIDTH), 1)
    jpeg = (folder / "00015.jpg").read_bytes()
    (folder / "00015.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    out = tmp_path / "out"
    assert run(trained, tmp_path / "in", f"--out={out}") == 1
    errors = capsys.readouterr().err
    for text in (
        "a_up/00015.jpg: the picture is damaged",
        "b_up.mp4: ",
        "c_up.mp4: is not a video",
    ):
        assert text in errors
    assert "3 of 4 could not be recognised" in errors
    assert sorted(p.name for p in out.iterdir()) == [".lock", "d_up"]


@pytest.mark.parametrize(("words", "files", "messages"), refusals.cases("recognise.txt"))
def test_recognise_errors_all_errors_before_anything_starts(
    trained, clip, tmp_path, capsys, monkeypatch, words, files, messages
):
    """Of videos in files and of live sources, which a file stands for that plays."""
    monkeypatch.chdir(tmp_path)
    refusals.write(files, tmp_path)
    for name in ("a_up.mp4", "a_up.mkv", "z_what.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    words = [f"--model={trained}", *words.split()]
    assert "secret" not in refusals.check(capsys, messages, recognise.main, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.system
def test_recognise_interrupted_leaves_no_half_results(trained, tmp_path, made, clip):
    source = write_video(
        tmp_path / "a_up.mp4",
        np.tile(video(50, HEIGHT, WIDTH), (20, 1, 1, 1)),
        np.arange(1_000) / 10,
    )
    words = [sys.executable, "-m", "stormpsr_jax.recognise", f"--model={trained}", str(source)]
    words += [f"--out={tmp_path / 'out'}", "--video"]
    process = subprocess.Popen(words, env=environment(1), stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").glob(".a_up.*.part")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "run the same command again to go on" in errors
    assert not (tmp_path / "out/a_up").exists()
    source.write_bytes(clip.read_bytes())
    assert run(trained, source, f"--out={tmp_path / 'out'}") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".lock", "a_up"]
    assert found(tmp_path / "out/a_up") == found(made)


def test_recognise_events_of_another_product_are_in_no_table(
    clip, made, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(frames, "ENOUGH", 5.0)
    monkeypatch.setattr(frames, "FAR_LESS", 0.9)
    monkeypatch.setattr(frames, "SURE", 0.37)
    for share, status in ((1.0, 3), (0.1, 0)):
        write(tmp_path / f"{share}", product_share=share)
        out = tmp_path / f"out_{share}"
        assert run(tmp_path / f"{share}", clip, f"--out={out}") == status
        said, fits = capsys.readouterr(), status == 0
        lines = [json.loads(line) for line in (out / "a_up/events.jsonl").open()]
        assert {line["fits"] for line in lines if line["type"] != "alert"} == {fits}
        kinds = [line["type"] for line in lines]
        assert (kinds[-1], lines[-1]["validation_share"]) == ("status", share)
        assert 0.1 < lines[-1]["share"] < 0.9
        assert kinds.count("event") > 0
        assert len(found(out / "a_up")) == (kinds.count("event") if fits else 0)
        assert ("validation it was in 100.0% or more" in said.out) == (not fits)
        assert ("do not show the model's product (pump)" in said.err) == (not fits)


# --- A model for a camera, by videos without labels -----------------------------------------------


@pytest.fixture(scope="module")
def model(system, tmp_path_factory):
    """The demo's model, as if it had seen renders alone and their correct parts lay at 9."""
    folder = shutil.copytree(demo.MODEL, tmp_path_factory.mktemp("models") / "model")
    data = files.read_json(folder / MODEL)
    data |= {"right_level": [9.0] * len(data["procedure"]["components"]), "product_share": None}
    files.write_json(folder / MODEL, with_checksum(data))
    return folder


def test_films_without_labels_fit_a_model_to_their_camera(model, tmp_path, capsys):
    out = tmp_path / "camera"
    camera.main([f"--model={model}", str(demo.VIDEO), f"--out={out}"])
    assert "wrote" in capsys.readouterr().out
    added = np.array(load_model(out).settings("learned").camera)
    assert (added > 0).sum() >= 6
    for folder in (model, out):
        events, made = tmp_path / f"{folder.name}_out/demo/events.jsonl", set()
        for _ in range(2):  # the second time it is there already
            argv = [str(demo.VIDEO), f"--model={folder}", f"--out={events.parents[1]}"]
            assert recognise.main(argv) == 0
            said = capsys.readouterr()
            made.add(events.stat().st_mtime_ns)
        assert ("not calibrated for this camera" in said.err) == (folder == model)
        assert len(made) == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [("demo", "does not say where correct parts lie"), ("there", "is there already")],
)
def test_what_cannot_be_made_is_a_line(model, tmp_path, capsys, what, words):
    given = demo.MODEL if what == "demo" else model
    out = tmp_path if what == "there" else tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        camera.main([f"--model={given}", str(demo.VIDEO), f"--out={out}"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
