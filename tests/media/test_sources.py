"""What there is to recognise, by the words of a command line."""

from stormpsr_jax.media import sources


def test_find_a_recording_that_is_named_twice_is_one(tmp_path):
    """As by a pattern of any depth, which matches folders and what is in them."""
    (tmp_path / "day1" / "late").mkdir(parents=True)
    for name in ("day1/a.mp4", "day1/late/b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    words = [str(tmp_path / "**"), str(tmp_path / "day1"), str(tmp_path / "day1/a.mp4")]
    found, errors = sources.find(words, tmp_path / "out")
    assert errors == []
    assert sorted(source.name for source in found) == ["a", "b", "c"]
    (tmp_path / "day2").mkdir()
    (tmp_path / "day2/a.mov").touch()
    (line,) = sources.find([str(tmp_path / "**")], tmp_path / "out")[1]
    assert "day1/a.mp4 and " in line
    assert "day2/a.mov: are both called a" in line
