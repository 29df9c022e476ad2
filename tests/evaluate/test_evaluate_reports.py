"""What shows a result: the report, tables, comparisons."""

import csv

from stormpsr_jax import evaluate
from tests.support.commands import refused
from tests.support.evaluate_data import command, run


def show(capsys, *arguments):
    evaluate.main(list(map(str, arguments)))
    return capsys.readouterr().out


def test_tables_all_of_them_in_every_format(files, capsys):
    result = run(files, f"--visibility={files / 'visibility'}")
    capsys.readouterr()
    text = show(capsys, "tables", files / "out.json")
    for name in "summary recordings steps delays tolerance occlusion reliability".split():
        assert f"\n{name}\nstream " in text
        for form in ("text", "csv", "markdown"):
            flags = f"--table={name}", f"--format={form}"
            assert "storm" in show(capsys, "tables", files / "out.json", *flags)
    assert "Install front chassis" in text
    recordings = result["streams"]["asd"]["recordings"]
    for r in recordings.values():
        assert len(r["visible"]) == len(r["truth"])
        assert all(0 <= v <= 1 for v in r["visible"])


def test_compare_streams_and_files(files, capsys):
    run(files)
    late = files / "late.json"
    evaluate.main([*command(files, "--threshold=3"), f"--out={late}"])
    capsys.readouterr()
    text = show(capsys, "compare", files / "out.json", late)
    assert text.count("common_delay_s") == 3
    text = show(capsys, "compare", late, late, "--streams=asd,storm", "--format=csv")
    rows = {row["metric"]: row for row in csv.DictReader(text.splitlines())}
    assert float(rows["delay_s"]["difference"]) < 0
    evaluate.main(["compare", str(late), str(late), "--streams=asd"])
    assert "f1_tolerant" in capsys.readouterr().out
    for arguments, message in [
        (["compare", files / "out.json"], "required: b"),
        (["compare", files / "out.json", files / "nothing.json"], "nothing.json: cannot be read"),
        (["compare", late, late, "--streams=a,b,c"], "names more than two streams"),
        (["tables", files / "labels"], "is not a regular file"),
    ]:
        said = refused(capsys, evaluate.main, list(map(str, arguments)))
        assert message in said
