"""The list of streams: another one is a file and a line."""

import pytest

from stormpsr_jax import evaluate
from stormpsr_jax.psr import streams
from tests.support.evaluate_data import make_scored, run_scored
from tests.support.processes import refused
from tests.support.toy_stream import BOTH


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return make_scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture
def fifth(monkeypatch):
    """The line."""
    monkeypatch.setattr(streams, "STREAMS", (*streams.STREAMS, BOTH))


def test_a_fifth_stream_is_scored_and_shown_and_changes_no_other(scored, fifth, capsys):
    found = run_scored(scored, f"--report={scored / 'r.html'}", "--threshold=both=4")
    assert list(found) == ["asd", "temporal", "storm", "both"]
    assert found["both"]["settings"] == {"pictures": 4.0}
    assert found["both"]["tp"] > 10
    shown = (scored / "r.html").read_text()
    assert "Both agree" in shown
    assert "<th>Pictures</th>" in shown
    assert "var(--amber)" in shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "STREAMS", streams.STREAMS[:-1])
        assert run_scored(scored) == {s: found[s] for s in ("asd", "temporal", "storm")}
    # A number alone is meant for those that sum up evidence.
    assert run_scored(scored, "--threshold=9")["both"]["settings"] == {"pictures": 2.0}
    capsys.readouterr()
    run_scored(scored, streams=("asd",))
    assert "no both stream: it needs --asd and --temporal" in capsys.readouterr().err
    for flag, message in (
        ("--gate=both=1", "--gate: stream both has none"),
        ("--threshold=both=0", "pictures 0.0 is not a number from 1 up"),
        ("--threshold=neither=1", "neither a number nor like asd=6"),
    ):
        assert message in refused(capsys, run_scored, scored, flag)
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "both=2 is the number of pictures" in " ".join(capsys.readouterr().out.split())
    assert "both" not in run_scored(scored, "--protocol=released")
    assert "both" not in run_scored(scored, "--decoder=naive", "--threshold=1")
