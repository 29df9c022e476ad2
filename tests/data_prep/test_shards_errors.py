import dataclasses
import functools

import pytest

from tests.support.digests import digests
from tests.support.shards_data import build, make, toy_procedure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"procedure": toy_procedure().at(6)}, "fps 5.0 → 6.0"),
        ({"image_size": (24, 24)}, "image_size"),
        ({"splits": {"train": ["a", "b", "c"]}}, r"splits.test \['d'\] → absent"),
        ({"settings": {"seed": {"scene": 1}}}, "settings.seed.scene absent → 1"),
        ({"procedure": toy_procedure(name="other").at(5)}, "name toy → other"),
        ({"procedure": toy_procedure(states=["100"]).at(5)}, r"states \["),
    ],
)
def test_build_other_arguments_are_refused(built, change, message):
    before = digests(built)
    with pytest.raises(ValueError, match=f"made with other arguments .*{message}.*another folder"):
        build(built, **change)
    assert digests(built) == before


@pytest.mark.parametrize(
    ("kind", "workers", "error", "message"),
    [
        ("value", 1, ValueError, "recording test/d: no d here"),
        ("value", 2, ValueError, "recording test/d: no d here"),
        ("key", 1, RuntimeError, "recording test/d: KeyError: 'no d here'"),
    ],
)
@pytest.mark.usefixtures("system")  # workers
def test_build_failure_names_the_recording(tmp_path, kind, workers, error, message):
    failing = functools.partial(make, fail=f"{kind},d", log=tmp_path / "log")
    with pytest.raises(error, match=message):
        build(tmp_path / "out", make=failing, workers=workers)
    begun = (tmp_path / "log").read_text().split()
    assert workers > 1 or begun in (["d"], ["d", "a"]), "the next may have begun, no other one"
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    assert not list((tmp_path / "out").glob("unfinished/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda jpegs: jpegs[:-2], "it has 9 images for its 11 labelled frames"),
        (lambda jpegs: jpegs * 2, "more images than its 11 labelled frames"),
    ],
)
def test_build_too_few_or_too_many_pictures_are_refused(tmp_path, change, message):
    def altered(data):
        return dataclasses.replace(data, jpegs=change(list(data.jpegs)))

    with pytest.raises(ValueError, match=rf"recording train/b: .*{message}"):
        build(tmp_path, make=functools.partial(make, change=altered), splits={"train": ["b"]})
    assert not list(tmp_path.glob("clips-*"))
    assert not list(tmp_path.glob("unfinished/*"))
