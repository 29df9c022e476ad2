"""The report of a recognised recording."""

from tests.support.recognise_data import found, run


def test_report_escapes_names_and_shows_every_event(made, trained, tmp_path, clip):
    page = (made / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == len({frame for frame, _ in found(made)})
    assert page.count('<td class="name">Install') >= sum(s % 3 == 0 for _, s in found(made))
    evil = tmp_path / "<script>alert(1)<_up.mp4"
    evil.write_bytes(clip.read_bytes())
    assert run(trained, evil, f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / evil.stem / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
