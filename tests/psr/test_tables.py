"""The table writer: what it writes is read back by programs that know the format."""

import csv
import io

from stormpsr_jax.psr.analysis import format_rows

ROWS = [
    {"stream": "asd", "f1": 0.123456, "tp": 3, "name": "50 % of a_b|c"},
    {"stream": "storm", "f1": None, "tp": 12, "name": "x, y"},
]


def test_names_in_csv_are_no_formulas_and_numbers_stay_numbers():
    names = ["=1+2", "+1", "-x", "@A1", "\t=1", "＝1+2", "a=1", "1-2"]
    rows = [{"recording": name, "delay": -0.5} for name in names]
    (head, *read) = csv.reader(io.StringIO(format_rows(rows, "csv")))
    assert head == ["recording", "delay"]
    names[4] = r"\t=1"
    assert read == [[f"'{name}" if i < 6 else name, "-0.5"] for i, name in enumerate(names)]


def test_markdown_cells_by_column():
    lines = format_rows(ROWS, "markdown").splitlines()
    assert len(lines) == 4
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    assert lines[1].split("|")[2].strip().endswith(":")  # numbers to the right
    assert not lines[1].split("|")[1].strip().endswith(":")
    assert [c.strip() for c in lines[3].split("|")[1:-1]] == ["storm", "–", "12", "x, y"]
    assert r"50 % of a_b\|c" in lines[2]
